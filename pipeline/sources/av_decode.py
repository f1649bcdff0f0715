"""The thread of one connection: demux, decode, place in time, sample, hand over."""

import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import av
from av import Packet, VideoFrame
from av.error import FFmpegError
from av.video.stream import VideoStream

from pipeline.clock import Clock
from pipeline.errors import ConfigError, SourceUnavailable
from pipeline.sources.address import Address
from pipeline.sources.av_open import AvOptions, Connection, Opener
from pipeline.sources.av_picture import AvPicture
from pipeline.sources.base import Sampler, SourceCounts
from pipeline.sources.pace import Pacer
from pipeline.sources.ring import Ring, RingClosed
from pipeline.sources.timeline import Timeline
from pipeline.types import ClockQuality, Frame

VideoPacket: TypeAlias = "Packet[VideoStream]"  # generic in its stub only

READ_ERRORS = 32
"""Failed reads of a recording in a row before it is given up; each is counted."""

CLOCK_TRUST_S = 60.0
"""A camera's own clock that differs more than this from ours was never set; arrival is used instead."""

SAME_TIME_S = 1e-6
"""Two stream times closer than this are one: the rounding of time bases."""

WAIT_STEP_S = 0.1
"""How long the thread waits at a time before it looks whether it is still wanted."""


@dataclass(slots=True)
class SourceState:
    """What a source is and what it keeps across its connections.

    `consumed_s` is the stream time of the newest frame that its consumer took, `was_live` whether a connection was
    live, `device` the hardware to try (None once it was refused). One reader at a time writes to it.
    """

    address: Address
    options: AvOptions
    clock: Clock
    realtime: bool
    device: str | None
    timeline: Timeline
    counts: SourceCounts = field(default_factory=SourceCounts)
    consumed_s: float | None = None
    was_live: bool = False


class DecodeThread:
    """Reads one connection in a daemon thread into `ring`, which carries its frames, its end and its error.

    `opened_s` and `picture_s` are the monotonic times of the opening and of the newest decoded picture, None before.
    """

    def __init__(self, state: SourceState, ring: Ring[Frame], sampler: Sampler) -> None:
        self.ring = ring
        self.live = state.address.likely_live
        self.opened_s: float | None = None
        self.picture_s: float | None = None
        self._to = state
        self._address = state.address
        self._clock = state.clock
        self._counts = state.counts
        self._sampler = sampler
        self._opener = Opener(state.address, state.options, state.clock, state.device)
        self._thread = threading.Thread(target=self._run, name=f"source {self._address.shown}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """True if the thread is still there: it may be blocked inside FFmpeg after its ring was closed."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Tell the thread to end. Does not wait: a read inside FFmpeg ends at its own limit."""
        self.ring.close()
        self._opener.interrupt()

    def _run(self) -> None:
        outcome: Exception | None = SourceUnavailable(f"{self._address.shown}: its reader failed; see the log")
        try:
            outcome = self._read()
        except RingClosed:
            outcome = None
        except (ConfigError, SourceUnavailable) as error:
            outcome = error
        finally:  # whatever else is raised is a defect: it goes to the thread's excepthook, the reader does not hang
            self.ring.end(outcome)

    def _read(self) -> SourceUnavailable | None:
        """Read to the end; a live connection that ends is unavailable."""
        with self._opener.connect() as connection:
            if self.ring.closed:
                raise RingClosed
            self._begin(connection)
            try:
                self._deliver(connection)
            except (FFmpegError, OSError) as error:
                if self.ring.closed:
                    raise RingClosed from None
                since_s = self.picture_s or self.opened_s or self._clock.monotonic_s()
                raise self._opener.broken(error, since_s) from None
            if self.live:
                return SourceUnavailable(f"{self._address.shown} ended, as a live stream should not")
        return None

    def _begin(self, connection: Connection) -> None:
        """Set up what depends on the connection; a recording goes to where it is wanted from."""
        to, live = self._to, connection.live
        if to.was_live and not live:
            raise SourceUnavailable(f"{self._address.shown} was live and is now a finished recording: it has ended")
        self._counts.connects += 1
        if self._opener.device is None and to.device is not None:
            to.device = None
            self._counts.hwaccel_fallbacks += 1
        self._after_s = None if live else to.consumed_s
        to.timeline.connect(
            live=live,
            tick_s=connection.tick_s,
            interval_s=connection.interval_s,
            origin_s=connection.origin_s,
            end_s=connection.duration_s,
            resume_s=self._after_s,
        )
        if not live:
            connection.seek(max(to.options.start_s, self._after_s or 0.0))
        self._pacer = _pacer(self._address, live=live, realtime=to.realtime)
        self._drop_oldest = live or to.realtime
        self._labels = _Labels(connection, self._address, self._clock, arrival=self._drop_oldest)
        self.live = to.was_live = live
        self.opened_s = self._clock.monotonic_s()

    def _deliver(self, connection: Connection) -> None:
        tick_s = connection.tick_s if connection.has_clock else None
        for packet in self._packets(connection):
            if self.ring.closed:
                raise RingClosed
            self._labels.learn(packet)
            for frame in self._decode(packet):
                self._take(frame, None if frame.pts is None or tick_s is None else frame.pts * tick_s)

    def _packets(self, connection: Connection) -> Iterator[VideoPacket]:
        """The packets of the connection. A recording is read on behind damage, a live stream is not."""
        failed = 0
        while True:
            try:
                for packet in connection.container.demux(connection.video):
                    failed = 0
                    yield packet
                return
            except av.error.InvalidDataError:
                failed += 1
                self._counts.decode_errors += 1
                if self.live or failed >= READ_ERRORS:
                    raise

    def _decode(self, packet: VideoPacket) -> list[VideoFrame]:
        try:
            return [frame for frame in packet.decode() if isinstance(frame, VideoFrame)]
        except av.error.EOFError:
            return []
        except FFmpegError:
            self._counts.decode_errors += 1
            return []

    def _take(self, frame: VideoFrame, media_s: float | None) -> None:
        """One decoded frame: place it, wait for its time, and hand it over if it is wanted."""
        if self.ring.closed:
            raise RingClosed
        arrival_s = self.picture_s = self._clock.monotonic_s()
        counts, timeline = self._counts, self._to.timeline
        seq = counts.decoded
        counts.decoded += 1
        if frame.is_corrupt:
            counts.corrupt += 1
            if self._to.options.on_corrupt == "drop":
                return
        pts_s = timeline.place(media_s, arrival_s)
        counts.discontinuities = timeline.discontinuities
        if not self.live and self._is_past(pts_s):
            return
        if self._pacer is not None:
            self._wait(self._pacer.wait_s(pts_s, arrival_s))
        if self._sampler.wants(pts_s):
            counts.sampled += 1
            captured_at, quality = self._labels.of(pts_s, media_s)
            taken = Frame(pts_s, captured_at, quality, seq, AvPicture(frame))
            counts.lost += self.ring.put(taken, drop_oldest=self._drop_oldest)

    def _is_past(self, pts_s: float) -> bool:
        """True if a frame of a recording lies before the wanted start, or was consumed before."""
        consumed = self._after_s is not None and pts_s <= self._after_s + SAME_TIME_S
        return consumed or pts_s < self._to.options.start_s - SAME_TIME_S

    def _wait(self, seconds: float) -> None:
        """Wait in steps, so that a closed ring ends it, and keep a frame that waits from looking like silence."""
        until_s = self._clock.monotonic_s() + seconds
        while (rest_s := until_s - self._clock.monotonic_s()) > 0:
            if self.ring.closed:
                raise RingClosed
            self._clock.wait(min(rest_s, WAIT_STEP_S))
            self.picture_s = self._clock.monotonic_s()


def _pacer(address: Address, *, live: bool, realtime: bool) -> Pacer | None:
    if not live:
        return Pacer(speed=1.0, late_s=1.0) if realtime else None
    return Pacer(speed=1.0, late_s=10.0) if address.is_playlist else Pacer(speed=4.0, late_s=0.5)


class _Labels:
    """UTC of capture: from RTCP sender reports where a camera sends them, else from arrival, else from the file."""

    def __init__(self, connection: Connection, address: Address, clock: Clock, *, arrival: bool) -> None:
        self._clock = clock
        self._tick_s = connection.tick_s
        self._start = None if arrival else connection.started_at(address.path)
        self._camera_start: datetime | None = None

    def learn(self, packet: VideoPacket) -> None:
        """Take the wall clock that FFmpeg derived from the camera's sender reports (RFC 3550, 6.4.1), if it is sane."""
        if packet.pts is None or not packet.has_sidedata("prft"):
            return
        (micros,) = struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))
        sent = datetime.fromtimestamp(micros / 1e6, UTC)
        sane = abs((sent - self._clock.now()).total_seconds()) <= CLOCK_TRUST_S
        self._camera_start = sent - timedelta(seconds=packet.pts * self._tick_s) if sane else None

    def of(self, pts_s: float, media_s: float | None) -> tuple[datetime, ClockQuality]:
        """UTC of the frame at stream time `pts_s` and media time `media_s`, in seconds, and where it comes from."""
        if self._start is not None:
            return self._start + timedelta(seconds=pts_s), "file"
        if self._camera_start is not None and media_s is not None:
            return self._camera_start + timedelta(seconds=media_s), "ntp"
        return self._clock.now(), "arrival"
