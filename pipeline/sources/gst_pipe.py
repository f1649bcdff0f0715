"""The process that decodes by GStreamer, seen from here: packets go in, and the pictures that are wanted come out."""

import subprocess
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue
from typing import IO

from pipeline.sources import gst_child

PYTHON = "/usr/bin/python3"
"""The Python of the distribution, which has GStreamer's bindings."""
AHEAD = 8
"""Most packets that wait for the process."""
ERROR_LINES = 4
"""How much of what it says on stderr is kept, in lines."""
KILL_S = 2.0
"""How long a killed process is waited for, in seconds."""

_ELEMENTS = {
    "h264": ("h264parse", "video/x-h264,stream-format=byte-stream,alignment=au"),
    "hevc": ("h265parse", "video/x-h265,stream-format=byte-stream,alignment=au"),
}
CODECS = frozenset(_ELEMENTS)
"""FFmpeg's names of the codecs that can be decoded so."""


class GstEnded(Exception):
    """The process has ended, or does nothing any more. The message says why, for people."""


@dataclass(frozen=True, slots=True)
class SeenPicture:
    """A decoded picture that the process keeps: the time stamp of its packet (ns), and its size in px."""

    stamp: int
    width: int
    height: int


class GstPipe:
    """A running process that decodes a `codec` of CODECS by the GStreamer element `decoder`. Every picture that it has
    `seen` is to be fetched or dropped."""

    def __init__(self, codec: str, decoder: str) -> None:
        """Start the process. Raises GstEnded where there is no Python of the distribution."""
        parser, caps = _ELEMENTS[codec]
        # Pictures of NVIDIA's decoders lie in memory of their own kind.
        converter = "nvvidconv" if decoder.startswith("nv") else "videoconvert"
        command = [PYTHON, "-I", str(Path(gst_child.__file__)), parser, decoder, converter, caps]
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise GstEnded(f"{PYTHON} cannot be started: {error.strerror}; apt-get install python3-gi") from None
        self._waiting: Queue[tuple[int, int, bytes] | None] = Queue(AHEAD)
        self._pictures: deque[SeenPicture] = deque()
        self._pixels: dict[int, bytes] = {}
        self._news = threading.Condition()
        self._over = False
        self._errors: deque[str] = deque(maxlen=ERROR_LINES)
        self._threads = [
            threading.Thread(target=work, name=f"gstreamer {name}", daemon=True)
            for name, work in (("in", self._write), ("out", self._read), ("stderr", self._listen))
        ]
        for thread in self._threads:
            thread.start()

    def send(self, stamp: int, data: bytes, within_s: float) -> None:
        """Hand over a packet of Annex B with its time stamp (ns). Raises GstEnded."""
        self._put((gst_child.PACKET, stamp, data), within_s)

    def finish(self, within_s: float) -> None:
        """No packet comes any more. Raises GstEnded."""
        self._put((gst_child.END, 0, b""), within_s)

    def seen(self, within_s: float) -> list[SeenPicture]:
        """The pictures that are there; where there are none, those that come within so many seconds."""
        with self._news:
            self._news.wait_for(lambda: self._pictures or self._over, within_s)
            taken = list(self._pictures)
            self._pictures.clear()
            return taken

    def fetch(self, stamp: int, within_s: float) -> bytes:
        """NV12 of a picture that was seen, with lines of multiples of 4 bytes. Raises GstEnded."""
        self._put((gst_child.FETCH, stamp, b""), within_s)
        with self._news:
            self._news.wait_for(lambda: stamp in self._pixels or not self._threads[1].is_alive(), within_s)
            if stamp in self._pixels:
                return self._pixels.pop(stamp)
        raise GstEnded(self.said())

    def drop(self, stamp: int, within_s: float) -> None:
        """Nobody wants a picture that was seen. Raises GstEnded."""
        self._put((gst_child.DROP, stamp, b""), within_s)

    @property
    def over(self) -> bool:
        """True if no further picture comes, and all were taken."""
        with self._news:
            return self._over and not self._pictures

    def said(self) -> str:
        """Why the process ended, in its own last words."""
        self._threads[2].join(timeout=0.2)
        return self._errors[-1] if self._errors else "GStreamer ended without a word"

    def close(self) -> None:
        """End the process, and what waits for it."""
        self._child.kill()
        with suppress(subprocess.TimeoutExpired):  # a driver may hold it
            self._child.wait(timeout=KILL_S)
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)
        for thread in self._threads:
            thread.join(timeout=KILL_S)
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                _shut(pipe)

    def _put(self, item: tuple[int, int, bytes], within_s: float) -> None:
        try:
            self._waiting.put(item, timeout=within_s)
        except Full:
            raise GstEnded(self.said() if self._over else f"GStreamer took no packet for {within_s:g} s") from None

    def _write(self) -> None:
        into = self._child.stdin
        assert into is not None
        try:
            while (item := self._waiting.get()) is not None:
                kind, stamp, data = item
                into.write(gst_child.TO_CHILD.pack(kind, stamp, len(data)) + data)
                into.flush()
        except OSError:
            return  # it has ended; the reader knows

    def _read(self) -> None:
        out = self._child.stdout
        assert out is not None
        size = gst_child.FROM_CHILD.size
        try:
            while len(head := out.read(size)) == size:
                kind, stamp, width, height, length = gst_child.FROM_CHILD.unpack(head)
                data = out.read(length)
                with self._news:
                    if kind == gst_child.SEEN:
                        self._pictures.append(SeenPicture(stamp, width, height))
                    elif kind == gst_child.OVER:
                        self._over = True
                    elif len(data) == length:
                        self._pixels[stamp] = data
                    self._news.notify_all()
        except (OSError, ValueError):
            pass  # closed here
        finally:
            with self._news:
                self._over = True
                self._news.notify_all()

    def _listen(self) -> None:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            self._errors.append(line.decode(errors="replace").strip())


def _shut(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except OSError:
        return  # what was buffered for a process that is gone
