"""The thread of one connection: demux, decode, place in time, sample, hand over."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import cast

import av
from av.error import FFmpegError

from pipeline.clock import Clock
from pipeline.errors import ConfigError, SourceUnavailable
from pipeline.redact import scrub
from pipeline.sources.address import Address
from pipeline.sources.av_decoder import DecodedFrame, Decoder, VideoPacket
from pipeline.sources.av_open import Opener
from pipeline.sources.av_picture import AvPicture
from pipeline.sources.base import Notice, Sampler, SourceCounts
from pipeline.sources.connection import Connection
from pipeline.sources.findings import Findings
from pipeline.sources.gst_decoder import GstDecoder
from pipeline.sources.hardware import element_of
from pipeline.sources.labels import Labels
from pipeline.sources.pace import Pacer
from pipeline.sources.packets import PacketRing
from pipeline.sources.rhythm import Rhythm
from pipeline.sources.ring import Ring, RingClosed
from pipeline.sources.rtp_loss import losses_heard
from pipeline.sources.settings import SourceConfig
from pipeline.sources.soundness import Verdict
from pipeline.sources.timeline import Timeline
from pipeline.types import Frame

log = logging.getLogger(__name__)

READ_ERRORS = 32
"""Failed reads of a recording in a row before it is given up; each is counted."""

SAME_TIME_S = 1e-6
"""Two stream times closer than this are one: the rounding of time bases."""

AHEAD_S = 2.0
"""What a server sends without a length is no camera's if it comes by so many seconds faster than it was filmed ..."""

GUESS_S = 10.0
"""... within so many seconds of its first picture. Behind that it is live."""

WAIT_STEP_S = 0.1
"""How long the thread waits at a time before it looks whether it is still wanted."""


@dataclass(slots=True)
class SourceState:
    """The parts of a source that last across its connections.

    `consumed_s` is the stream time of the newest frame that its consumer took, `was_live` whether a connection was
    live, `device` the hardware to try (None once it was refused), `rhythm` how often its packets come, `findings` what
    people were told of it, `packets` keeps what clips are cut from, where anybody wants some. One reader at a time
    writes to it.
    """

    address: Address
    settings: SourceConfig
    clock: Clock
    start_s: float
    device: str | None
    timeline: Timeline
    rhythm: Rhythm
    findings: Findings
    counts: SourceCounts = field(default_factory=SourceCounts)
    consumed_s: float | None = None
    was_live: bool = False
    packets: PacketRing | None = None


class DecodeThread:
    """Reads one connection in a daemon thread into `ring`, which carries its frames, what was found out about it, its
    end and its error.

    `opened_s`, `heard_s`, `packet_s` and `picture_s` are the monotonic times of the opening, of the newest packet of
    any kind, of the newest of video and of the newest decoded picture, None before; `keys` counts the key frames.
    """

    def __init__(self, state: SourceState, ring: Ring[Frame | Notice], sampler: Sampler) -> None:
        self.ring = ring
        self.live = state.address.likely_live
        self.opened_s: float | None = None
        self.heard_s: float | None = None
        self.packet_s: float | None = None
        self.picture_s: float | None = None
        self.keys = 0
        self._waited_s = 0.0
        self._guessed_from: tuple[float, float] | None = None
        self._to = state
        self._address = state.address
        self._clock = state.clock
        self._counts = state.counts
        self._sampler = sampler
        self._masks = tuple(state.settings.masks.values())
        by_ffmpeg = None if element_of(state.device) else state.device
        self._opener = Opener(state.address, state.settings, state.clock, by_ffmpeg, sampler.fps)
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
        finally:
            if self._to.packets is not None:
                self._to.packets.end()
            # Whatever else is raised is a defect: it goes to the thread's excepthook, the reader does not hang.
            self.ring.end(outcome)

    def _read(self) -> SourceUnavailable | None:
        """Read to the end; a live connection that ends is unavailable."""
        # Losses are heard from the opening on, which reads the first packets.
        with losses_heard(self._by_udp) as lost, self._opener.connect() as connection:
            if self.ring.closed:
                raise RingClosed
            self._begin(connection)
            try:
                with closing(self._decoder):
                    self._deliver(connection, lost)
            except (FFmpegError, OSError) as error:
                if self.ring.closed:
                    raise RingClosed from None
                since_s = self.packet_s or self.heard_s or self.opened_s or self._clock.monotonic_s()
                raise self._opener.broken(error, since_s) from None
            if self.live and not connection.is_over():
                return SourceUnavailable(f"{self._address.shown} ended, as a live stream should not")
            if self._keys_only and self.packet_s is not None and self.picture_s is None:
                raise ConfigError(
                    f"{self._address.shown} holds no key frame that can be decoded by itself, and decode is keys;"
                    " set decode: all"
                )
        return None

    @property
    def _keys_only(self) -> bool:
        return self._to.settings.decode == "keys"

    def _begin(self, connection: Connection) -> None:
        """Set up what depends on the connection; a recording goes to where it is wanted from."""
        to, live = self._to, connection.live
        if to.was_live and not live:
            raise SourceUnavailable(f"{self._address.shown} was live and is now a finished recording: it has ended")
        self._counts.connects += 1
        if self._opener.device is None and to.device is not None and not element_of(to.device):
            self._lose_device()
        self._after_s = None if live else to.consumed_s
        to.timeline.connect(
            live=live,
            tick_s=connection.tick_s,
            interval_s=connection.interval_s,
            origin_s=connection.origin_s,
            end_s=connection.duration_s,
            resume_s=self._after_s,
        )
        to.rhythm.connect()
        to.findings.connect()
        if not live:
            connection.seek(max(to.start_s, self._after_s or 0.0))
        self._pacer = _pacer(connection, realtime=to.settings.realtime)
        self._drop_oldest = live or to.settings.realtime
        self._labels = Labels(connection, self._address, self._clock, arrival=self._drop_oldest)
        self._decoder = self._decoder_of(connection)
        if to.packets is not None:
            to.packets.connect(connection.video, has_clock=connection.has_clock)
        self.live = to.was_live = live
        to.timeline.by_rate = connection.is_guess
        self.opened_s = self._clock.monotonic_s()

    def _decoder_of(self, connection: Connection) -> Decoder:
        element = element_of(self._to.device)
        if element is None:
            return Decoder(connection, self._counts, keys_only=self._keys_only)
        return GstDecoder(connection, self._counts, element, self._clock, self._fell_back)

    def _fell_back(self, reason: str) -> None:
        log.warning("%s: no %s here (%s); decoding in software", self._address.shown, self._to.device, scrub(reason))
        self._lose_device()

    def _lose_device(self) -> None:
        self._to.device = None
        self._counts.hwaccel_fallbacks += 1

    def _deliver(self, connection: Connection, lost: Callable[[], bool]) -> None:
        tick_s = connection.tick_s if connection.has_clock else None
        context = connection.video.codec_context
        for packet in self._packets(connection):
            if self.ring.closed:
                raise RingClosed
            self._labels.learn(packet)
            for frame, verdict in self._decoder.decode(packet, lost()):
                self._opener.check_size(frame.width, frame.height)
                media_s = None if frame.pts is None or tick_s is None else frame.pts * tick_s
                self._take(frame, verdict, media_s, connection)
                self._decoder.done(frame)
            self.keys = self._decoder.keys
            self._opener.check_size(context.width, context.height)

    @property
    def _by_udp(self) -> bool:
        """True if RTP packets may be lost on their way."""
        scheme, transport = self._address.scheme, self._to.settings.rtsp_transport
        return scheme == "rtp" or (scheme in ("rtsp", "rtsps") and transport.startswith("udp"))

    def _packets(self, connection: Connection) -> Iterator[VideoPacket]:
        """The packets of its video. A recording is read on behind damage, a live stream is not."""
        container, failed = connection.container, 0
        began_s = self._clock.monotonic_s()
        while True:
            try:
                # Of a live stream all packets, for sound shows that the camera is there.
                for packet in container.demux() if self.live else container.demux(connection.video):
                    failed = 0
                    now_s = self.heard_s = self._clock.monotonic_s()
                    self._waited_s += now_s - began_s
                    if packet.stream.index == connection.video.index:
                        self.packet_s = now_s
                        self._to.rhythm.beat(now_s)
                        if self._to.packets is not None:
                            self._to.packets.push(cast("VideoPacket", packet))
                        yield cast("VideoPacket", packet)
                    began_s = self._clock.monotonic_s()
                return
            except av.error.InvalidDataError:
                failed += 1
                self._counts.decode_errors += 1
                if self.live or failed >= READ_ERRORS:
                    raise

    def _take(self, frame: DecodedFrame, verdict: Verdict, media_s: float | None, connection: Connection) -> None:
        """One decoded frame: place it, wait for its time, and hand it over if it is wanted and whole."""
        if self.ring.closed:
            raise RingClosed
        arrival_s = self.picture_s = self._clock.monotonic_s()
        counts, timeline = self._counts, self._to.timeline
        seq = counts.decoded
        counts.decoded += 1
        counts.corrupt += verdict == "damaged"
        pts_s = timeline.place(media_s, arrival_s, self._waited_s)
        if self._to.packets is not None and media_s is not None:
            self._to.packets.place(media_s, pts_s)
        counts.discontinuities, counts.restamped = timeline.discontinuities, timeline.restamped
        self._tell(self._to.findings.picture(pts_s, verdict, timeline.lie))
        if verdict != "sound" and self._to.settings.on_corrupt == "drop":
            return
        if not self.live and self._is_past(pts_s):
            return
        if timeline.by_rate:
            self._check_guess(connection, pts_s, arrival_s)
        if self._pacer is not None:
            self._wait(self._pacer.wait_s(pts_s, arrival_s))
        if self._sampler.wants(pts_s):
            counts.sampled += 1
            captured_at, quality = self._labels.of(pts_s, media_s if timeline.stamped else None)
            picture = AvPicture(self._decoder.fetch(frame), connection.pixel_aspect, self._masks)
            self._tell(self._to.findings.shown(picture.height, picture.width))
            taken = Frame(pts_s, captured_at, quality, seq, picture)
            counts.lost += self.ring.put(taken, drop_oldest=self._drop_oldest and not timeline.by_rate)

    def _check_guess(self, connection: Connection, pts_s: float, arrival_s: float) -> None:
        """Find out whether what was taken for live is a recording: it comes faster than a camera films, and its server
        begins with it again when it is asked anew."""
        began_pts_s, began_s = self._guessed_from = self._guessed_from or (pts_s, arrival_s)
        passed_s = arrival_s - began_s
        ahead = pts_s - began_pts_s - passed_s > AHEAD_S
        if ahead or passed_s > GUESS_S:
            self._to.timeline.by_rate = False
            if ahead and connection.is_over():
                realtime = self._to.settings.realtime
                self._to.timeline.found_recorded()
                self.live = self._to.was_live = False
                self._pacer, self._drop_oldest = _pacer(replace(connection, live=False), realtime=realtime), realtime

    def _tell(self, found: Iterator[Notice]) -> None:
        for notice in found:
            self.ring.post(notice)

    def _is_past(self, pts_s: float) -> bool:
        """True if a frame of a recording lies before the wanted start, or was consumed before."""
        consumed = self._after_s is not None and pts_s <= self._after_s + SAME_TIME_S
        return consumed or pts_s < self._to.start_s - SAME_TIME_S

    def _wait(self, seconds: float) -> None:
        """Wait in steps, so that a closed ring ends it, and keep a frame that waits from looking like silence."""
        until_s = self._clock.monotonic_s() + seconds
        while (rest_s := until_s - self._clock.monotonic_s()) > 0:
            if self.ring.closed:
                raise RingClosed
            self._clock.wait(min(rest_s, WAIT_STEP_S))
            self._waited_s += min(rest_s, WAIT_STEP_S)
            self.heard_s = self.packet_s = self.picture_s = self._clock.monotonic_s()


def _pacer(connection: Connection, *, realtime: bool) -> Pacer | None:
    if not connection.live:
        return Pacer(speed=1.0, late_s=1.0) if realtime else None
    return Pacer(speed=1.0, late_s=10.0) if connection.is_playlist else Pacer(speed=4.0, late_s=0.5)
