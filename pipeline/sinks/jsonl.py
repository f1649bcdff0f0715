"""Events as lines of a file: one structured CloudEvent per line, safe on disk before it is acknowledged."""

import asyncio
import fcntl
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import structlog

from pipeline.errors import ConfigError, SinkGone, SinkUnavailable
from pipeline.sinks.cloudevents import encode
from pipeline.types import Event

log = structlog.get_logger()

_BLOCK_BYTES = 65_536
_LINE_START = b'{"specversion"'


class _Taken(ValueError):
    """Another process holds the file."""


class JsonlSink:
    """Appends to the file at `path`, whose folder is made, with one fsync per batch. A new file is its owner's alone.

    What a crash left behind the last whole line, an event without its end or the zeros of blocks that were never
    written, is cut off and logged when the file is opened. A file that was moved away (log rotation) is begun anew. One
    process at a time writes to a file. `publish` raises SinkUnavailable for whatever the system refuses, `check`
    ConfigError, as for a path that names no file.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        self.name = name or f"jsonl:{path}"
        self._path = Path(path)
        if self._path == Path() or str(path).startswith("//"):
            raise ConfigError(
                f"{self.name} names no file: {str(path)!r}; expected jsonl:PATH, such as jsonl:events.jsonl"
            )
        self._fd = -1
        self._thread = ThreadPoolExecutor(1, "jsonl")

    async def publish(self, events: Sequence[Event]) -> None:
        lines = b"".join(encode(event) + b"\n" for event in events)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._append, lines)

    async def check(self) -> str:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except ConfigError as error:
            if not isinstance(error.__cause__, _Taken):
                raise
            return f"events go to the file {self._path.absolute()}, which another process writes to now"
        return f"events go to the file {self._path.absolute()}"

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)
        self._close()

    def _append(self, lines: bytes) -> None:
        try:
            self._open()
            size = os.fstat(self._fd).st_size
            try:
                _write_all(self._fd, lines)
                os.fsync(self._fd)
            except OSError:
                os.ftruncate(self._fd, size)  # none of the batch stays, so that its next try repeats nothing
                raise
        except OSError as error:
            self._close()
            raise SinkUnavailable(f"the file {self._path} does not take events: {error.strerror}") from error
        except ConfigError as error:
            raise SinkUnavailable(str(error)) from error

    def _open(self) -> None:
        if self._fd >= 0 and not self._was_moved():
            return
        self._close()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._claim()
            if cut := _cut_incomplete_line(self._fd):
                log.warning("journal_mended", path=str(self._path), cut_bytes=cut)
            _sync_folder(self._path.parent)
        except OSError as error:
            self._close()
            raise ConfigError(f"events cannot be written to {self._path}: {error.strerror}") from error
        except ValueError as error:
            self._close()
            raise ConfigError(f"events cannot be written to {self._path}: {error}") from error

    def _claim(self) -> None:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise ValueError("it is no regular file; use - for the standard output")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _Taken("another process writes to it; give each a file of its own") from error

    def _was_moved(self) -> bool:
        try:
            return not os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            return True

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class TextSink:
    """Writes the same lines to a text stream, such as the standard output, and flushes after each batch.

    `broken` is set once nobody reads the stream any more, or it takes nothing more; `failure` is why.
    """

    def __init__(self, stream: TextIO, name: str = "jsonl:-") -> None:
        self.name = name
        self.broken = asyncio.Event()
        self.failure: SinkGone | None = None
        self._stream = stream

    async def publish(self, events: Sequence[Event]) -> None:
        try:
            await asyncio.to_thread(self._write, "".join(encode(event).decode() + "\n" for event in events))
        except SinkGone as error:
            self.failure = error
            self.broken.set()
            raise

    async def check(self) -> str:
        return f"events go to {getattr(self._stream, 'name', 'a text stream')}"

    async def close(self) -> None:
        """The stream stays open: it belongs to whoever gave it."""

    def _write(self, lines: str) -> None:
        try:
            self._stream.write(lines)
            self._stream.flush()
        except (BrokenPipeError, ValueError) as error:  # ValueError: the stream was closed
            raise SinkGone(f"nobody reads {self.name} any more: {error}") from error
        except OSError as error:
            raise SinkGone(f"{self.name} takes nothing more: {error.strerror}") from error


def _write_all(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _cut_incomplete_line(fd: int) -> int:
    """Cut what stands behind the last whole line, and return its size. Raises ValueError when it is no part of an event
    of ours, nor zeros: then it is somebody's text."""
    size = os.fstat(fd).st_size
    start = _start_of_last_line(fd, size)
    if start == size:
        return 0
    head = os.pread(fd, min(len(_LINE_START), size - start), start)
    if not _LINE_START.startswith(head.rstrip(b"\0")):
        raise ValueError("its last line is no event; expected a new file, or one of events")
    os.ftruncate(fd, start)
    os.fsync(fd)
    return size - start


def _start_of_last_line(fd: int, size: int) -> int:
    """Offset after the last line end, 0 where there is none."""
    end = size
    while end:
        begin = max(end - _BLOCK_BYTES, 0)
        found = os.pread(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _sync_folder(folder: Path) -> None:
    """Make a new file's name as durable as its content."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
