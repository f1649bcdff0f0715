"""JPEG pictures out of whatever a camera wraps them in, and one well-formed stream of them for FFmpeg.

FFmpeg is strict about the boundaries between parts, and cheap cameras are not. Pictures are found by their own
structure (ITU T.81, annex B), whatever stands between them.
"""

import io
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pipeline.clock import Clock
from pipeline.errors import SourceRefused, SourceUnavailable
from pipeline.sources.web import CHUNK_BYTES, Missing

MAX_PICTURE_BYTES = 64 << 20
"""A picture that does not end within this is none."""

MAX_BETWEEN_BYTES = 1 << 20
"""How much a camera may send before the first picture."""

WAIT_STEP_S = 0.1

START = b"\xff\xd8\xff"
_STANDALONE = frozenset([0x01, *range(0xD0, 0xD8)])
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA


class JpegCutter:
    """Bytes in, whole pictures out, each as soon as its last byte is there. `skipped` counts bytes between pictures."""

    def __init__(self) -> None:
        self.skipped = 0
        self._bytes = bytearray()
        self._reset()

    def feed(self, data: bytes) -> list[bytes]:
        """The pictures that end in `data`."""
        self._bytes += data
        found = []
        while (picture := self._next()) is not None:
            found.append(picture)
        if len(self._bytes) > MAX_PICTURE_BYTES:
            self._drop(len(self._bytes))
        return found

    def _reset(self) -> None:
        self._at = 0  # up to where the picture at the beginning is understood
        self._in_scan = False
        self._has_scan = False

    def _next(self) -> bytes | None:
        while self._at or self._begin():
            if self._in_scan and not self._skip_scan():
                return None
            if len(self._bytes) < self._at + 2:
                return None
            marker = self._bytes[self._at + 1]
            if self._bytes[self._at] != 0xFF:
                self._drop(self._at)  # no structure: what looked like a picture was none
            elif marker == 0xFF:
                self._at += 1
            elif marker == _EOI:
                return self._take(self._at + 2)
            elif marker == _SOI and self._has_scan:
                return self._take(self._at) + b"\xff\xd9"  # some cameras never write the end of a picture
            elif marker == _SOI:
                self._drop(self._at)
            elif marker in _STANDALONE:
                self._at += 2
            elif not self._skip_segment(marker):
                return None
        return None

    def _begin(self) -> bool:
        start = self._bytes.find(START)
        if start < 0:
            self._drop(max(len(self._bytes) - len(START) + 1, 0))
            return False
        self._drop(start)
        self._at = 2
        return True

    def _skip_segment(self, marker: int) -> bool:
        if len(self._bytes) < self._at + 4:
            return False
        size = int.from_bytes(self._bytes[self._at + 2 : self._at + 4], "big")
        if len(self._bytes) < self._at + 2 + size:
            return False
        self._at += 2 + max(size, 2)
        if marker == _SOS:
            self._in_scan = self._has_scan = True
        return True

    def _skip_scan(self) -> bool:
        """Go to the marker that ends the entropy-coded data; False where it is not there yet."""
        while True:
            self._at = self._bytes.find(b"\xff", self._at)
            if self._at < 0:
                self._at = len(self._bytes)
                return False
            if self._at + 1 >= len(self._bytes):
                return False
            if self._bytes[self._at + 1] not in (0x00, 0xFF) and self._bytes[self._at + 1] not in _STANDALONE:
                self._in_scan = False
                return True
            self._at += 1 if self._bytes[self._at + 1] == 0xFF else 2

    def _take(self, end: int) -> bytes:
        picture = bytes(self._bytes[:end])
        del self._bytes[:end]
        self._reset()
        return picture

    def _drop(self, count: int) -> None:
        self.skipped += count
        del self._bytes[:count]
        self._reset()


class Pictures(Protocol):
    """The body of a reply."""

    def read(self, size: int) -> bytes: ...

    def close(self) -> None: ...


class PictureFile(io.RawIOBase):
    """The pictures of a camera as FFmpeg's `mpjpeg` reads them: `found` of the reply that was opened, then on.

    A reply of one picture is a snapshot: `ask` is called again every `every_s` seconds. One of several is a stream,
    and its end is the end.
    """

    name = "pictures"

    def __init__(
        self, reply: Pictures, cutter: JpegCutter, found: list[bytes], ask: Callable[[], Pictures], clock: Clock,
        every_s: float,
    ) -> None:  # fmt: skip
        self.cut = False
        self._reply: Pictures | None = reply
        self._cutter = cutter
        self._waiting = deque(found)
        self._count = len(found)
        self._ask = ask
        self._clock = clock
        self._every_s = every_s
        self._due_s = clock.monotonic_s() + every_s
        self._part = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes of a multipart stream. Raises SourceUnavailable."""
        while not self._part:
            if not self._waiting and not self._fetch():
                return b""
            if self._waiting:
                picture = self._waiting.popleft()
                head = f"\r\n--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self._part = head.encode() + picture
        given, self._part = self._part[:size], self._part[size:]
        return given

    def close(self) -> None:
        if self._reply is not None:
            self._reply.close()
            self._reply = None
        super().close()

    def _fetch(self) -> bool:
        """Read on, or ask for the next snapshot; False at the end of a stream."""
        if self._reply is None:
            self._wait()
            try:
                self._reply, self._cutter, self._count = self._ask(), JpegCutter(), 0
            except (SourceRefused, Missing):
                raise
            except SourceUnavailable:
                if self.cut:
                    raise
                return True  # one that is missed is not a loss: the stall time says when it is
        data = self._reply.read(CHUNK_BYTES)
        found = self._cutter.feed(data)
        self._waiting += found
        self._count += len(found)
        if not data:
            stream = self._count > 1
            self._reply.close()
            self._reply = None
            return not stream
        if self._cutter.skipped > MAX_BETWEEN_BYTES * (self._count + 1):
            raise SourceUnavailable("what it sends is no JPEG picture")
        return True

    def _wait(self) -> None:
        now_s = self._clock.monotonic_s()
        while (rest_s := self._due_s - self._clock.monotonic_s()) > 0:
            if self.cut:
                raise SourceUnavailable("it was closed")
            self._clock.wait(min(rest_s, WAIT_STEP_S))
        self._due_s = max(self._due_s, now_s) + self._every_s


def first_pictures(reply: Pictures, count: int) -> tuple[JpegCutter, list[bytes]]:
    """The first `count` pictures of a reply, fewer where it ends before, none where it sends none within bounds.

    Raises SourceUnavailable.
    """
    cutter, found, data = JpegCutter(), list[bytes](), b"-"
    while data and len(found) < count and cutter.skipped <= MAX_BETWEEN_BYTES:
        data = reply.read(CHUNK_BYTES)
        found += cutter.feed(data)
    return cutter, found
