"""The newest packets of a stream as they came, from which clips are cut without a second encode."""

import io
import threading
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import av
from av import Packet
from av.container import OutputContainer
from av.error import FFmpegError
from av.stream import Stream
from av.video.stream import VideoStream

from pipeline.sources.av_decoder import VideoPacket

SPARE_S = 20.0
"""How much longer than a clip's beginning packets are kept, in seconds: a key frame may lie so far back, and the
decision may come so late."""
JUMP_S = 1.0
"""Packets whose times are further apart than this, or run backwards, belong to no clip together."""


@dataclass(frozen=True, slots=True)
class _KeptPacket:
    """One packet: its decoding and presentation times in ticks, and its stream seconds at the most recent placing."""

    packet: VideoPacket
    dts: int
    pts: int
    bytes: int
    key: bool


class _PacketRun:
    """One connection's packets without a jump: what a muxer has to know, and where stream time lies."""

    def __init__(self, container: OutputContainer, template: Stream, tick_s: float) -> None:
        self.container = container
        self.template = template
        self.tick_s = tick_s
        self.offset_s: float | None = None

    def time_s(self, kept: _KeptPacket) -> float | None:
        """Stream seconds of a packet; None before a picture of the run was placed."""
        return None if self.offset_s is None else kept.pts * self.tick_s + self.offset_s


@dataclass(frozen=True, slots=True)
class PacketClip:
    """An MP4 of packets as they came: stream seconds of its first and last picture, and what is less than was asked."""

    mp4: bytes
    start_s: float
    end_s: float
    note: str = ""


class PacketCut:
    """A clip that is being cut: the packets since the key frame before its beginning, and those that come."""

    def __init__(self, run: _PacketRun, start_s: float, end_s: float, most_bytes: int) -> None:
        self._run = run
        self._packets: list[_KeptPacket] = []
        self._start_s = start_s
        self._end_s = end_s
        self._most = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._note = ""
        self.complete = False

    def add(self, run: _PacketRun, kept: _KeptPacket) -> None:
        """A packet has come."""
        with self._lock:
            if self.complete:
                return
            time_s = run.time_s(kept)
            if run is not self._run:
                self._end("ends where the connection or its time broke")
            elif time_s is not None and time_s > self._end_s:
                self._end("")
            elif self._bytes + kept.bytes > self._most:
                self._end(f"ends early, at {self._most // 2**20} MiB")
            else:
                self._packets.append(kept)
                self._bytes += kept.bytes

    def finish(self) -> None:
        """Nothing more will come."""
        with self._lock:
            if not self.complete:
                self._end("ends where the stream ended")

    def clip(self) -> PacketClip | str:
        """The clip, muxed now, or why there is none."""
        with self._lock:
            packets, run, note = list(self._packets), self._run, self._note
        times = [time_s for one in packets if (time_s := run.time_s(one)) is not None]
        if not times:
            return "no packet of its time was kept"
        if times[0] > max(self._start_s, 0.0) + 0.5:
            note = "; ".join(filter(None, ("begins later than asked: no earlier packets were at hand", note)))
        try:
            return PacketClip(_mux(run, packets), min(times), max(times), note)
        except (FFmpegError, ValueError, OSError) as error:
            return f"its packets could not be put into an MP4: {error}"

    def _end(self, note: str) -> None:
        self._note, self.complete = note, True


class PacketRing:
    """Packets of the newest `keep_s` seconds of a stream, at most `most_bytes`. One thread adds, others cut.

    What is kept begins with a key frame. `why_none` says why there is nothing to cut.
    """

    def __init__(self, keep_s: float, most_bytes: int) -> None:
        self.why_none = "its source gives no packets"
        self._keep_s = keep_s
        self._most = most_bytes
        self._kept: deque[_KeptPacket] = deque()
        self._bytes = 0
        self._run: _PacketRun | None = None
        self._cuts: list[PacketCut] = []
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Size of the kept packets in bytes."""
        return self._bytes

    def connect(self, video: VideoStream, *, has_clock: bool) -> None:
        """A connection begins. Called while its container is open."""
        with self._lock:
            self._drop()
            self._run = None
            if not has_clock:
                self.why_none = "its packets have no times"
                return
            try:
                container = av.open(io.BytesIO(), "w", format="mp4")
                template = container.add_stream_from_template(video, opaque=True)
            except (ValueError, FFmpegError) as error:
                self.why_none = f"an MP4 cannot hold its codec {video.codec_context.name}: {error}"
                return
            self._run = _PacketRun(container, template, float(video.time_base or Fraction(1, 90_000)))
            self.why_none = "no key frame has come yet"

    def push(self, packet: VideoPacket) -> None:
        """A packet has come, in decoding order. Packets without times are left out."""
        if packet.dts is None or packet.pts is None or not packet.size:
            return
        with self._lock:
            run = self._run
            if run is None:
                return
            kept = _KeptPacket(packet, packet.dts, packet.pts, packet.size, packet.is_keyframe)
            if self._kept and not 0 < (kept.dts - self._kept[-1].dts) * run.tick_s < JUMP_S + self._keep_s:
                run = self._run = self._renewed(run)
            if self._kept or kept.key:
                self._kept.append(kept)
                self._bytes += kept.bytes
                self._trim(run)
            for cut in self._cuts:
                cut.add(run, kept)
            self._cuts = [cut for cut in self._cuts if not cut.complete]

    def place(self, media_s: float, pts_s: float) -> None:
        """A picture of media time `media_s` has its place in stream time: what lies beside it has too."""
        with self._lock:
            run = self._run
            if run is None:
                return
            offset_s = pts_s - media_s
            if run.offset_s is not None and abs(offset_s - run.offset_s) > JUMP_S:
                run = self._run = self._renewed(run)
            run.offset_s = offset_s

    def cut(self, start_s: float, end_s: float) -> PacketCut | str:
        """Begin a clip of these stream seconds, at the key frame before or at `start_s`; or why there is none."""
        with self._lock:
            run = self._run
            if run is None or not self._kept:
                return self.why_none
            if run.offset_s is None:
                return "no picture of this connection has been placed yet"
            first = 0
            for place, one in enumerate(self._kept):
                if one.key and one.pts * run.tick_s + run.offset_s <= start_s + 1e-3:
                    first = place
            cut = PacketCut(run, start_s, end_s, self._most)
            for one in list(self._kept)[first:]:
                cut.add(run, one)
            if not cut.complete:
                self._cuts.append(cut)
            return cut

    def end(self) -> None:
        """The connection has ended: whatever is being cut is as long as it will be."""
        with self._lock:
            for cut in self._cuts:
                cut.finish()
            self._cuts = []

    def _renewed(self, run: _PacketRun) -> _PacketRun:
        self._drop()
        return _PacketRun(run.container, run.template, run.tick_s)

    def _drop(self) -> None:
        self._kept.clear()
        self._bytes = 0

    def _trim(self, run: _PacketRun) -> None:
        """Drop whole groups of pictures while what is left without them is enough, or all is too much."""
        while len(self._kept) > 1:
            group = next((place for place in range(1, len(self._kept)) if self._kept[place].key), None)
            if group is None:
                if self._bytes > self._most:
                    self._drop()
                return
            spans_s = (self._kept[-1].dts - self._kept[group].dts) * run.tick_s
            if self._bytes <= self._most and spans_s < self._keep_s:
                return
            for _ in range(group):
                self._bytes -= self._kept.popleft().bytes


def _mux(run: _PacketRun, packets: list[_KeptPacket]) -> bytes:
    """Packets as an MP4 that begins at zero."""
    made = io.BytesIO()
    origin = packets[0].dts
    with av.open(made, "w", format="mp4") as out:
        stream = out.add_stream_from_template(run.template, opaque=True)
        for one in packets:
            copy = Packet(bytes(one.packet))
            copy.pts, copy.dts, copy.is_keyframe = one.pts - origin, one.dts - origin, one.key
            copy.time_base, copy.stream = one.packet.time_base, stream
            if one.packet.duration:
                copy.duration = one.packet.duration
            out.mux_one(copy)
    return made.getvalue()
