"""Standard input and named pipes as FFmpeg reads them: forwards, once, and interruptible while nothing comes."""

import io
import os
import select
import threading
from pathlib import Path

from pipeline.errors import SourceUnavailable

STANDARD_INPUT = 0
"""Its file descriptor."""


class PipeFile(io.RawIOBase):
    """Reads what a program writes into the named pipe `path`, or into standard input if that is None.

    Raises SourceUnavailable where it cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self.name = "pipe"
        self._ours = path is not None
        try:
            # Without O_NONBLOCK, opening waits for a writer, and nothing can end that.
            self._file = STANDARD_INPUT if path is None else os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise SourceUnavailable(f"the pipe cannot be opened: {error.strerror}") from None
        self._wake_read, self._wake_write = os.pipe()
        self._closing = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, once some are there; none when the writer has closed. Raises SourceUnavailable."""
        waiting = select.poll()
        waiting.register(self._file, select.POLLIN)
        waiting.register(self._wake_read, select.POLLIN)
        while True:
            ready = dict(waiting.poll())
            if self._wake_read in ready:
                raise SourceUnavailable("it was closed")
            try:
                return os.read(self._file, size)
            except BlockingIOError:
                continue
            except OSError as error:
                raise SourceUnavailable(f"the pipe broke: {error.strerror}") from None

    def interrupt(self) -> None:
        """End a read that is under way in another thread."""
        with self._closing:
            if not self.closed:
                os.write(self._wake_write, b"x")

    def close(self) -> None:
        with self._closing:
            if not self.closed:
                os.close(self._wake_read)
                os.close(self._wake_write)
                if self._ours:
                    os.close(self._file)
            super().close()
