"""Packets in, judged pictures out: one decoder, and what became of the data on their way to it."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, TypeAlias

import av
from av import Packet, VideoFrame
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.stream import VideoStream

from pipeline.sources.base import SourceCounts
from pipeline.sources.connection import Connection
from pipeline.sources.h264 import LOOK_BYTES, PictureNumbers
from pipeline.sources.soundness import Coded, InOrder, Soundness, Verdict

VideoPacket: TypeAlias = "Packet[VideoStream]"  # generic in its stub only


class DecodedFrame(Protocol):
    """A decoded picture, whose pixels may still be elsewhere; see `Decoder.fetch`."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def pts(self) -> int | None: ...

    @property
    def opaque(self) -> object: ...

    @property
    def is_corrupt(self) -> bool: ...


MARKS: Final = 50
"""From so many packets on, marks of damage on nine tenths of them mean nothing: there are muxers that state a wrong
length for every picture."""


class Decoder:
    """Decodes one connection, or its key frames alone. Counts in `counts` where data were lost and what could not be
    decoded."""

    def __init__(self, connection: Connection, counts: SourceCounts, *, keys_only: bool = False) -> None:
        context = connection.video.codec_context
        context.copy_opaque = True  # so that a picture knows its packet
        self._context = context
        self._counts, self._keys_only = counts, keys_only
        # Pictures without time stamps are placed by their number, of which each one is needed.
        self._by_number = not connection.live or connection.is_guess
        self._sound = Soundness(context.name, connection.interval_s)
        # What a segmented playlist marks are its seams: HTTP loses nothing.
        self._marks_count = connection.container.format.name != "hls"
        self._packets = self._marked = 0
        self._numbers = PictureNumbers(context.extradata) if context.name == "h264" else None
        # Pictures on a device are not held: its decoder has few to lend.
        self._order = None if context.is_hwaccel or keys_only else InOrder()
        self._held: deque[tuple[DecodedFrame, Coded]] = deque()
        self.keys = 0

    def decode(self, packet: VideoPacket, lost: bool) -> Iterator[tuple[DecodedFrame, Verdict]]:
        """The pictures that may go now, in order of display. `lost`: the transport lost something at this packet.
        An empty packet ends the stream."""
        if self._keys_only and self._by_number and packet.size and packet.pts is None:
            self._keys_only, self._order = False, InOrder()
        coded = self._note(packet, lost) if packet.size else None
        for frame in self._frames(packet, coded):
            shown = frame.opaque if isinstance(frame.opaque, Coded) else coded
            if shown is None:
                continue
            if frame.is_corrupt:
                self._sound.hit(shown)
            self._held.append((frame, shown))
            for _ in range(1 if self._order is None else self._order.came(shown)):
                yield self._judged()
        if coded is None:
            while self._held:
                yield self._judged()

    def _judged(self) -> tuple[DecodedFrame, Verdict]:
        frame, coded = self._held.popleft()
        key, intra = self._signs(frame, coded)
        return frame, self._sound.judge(coded, key=key, intra=intra)

    def fetch(self, frame: DecodedFrame) -> VideoFrame:
        """A picture that `decode` gave, with its pixels. Raises SourceUnavailable where they are gone."""
        assert isinstance(frame, VideoFrame)
        return frame

    def done(self, frame: DecodedFrame) -> None:
        """Nobody asks any more for a picture that `decode` gave."""

    def _signs(self, frame: DecodedFrame, coded: Coded) -> tuple[bool, bool]:
        """The decoder's word on whether a picture is a key frame, and whether it is built on no other one."""
        assert isinstance(frame, VideoFrame)
        return frame.key_frame, frame.pict_type == PictureType.I

    def close(self) -> None:
        """Free what it holds beside FFmpeg."""

    def _note(self, packet: VideoPacket, lost: bool) -> Coded:
        marked = self._marks_count and packet.is_corrupt
        self._packets += 1
        self._marked += marked
        if self._packets >= MARKS and self._marked >= 0.9 * self._packets:
            marked = False
        lost |= marked
        coded = self._sound.coded(key=packet.is_keyframe, lost=lost, pts=packet.pts)
        if self._numbers is not None and self._numbers.missing(bytes(memoryview(packet)[:LOOK_BYTES])):
            self._sound.hit(coded)
            lost = True
        self._counts.gaps += lost
        self.keys += coded.key
        packet.opaque = coded
        if self._order is not None:
            self._order.sent(coded)
        return coded

    def _frames(self, packet: VideoPacket, coded: Coded | None) -> Sequence[DecodedFrame]:
        if not (self._keys_only and packet.size):
            return self._decoded(packet, coded)
        if not packet.is_keyframe:
            return []
        # A decoder holds pictures back for those that are shown before them, of which none will come.
        frames = [*self._decoded(packet, coded), *self._decoded(None, coded)]
        self._context.flush_buffers()
        return frames

    def _decoded(self, packet: "VideoPacket | None", coded: Coded | None) -> Sequence[DecodedFrame]:
        """The pictures that a packet brings, or (None) that are held back."""
        try:
            frames = packet.decode() if packet is not None else self._context.decode(None)
            return [frame for frame in frames if isinstance(frame, VideoFrame)]
        except av.error.EOFError:
            return []
        except FFmpegError:
            self._counts.decode_errors += 1
            if coded is not None:
                self._sound.hit(coded)
            return []
