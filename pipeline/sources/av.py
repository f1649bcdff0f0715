"""The source for everything FFmpeg can open: cameras, playlists, files, capture devices."""

import asyncio
import logging
from collections.abc import AsyncGenerator

from pipeline.clock import Clock
from pipeline.errors import ConfigError, SourceStalled, SourceUnavailable
from pipeline.sources.address import parse_address
from pipeline.sources.av_decode import DecodeThread, SourceState
from pipeline.sources.base import Notice, Notify, Sampler, SourceCounts, ignore
from pipeline.sources.findings import Findings
from pipeline.sources.hardware import device_of
from pipeline.sources.packets import PacketRing
from pipeline.sources.rhythm import Rhythm
from pipeline.sources.ring import Ring
from pipeline.sources.settings import SourceConfig
from pipeline.sources.timeline import Timeline
from pipeline.types import Frame

log = logging.getLogger(__name__)

CLOSE_S = 0.5
"""How long a closing source waits for its thread, in seconds. One blocked in FFmpeg is left to end by itself."""

OPENING_STEPS = 2
"""FFmpeg opens in two steps, each with the time-out: it connects, then it reads what streams there are."""

OPENING_SLACK_S = 1.0
"""What opening may take beyond those steps, in seconds: a name look-up is not covered by FFmpeg's time-out."""


class AvSource:
    """Frames of `url`: rtsp(s), rtmp(s), srt, http(s) with HLS and snapshots, udp, file paths, named pipes and file://,
    v4l2:/dev/videoN, and `-` for standard input.

    A connection is demuxed and decoded by one thread with one decoder thread; only sampled frames come to the event
    loop, still in the decoder's pixel format. `name` is for logs. `live` overrides what the address and its container
    tell, `shown` what people see of it. Stream time begins at `start_s`: a recording is read from there, a live
    stream's first frame has that time. A recording with `realtime` plays at its own pace and drops the oldest like a
    camera, but its end is an end. Packets go into `packets` as they come. See SourceConfig for `settings`. Raises
    ConfigError for a value that is not allowed.
    """

    def __init__(
        self,
        url: str,
        settings: SourceConfig = SourceConfig(),
        *,
        name: str,
        clock: Clock,
        live: bool | None = None,
        start_s: float = 0.0,
        shown: str | None = None,
        packets: PacketRing | None = None,
    ) -> None:
        if not start_s >= 0:
            raise ConfigError(f"start_s is {start_s}; expected seconds, at least 0")
        address = parse_address(url, live, shown)
        self._state = SourceState(
            address, settings, clock, start_s, _device(settings), Timeline(start_s),
            Rhythm(settings.stall_s, settings.first_picture_s), Findings(address.scheme, settings.rtsp_transport),
            packets=packets,
        )  # fmt: skip
        self._name = name
        self._thread: DecodeThread | None = None

    @property
    def live(self) -> bool:
        """True if frames come at their own pace. For a URL on the web this is a guess until it has been opened."""
        if self._state.settings.realtime:
            return True
        return self._thread.live if self._thread is not None else self._state.address.likely_live

    @property
    def counts(self) -> SourceCounts:
        """Running totals across connections."""
        return self._state.counts

    async def frames(self, sampler: Sampler, notify: Notify = ignore) -> AsyncGenerator[Frame, None]:
        """See Source. A recording that is read again goes on behind the last frame that was handed over.

        Raises ConfigError for a file that is missing or holds no video, since no retry can help.
        """
        if self._thread is not None and not self._thread.ring.closed:
            raise RuntimeError(f"{self._name} is already being read; close it first")
        thread = self._thread = DecodeThread(self._state, Ring(self._state.settings.ring_frames), sampler)
        thread.start()
        watch = asyncio.create_task(self._watch(thread), name=f"stall watch {self._name}")
        try:
            while (item := await thread.ring.get()) is not None:
                if isinstance(item, Notice):
                    await notify(item)
                    continue
                self._state.consumed_s = item.pts_s
                yield item
        finally:
            watch.cancel()
            await self._stop(thread)

    async def close(self) -> None:
        """See Source. Returns within half a second, even where FFmpeg is blocked."""
        if self._thread is not None:
            await self._stop(self._thread)

    async def _watch(self, thread: DecodeThread) -> None:
        """Give the consumer an error when a connection does not open, or a live one falls silent or shows no picture,
        in time.

        The thread may be blocked then and cannot; what it says later is not heard.
        """
        clock, settings, shown = self._state.clock, self._state.settings, self._state.address.shown
        opening_s = OPENING_STEPS * settings.open_timeout_s + OPENING_SLACK_S
        until_s = clock.monotonic_s() + opening_s
        while thread.opened_s is None:
            rest_s = until_s - clock.monotonic_s()
            if rest_s <= 0:
                thread.ring.end(SourceUnavailable(f"{shown} did not answer within {opening_s:g} s"))
                return
            await clock.sleep(min(rest_s, settings.stall_s))
        opened_s = thread.opened_s
        while thread.live:
            now_s, patience_s = clock.monotonic_s(), self._state.rhythm.patience_s
            # Before the first picture any packet is a sign of life; then only video is.
            newest_s = (thread.heard_s if thread.packet_s is None else thread.packet_s) or opened_s
            silent_s = newest_s + patience_s - now_s
            blind_s = (thread.picture_s or opened_s) + max(settings.first_picture_s, patience_s) - now_s
            if silent_s <= 0:
                thread.ring.end(SourceStalled(f"{shown} is connected but {silence(thread, patience_s)}"))
                return
            if blind_s <= 0:
                thread.ring.end(SourceStalled(f"{shown} {blindness(thread, settings)}"))
                return
            # The patience shrinks as the rhythm gets known, so it is looked at more often than it is reached.
            await clock.sleep(min(silent_s, blind_s, settings.stall_s / 2))

    async def _stop(self, thread: DecodeThread) -> None:
        thread.stop()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + CLOSE_S
        while thread.running:
            if loop.time() >= deadline_s:
                log.info("%s: its thread is still inside FFmpeg and ends at its read limit", self._name)
                return
            await asyncio.sleep(0.01)


def _device(settings: SourceConfig) -> str | None:
    # A device's decoder has no use for single pictures: it is slow to begin.
    device = device_of(settings.hwaccel)
    return None if settings.decode == "keys" else device


def silence(thread: DecodeThread, patience_s: float) -> str:
    """The description of a silent stream, and why its silence counts as a loss."""
    if thread.heard_s is None:
        return f"silent: not one packet, and no picture for {patience_s:g} s"
    what = "packet" if thread.packet_s is not None else "packet, nor one of video before,"
    return (
        f"silent: no {what} and no picture for {patience_s:g} s; where a camera may pause so long, set stall_s higher"
    )


def blindness(thread: DecodeThread, settings: SourceConfig) -> str:
    """Why packets that flow show no picture, and what to do about it."""
    limit_s = settings.first_picture_s
    if thread.packet_s is None:
        return f"sends sound or data but no video, and has shown no picture for {limit_s:g} s (first_picture_s)"
    if not thread.keys:
        return (
            f"sends video but no key frame, and has shown no picture for {limit_s:g} s (first_picture_s): set the"
            " camera's key frame (I frame) interval to 1 or 2 s, or first_picture_s above it"
        )
    if settings.decode == "keys":
        return (
            f"has shown no key frame that can be decoded by itself for {limit_s:g} s (first_picture_s), and decode is"
            " keys: set the camera's key frame (I frame) interval to 1 or 2 s, first_picture_s above it, or decode: all"
        )
    return f"sends video that cannot be decoded, and has shown no picture for {limit_s:g} s (first_picture_s)"
