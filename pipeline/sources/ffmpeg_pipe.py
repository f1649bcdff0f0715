"""The `ffmpeg` program as a child, for inputs that PyAV's own FFmpeg was built without. It copies, never decodes."""

import shutil
import subprocess
import threading
from collections import deque
from io import FileIO
from typing import cast

from pipeline.errors import SourceUnavailable
from pipeline.redact import scrub
from pipeline.sources.address import Address

ERROR_LINES = 4
"""How much of what the child says on stderr is kept, in lines."""

KILL_S = 2.0
"""How long a killed child is waited for, in seconds."""

_INPUTS = {
    "srt": (("-probesize", "500000", "-analyzeduration", "1000000"), "mpegts"),
    "v4l2": (("-f", "v4l2"), "nut"),
}


class FfmpegPipe:
    """A running `ffmpeg` that copies the video of `address` to `stream`, in the container format `format`.

    The URL, with any passphrase in it, is on the child's command line, which other users of the host can see.
    """

    def __init__(self, address: Address) -> None:
        """Start the child. Raises SourceUnavailable where the program is not installed."""
        program = shutil.which("ffmpeg")
        if program is None:
            raise SourceUnavailable(
                f"{address.shown} needs {address.scheme}, which this build of PyAV lacks, and no `ffmpeg` program"
                " is on the PATH; install ffmpeg"
            )
        options, self.format = _INPUTS[address.scheme]
        command = [program, "-nostdin", "-hide_banner", "-loglevel", "error", *options, "-i", address.target]
        command += ["-map", "0:v:0", "-c", "copy", "-flush_packets", "1", "-f", self.format, "pipe:1"]
        # Unbuffered, so that a read gives what is there instead of waiting for a full block.
        try:
            self._child = subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            raise SourceUnavailable(f"{address.shown}: {program} cannot be started: {error.strerror}") from None
        self._address = address
        self._errors: deque[str] = deque(maxlen=ERROR_LINES)
        self._listener = threading.Thread(target=self._listen, name="ffmpeg-stderr", daemon=True)
        self._listener.start()

    @property
    def stream(self) -> FileIO:
        """The child's output."""
        return cast(FileIO, self._child.stdout)

    def said(self) -> str:
        """Why the child ended, in its own last words, without credentials; empty if it said nothing."""
        self._listener.join(timeout=0.2)
        return scrub("; ".join(self._errors).replace(self._address.target, self._address.shown))

    def kill(self) -> None:
        """End the child; a read of `stream` under way in another thread then ends too."""
        self._child.kill()

    def close(self) -> None:
        """End and reap the child, free its pipes. Call from the thread that reads."""
        self.kill()
        self._child.wait(timeout=KILL_S)
        self._listener.join(timeout=KILL_S)
        for pipe in (self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()

    def _listen(self) -> None:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            self._errors.append(line.decode(errors="replace").strip())
