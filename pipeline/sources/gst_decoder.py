"""Decoding by GStreamer, for hardware that FFmpeg does not reach: `nvv4l2decoder` of a Jetson.

FFmpeg goes on to open and demux, so that all else of a stream is as ever: only packets go to GStreamer, and pictures
come back. FFmpeg also decodes up to the first picture, which shows what GStreamer does not say. Where GStreamer gives
none, FFmpeg goes on from there, and nothing is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from av import Packet, VideoFrame
from av.bitstream import BitStreamFilterContext
from av.sidedata.sidedata import SideDataContainer

from pipeline.clock import Clock
from pipeline.errors import SourceUnavailable
from pipeline.sources.av_decoder import DecodedFrame, Decoder, VideoPacket
from pipeline.sources.base import SourceCounts
from pipeline.sources.connection import Connection
from pipeline.sources.gst_pipe import CODECS, GstEnded, GstPipe, SeenPicture
from pipeline.sources.soundness import Coded

FIRST_S: Final = 10.0
"""How long the first picture may take before FFmpeg decodes instead, in seconds: pipelines start slowly."""
HANG_S: Final = 5.0
"""How long GStreamer may take no packet, in seconds."""
WAIT_S: Final = 0.02
"""How long a picture is waited for behind its packet, in seconds; after that it comes with a later one."""
BEHIND: Final = 32
"""A packet so many before the newest picture's has given none."""
MOST_HELD: Final = 600
"""Packets that are kept until there is a first picture."""

_NS: Final = 1_000_000_000
_JUMP_NS: Final = 5 * _NS
_FORMATS: Final = frozenset({"yuv420p", "yuvj420p", "yuv420p10le"})
_START_CODE: Final = b"\0\0\1"


@dataclass(slots=True)
class _GstFrame:
    """A picture that GStreamer keeps, by the `stamp` of its packet; `pts` is in the ticks of its stream."""

    stamp: int
    width: int
    height: int
    pts: int | None
    opaque: Coded
    is_corrupt: bool = False
    is_done: bool = False


class GstDecoder(Decoder):
    """Decodes one connection by the element `element`. `fell_back` is called with the reason where FFmpeg has to decode
    instead. Raises SourceUnavailable where GStreamer ends later."""

    def __init__(
        self,
        connection: Connection,
        counts: SourceCounts,
        element: str,
        clock: Clock,
        fell_back: Callable[[str], None],
    ) -> None:
        super().__init__(connection, counts)
        self._element = element
        self._clock = clock
        self._fell_back = fell_back
        self._pipe: GstPipe | None = None
        self._by_ffmpeg = False
        self._codec = connection.video.codec_context.name
        self._extradata = connection.video.codec_context.extradata or b""
        self._interval_ns = round(connection.interval_s * _NS)
        self._filter: BitStreamFilterContext | None = None
        if self._codec in CODECS:
            self._filter = BitStreamFilterContext(f"{self._codec}_mp4toannexb", connection.video)
        else:
            self._leave(f"GStreamer decodes {' and '.join(sorted(CODECS))} here, and no {self._codec}")
        self._look: VideoFrame | None = None
        self._began_s = 0.0
        self._given = False
        self._kept: list[tuple[VideoPacket, Coded, bytes]] = []
        self._spare: list[DecodedFrame] = []
        self._inside: dict[int, Coded] = {}
        self._anew: set[int] = set()
        self._lag = 0
        self._newest_ns = 10 * _NS
        self._shift_ns: int | None = None

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def fetch(self, frame: DecodedFrame) -> VideoFrame:
        if not isinstance(frame, _GstFrame):
            return super().fetch(frame)
        assert self._pipe is not None
        assert self._look is not None
        try:
            data = self._pipe.fetch(frame.stamp, HANG_S)
        except GstEnded as error:
            raise _ended(error) from None
        frame.is_done = True
        whole = nv12(frame.width, frame.height, data)
        whole.pts, whole.time_base = frame.pts, self._look.time_base
        whole.colorspace, whole.color_range = self._look.colorspace, self._look.color_range
        return whole

    def done(self, frame: DecodedFrame) -> None:
        if isinstance(frame, _GstFrame) and not frame.is_done and self._pipe is not None:
            try:
                self._pipe.drop(frame.stamp, HANG_S)
            except GstEnded as error:
                raise _ended(error) from None

    def _signs(self, frame: DecodedFrame, coded: Coded) -> tuple[bool, bool]:
        if coded.number in self._anew:
            self._anew.discard(coded.number)
            return True, True
        return super()._signs(frame, coded) if self._by_ffmpeg else (False, False)

    def _frames(self, packet: VideoPacket, coded: Coded | None) -> list[DecodedFrame]:
        if self._by_ffmpeg:
            return list(super()._frames(packet, coded))
        try:
            if coded is None:
                return self._rest(packet)
            data = self._annex_b(packet)
            if begins_anew(self._codec, data):
                self._anew.add(coded.number)
            if not self._given:
                self._hold(packet, coded, data)
            if self._pipe is None:
                return self._begun(packet, coded)
            self._send(self._pipe, packet, coded, data)
            return self._ready(self._pipe)
        except GstEnded as error:
            frames = self._lost(error)
            return [*frames, *super()._frames(packet, None)] if coded is None else frames

    def _hold(self, packet: VideoPacket, coded: Coded, data: bytes) -> None:
        """Keep a packet until GStreamer has shown that it works. One that cannot show a picture need not be kept."""
        if self._pipe is None and coded.key:
            self._kept.clear()
        self._kept.append((packet, coded, data))
        del self._kept[:-MOST_HELD]

    def _begun(self, packet: VideoPacket, coded: Coded) -> list[DecodedFrame]:
        """Decode by FFmpeg until there is a picture; then GStreamer begins, at the newest key frame."""
        self._spare = list(super()._frames(packet, coded))
        if not self._spare:
            return []
        self._look = look = self.fetch(self._spare[0])
        if (reason := unfit(look)) is not None:
            self._leave(reason)
            return self._spare
        kept, self._kept = self._kept, []
        self._pipe, self._began_s = GstPipe(self._codec, self._element), self._clock.monotonic_s()
        for number, (before, its, data) in enumerate(kept):
            first = number == 0 and self._extradata.startswith((_START_CODE, b"\0" + _START_CODE))
            self._send(self._pipe, before, its, self._extradata + data if first else data)
        return self._ready(self._pipe)

    def _send(self, pipe: GstPipe, packet: VideoPacket, coded: Coded, data: bytes) -> None:
        stamp = self._stamp(packet)
        self._inside[stamp] = coded
        pipe.send(stamp, data, HANG_S)

    def _ready(self, pipe: GstPipe) -> list[DecodedFrame]:
        """The pictures that are there. They are waited for where one is late: further behind its packet than usual."""
        inside = len(self._inside)
        within_s = WAIT_S if inside > self._lag else 0.0
        frames = [frame for seen in pipe.seen(within_s) if (frame := self._frame(seen)) is not None]
        self._lag = min(self._lag, len(self._inside)) if frames else max(self._lag, inside)
        if frames:
            self._given = True
            self._kept.clear()
            self._spare = []
        elif pipe.over:
            raise GstEnded(pipe.said())
        elif not self._given and self._clock.monotonic_s() - self._began_s > FIRST_S:
            raise GstEnded(f"GStreamer gave no picture for {FIRST_S:g} s")
        return frames

    def _rest(self, end: VideoPacket) -> list[DecodedFrame]:
        """The pictures that are still inside when the stream has ended."""
        if (pipe := self._pipe) is None:
            return list(super()._frames(end, None))
        pipe.finish(HANG_S)
        frames: list[DecodedFrame] = []
        while not pipe.over:
            taken = [frame for seen in pipe.seen(HANG_S) if (frame := self._frame(seen)) is not None]
            if not taken and not pipe.over:
                raise GstEnded(f"GStreamer gave no picture for {HANG_S:g} s")
            frames += taken
        if not frames and not self._given:
            raise GstEnded(pipe.said())
        return frames

    def _lost(self, error: GstEnded) -> list[DecodedFrame]:
        """GStreamer has ended: FFmpeg goes on if it has shown nothing yet, else the connection is at its end."""
        if self._given:
            raise _ended(error)
        self._leave(str(error))
        frames, self._spare = self._spare, []
        for packet, coded, _ in self._kept:
            frames += super()._frames(packet, coded)
        self._kept.clear()
        return frames

    def _leave(self, reason: str) -> None:
        self.close()
        self._by_ffmpeg = True
        self._fell_back(reason)

    def _annex_b(self, packet: VideoPacket) -> bytes:
        """The packet's data with start codes. The packet itself stays whole: others keep it."""
        assert self._filter is not None
        copy = cast("VideoPacket", Packet(bytes(memoryview(packet))))
        copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
        copy.is_keyframe = packet.is_keyframe
        return b"".join(bytes(memoryview(one)) for one in self._filter.filter(copy))

    def _stamp(self, packet: VideoPacket) -> int:
        """A time stamp (ns) that names the packet's picture: in order of display, as decoders want it, and without
        jumps."""
        ticks = packet.pts if packet.pts is not None else packet.dts
        following = self._newest_ns + self._interval_ns
        at = following if ticks is None else round(float(ticks * packet.time_base) * _NS)
        if ticks is not None:
            if self._shift_ns is None or abs(at + self._shift_ns - self._newest_ns) > _JUMP_NS:
                self._shift_ns = following - at
            at += self._shift_ns
        while at in self._inside:
            at += 1
        self._newest_ns = max(self._newest_ns, at)
        return at

    def _frame(self, seen: SeenPicture) -> DecodedFrame | None:
        """A picture that was seen; None for one that was not asked for."""
        coded = self._inside.pop(seen.stamp, None)
        if coded is None:
            return None
        for stamp, older in list(self._inside.items()):
            if older.number < coded.number - BEHIND:
                del self._inside[stamp]
                self._counts.decode_errors += 1
                self._sound.hit(older)
        return _GstFrame(seen.stamp, seen.width, seen.height, coded.pts, coded)


def _ended(error: GstEnded) -> SourceUnavailable:
    return SourceUnavailable(f"its pictures cannot be decoded any more: {error}")


def unfit(look: VideoFrame) -> str | None:
    """Why the pictures of a stream have to be decoded by FFmpeg, by the first of them; None if they need not."""
    if look.interlaced_frame:
        return "its pictures are interlaced, which GStreamer does not say of each"
    if SideDataContainer(look).get("DISPLAYMATRIX") is not None:  # type: ignore[call-arg]  # the stubs leave it out
        return "its pictures are stored turned, which GStreamer does not say of each"
    if look.format.name not in _FORMATS:
        return f"its pictures are {look.format.name}, of which GStreamer would lose colours here"
    return None


def begins_anew(codec: str, data: bytes) -> bool:
    """True if an access unit in Annex B shows nothing of earlier ones: its first coded slice is of an IDR picture, or
    in HEVC of any random access picture."""
    at = data.find(_START_CODE)
    while 0 <= at < len(data) - 3:
        head = data[at + 3]
        kind = head & 0x1F if codec == "h264" else head >> 1 & 0x3F
        if codec == "h264" and 1 <= kind <= 5:
            return kind == 5
        if codec == "hevc" and kind < 32:
            return 16 <= kind <= 21
        at = data.find(_START_CODE, at + 3)
    return False


def nv12(width: int, height: int, pixels: bytes) -> VideoFrame:
    """NV12 with lines of multiples of 4 bytes as a frame of its own."""
    frame = VideoFrame(width, height, "nv12")
    stride, rows = -(-width // 4) * 4, -(-height // 2) * 2
    data = np.frombuffer(pixels, np.uint8)
    luma, chroma = data[: stride * rows].reshape(rows, stride), data[stride * rows :].reshape(-1, stride)
    for plane, lines in zip(frame.planes, (luma[:height], chroma), strict=True):
        into = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
        wide = min(into.shape[1], stride)
        into[: len(lines), :wide] = lines[: len(into), :wide]
    return frame
