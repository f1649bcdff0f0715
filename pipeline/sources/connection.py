"""An open connection: its video stream, and what its container says of time."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from pipeline.errors import SourceUnavailable
from pipeline.sources.av_faults import words
from pipeline.sources.dates import SegmentDates
from pipeline.sources.inputs import Input

log = logging.getLogger(__name__)

DEFAULT_FPS = 25.0
UNSET = datetime(1990, 1, 1, tzinfo=UTC)
"""Clocks that were never set show the year in which their makers' counting begins: 1904, 1970, 1980."""

PREROLL_S = 10.0
"""How much earlier, in seconds, a format without an index is read when it is resumed."""


@dataclass(frozen=True, slots=True)
class Connection:
    """An open container and its video stream. `live` is what opening told, `device` the hardware in use, `aspect` the
    width of a pixel in heights where the container says another than the codec, `tracks` how many it has to choose
    from. `input` is what it reads where FFmpeg did not open it itself."""

    container: InputContainer
    video: VideoStream
    live: bool
    device: str | None
    aspect: Fraction | None = None
    tracks: int = 1
    input: Input | None = None

    @property
    def pixel_aspect(self) -> Fraction | None:
        """Width of a pixel of the newest picture in heights, None where nobody says."""
        return self.aspect or self.video.codec_context.sample_aspect_ratio

    @property
    def is_playlist(self) -> bool:
        """True if its pictures come in segments, a burst of them at a time."""
        return self.container.format.name in ("hls", "dash")

    @property
    def is_guess(self) -> bool:
        """True if it counts as live only because its server gave no length: it may be a recording that is made, or sent
        on, while it is read."""
        return self.live and self.input is not None and self.input.live is None

    @property
    def dates(self) -> SegmentDates | None:
        """When its segments were filmed, for a playlist."""
        return self.input.dates if self.input is not None else None

    def is_over(self) -> bool:
        """True if a live stream that came to its end was a recording after all. Asks the server once."""
        if self.input is None:
            return False
        try:
            return self.input.ended()
        except SourceUnavailable as error:
            log.info("not asked again whether it was a recording: %s", error)
            return False

    @property
    def tick_s(self) -> float:
        """Unit of its time stamps in seconds."""
        return float(self.video.time_base or 1 / 90_000)

    @property
    def interval_s(self) -> float:
        """The usual distance of two frames in seconds, by the container's word."""
        rate = self.video.average_rate or self.video.guessed_rate or DEFAULT_FPS
        return 1.0 / float(rate)

    @property
    def origin_s(self) -> float | None:
        """Media time of the container's start, in seconds."""
        start = self.container.start_time
        return None if start is None else start / av.time_base

    @property
    def duration_s(self) -> float | None:
        """Length of a recording in seconds, where the container knows it."""
        duration = self.container.duration
        return None if duration is None or duration <= 0 else duration / av.time_base

    @property
    def has_clock(self) -> bool:
        """True if PTS mean anything: FFmpeg invents 25 fps for MJPEG over HTTP and for bare JPEG streams."""
        return not (self.live and self.container.format.name in ("mpjpeg", "mjpeg", "image2pipe", "jpeg_pipe"))

    def seek(self, stream_s: float) -> None:
        """Go to the key frame before `stream_s` seconds from the start, or stay where the format cannot."""
        if stream_s <= 0:
            return
        # MPEG streams have no index of key frames: a seek may land behind the one that is needed.
        early_s = PREROLL_S if self.container.format.name in ("mpegts", "mpeg") else 0.0
        target_s = max(stream_s - early_s, 0.0) + (self.origin_s or 0.0)
        if self.dates is not None:
            self.dates.restart()
        try:
            self.container.seek(int(target_s * av.time_base))
        except FFmpegError as error:
            log.info("no seek to %.3f s (%s); reading from the start", stream_s, words(error))

    def started_at(self, path: Path | None, now: datetime) -> datetime | None:
        """UTC of a recording's start: its `creation_time`, else the file's modification time minus its length. Neither
        is believed when it lies in the future, nor one of before there were such files."""
        stated = self.container.metadata.get("creation_time") or self.video.metadata.get("creation_time")
        if stated:
            created = _time(stated)
            if created is not None and UNSET < created <= now:
                return created
            log.info("creation_time %r cannot be; the file's own date is used", stated)
        if path is None:
            return None
        written = min(datetime.fromtimestamp(path.stat().st_mtime, UTC), now)
        return written - timedelta(seconds=self.duration_s or 0.0)


def _time(stated: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(stated)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
