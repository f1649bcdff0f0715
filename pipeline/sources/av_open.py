"""Opening a connection with FFmpeg: options, hardware, and errors in plain words."""

import errno
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Literal

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from pipeline.clock import Clock
from pipeline.errors import ConfigError, SourceUnavailable
from pipeline.redact import scrub
from pipeline.sources.address import Address
from pipeline.sources.ffmpeg_pipe import FfmpegPipe
from pipeline.sources.shape import MAX_PIXELS

log = logging.getLogger(__name__)

TRANSPORTS = ("tcp", "udp", "udp_multicast", "http", "https")
ON_CORRUPT = ("keep", "drop")
DEFAULT_FPS = 25.0
PADDING = 64 * 16_384
"""What FFmpeg adds to a picture before it compares it with its own bound, in px: its lines are up to 63 px longer."""

UNSET = datetime(1990, 1, 1, tzinfo=UTC)
"""Clocks that were never set show the year in which their makers' counting begins: 1904, 1970, 1980."""

PREROLL_S = 10.0
"""How much earlier, in seconds, a format without an index is read when it is resumed."""

QUICK_PROBE = {"probesize": "500000", "analyzeduration": "500000"}
"""Bytes and microseconds that FFmpeg may read of a camera before the first picture; its own limits cost 5 s."""

BRIEF_PROBE = {"probesize": "5000", "analyzeduration": "100000"}
"""The same for a camera whose next key frame is far away, or that begins with sound."""

SLOW_TO_TELL = ("rtsp", "rtsps", "rtp", "udp", "tcp")
"""Schemes whose streams are joined anywhere, and may state their pictures' size at a key frame only."""


@dataclass(frozen=True, slots=True)
class AvOptions:
    """How to open and read. Raises ConfigError for a value that is not allowed.

    `open_timeout_s` bounds each of FFmpeg's two steps of opening, `stall_s` the silence of a live stream (one that
    sends less often is given more), `first_picture_s` how long its packets may show no picture, in seconds.
    `hwaccel` is `auto`, `none` or a device type of FFmpeg. `on_corrupt` says what to do with a picture that is damaged
    or built on one that is: `drop` shows none until the next key frame that is whole. A picture of more than
    `max_pixels` px is refused. `video_track` is counted from 0, None for the one that FFmpeg finds best.
    """

    hwaccel: str = "auto"
    stall_s: float = 5.0
    open_timeout_s: float = 5.0
    ring_frames: int = 8
    on_corrupt: Literal["keep", "drop"] = "drop"
    rtsp_transport: str = "tcp"
    start_s: float = 0.0
    first_picture_s: float = 30.0
    max_pixels: int = MAX_PIXELS
    video_track: int | None = None

    def __post_init__(self) -> None:
        _one_of("hwaccel", self.hwaccel, ("auto", "none", *hwdevices_available()))
        _one_of("on_corrupt", self.on_corrupt, ON_CORRUPT)
        _one_of("rtsp_transport", self.rtsp_transport, TRANSPORTS)
        for name in ("stall_s", "open_timeout_s", "first_picture_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected seconds, more than 0")
        for name in ("ring_frames", "max_pixels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.video_track is not None and self.video_track < 0:
            raise ConfigError(f"video_track is {self.video_track}; expected a number from 0 on")
        if not self.start_s >= 0:
            raise ConfigError(f"start_s is {self.start_s}; expected seconds, at least 0")

    def device(self) -> str | None:
        """The hardware device type to try, None for software. `auto` means CUDA where an NVIDIA device node exists."""
        if self.hwaccel != "auto":
            return None if self.hwaccel == "none" else self.hwaccel
        return "cuda" if has_device("cuda") and "cuda" in hwdevices_available() else None


def has_device(kind: str) -> bool:
    """Whether this machine has device nodes of an FFmpeg device type; True for types of which that is not known."""
    if kind == "cuda":
        return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/nvhost-ctrl").exists()
    if kind in ("vaapi", "qsv", "drm", "vulkan"):
        return any(Path("/dev/dri").glob("renderD*"))
    return True


@dataclass(frozen=True, slots=True)
class Connection:
    """An open container and its video stream. `live` is what opening told, `device` the hardware in use, `aspect` the
    width of a pixel in heights where the container says another than the codec, `tracks` how many it has to choose
    from."""

    container: InputContainer
    video: VideoStream
    live: bool
    device: str | None
    aspect: Fraction | None = None
    tracks: int = 1

    @property
    def pixel_aspect(self) -> Fraction | None:
        """Width of a pixel of the newest picture in heights, None where nobody says."""
        return self.aspect or self.video.codec_context.sample_aspect_ratio

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
        try:
            self.container.seek(int(target_s * av.time_base))
        except FFmpegError as error:
            log.info("no seek to %.3f s (%s); reading from the start", stream_s, _words(error))

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


class Opener:
    """Opens one connection, on hardware `device` if that is there. `device` is None once it fell back to software."""

    def __init__(self, address: Address, options: AvOptions, clock: Clock, device: str | None) -> None:
        self.device = device
        self._address = address
        self._options = options
        self._clock = clock
        self._pipe: FfmpegPipe | None = None
        self._probe = QUICK_PROBE

    def interrupt(self) -> None:
        """Unblock a read from a child program. From any thread."""
        if self._pipe is not None:
            self._pipe.kill()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """An open connection, closed at the end. Raises SourceUnavailable, or ConfigError where no retry can help."""
        self._check_path()
        self._pipe = FfmpegPipe(self._address) if self._needs_program() else None
        try:
            with closing(self._open()) as container:
                yield self._connection(container)
        finally:
            if self._pipe is not None:
                self._pipe.close()

    def broken(self, error: Exception, silent_since_s: float) -> SourceUnavailable:
        """`error`, raised by FFmpeg in a read when nothing had come since `silent_since_s`, in words for people."""
        return self._unavailable("broke off", error, silent_since_s, self._read_limit_s)

    @property
    def _read_limit_s(self) -> float:
        # Twice the longest patience: the source's own watch must be the first to see a silence, since what FFmpeg does
        # at its limit differs by protocol. This limit ends the thread that was left behind.
        return 2 * max(self._options.stall_s, self._options.first_picture_s)

    def _unavailable(self, event: str, error: Exception, since_s: float, limit_s: float) -> SourceUnavailable:
        said = self._pipe.said() if self._pipe is not None else ""
        reason = said or _reason(error, self._clock.monotonic_s() - since_s, limit_s)
        return SourceUnavailable(f"{self._address.shown} {event}: {reason}")

    def _check_path(self) -> None:
        path = self._address.path
        if path is None:
            return
        if not path.is_file():
            raise ConfigError(f"{path} is not a file; expected a video file")
        if path.stat().st_size == 0:
            raise ConfigError(f"{path} is empty; expected a video file")

    def _needs_program(self) -> bool:
        scheme = self._address.scheme
        if scheme == "srt":
            return True  # no PyAV wheel has libsrt, and there is no way to ask one for its protocols
        return scheme == "v4l2" and not any("v4l2" in name.split(",") for name in av.formats_available)

    def _open(self) -> InputContainer:
        since_s = self._clock.monotonic_s()
        try:
            return self._open_patiently(self.device)
        except (FFmpegError, OSError) as error:
            if self.device is None:
                raise self._refused(error, since_s) from None
            refusal = error
        # The device may be at fault, not the stream: only a second try without it can tell.
        since_s = self._clock.monotonic_s()
        try:
            container = self._open_patiently(None)
        except (FFmpegError, OSError) as error:
            raise self._refused(error, since_s) from None
        log.warning("%s: no %s here (%s); decoding in software", self._address.shown, self.device, _words(refusal))
        self.device = None
        return container

    def _open_patiently(self, device: str | None) -> InputContainer:
        """Open, and where a camera takes too long to say what its video is, for that stands at its next key frame, be
        content with less: the decoder learns it when it comes."""
        since_s = self._clock.monotonic_s()
        try:
            return self._open_with(device)
        except (FFmpegError, OSError):
            in_time = self._clock.monotonic_s() - since_s < 0.9 * self._options.open_timeout_s
            if in_time or self._address.scheme not in SLOW_TO_TELL:
                raise
        self._probe = BRIEF_PROBE
        return self._open_with(device)

    def _open_with(self, device: str | None) -> InputContainer:
        address, options = self._address, self._options
        # Frames stay on the device; the few that are sampled are downloaded by AvPicture.
        hwaccel = HWAccel(device, is_hw_owned=True) if device else None
        if self._pipe is not None:
            return av.open(
                self._pipe.stream, "r", format=self._pipe.format, options=QUICK_PROBE, metadata_errors="replace",
                hwaccel=hwaccel,
            )  # fmt: skip
        timeout = None if address.scheme == "file" else (options.open_timeout_s, self._read_limit_s)
        return av.open(
            address.target, "r", format="v4l2" if address.scheme == "v4l2" else None, options=self._ffmpeg_options(),
            timeout=timeout, metadata_errors="replace", hwaccel=hwaccel,
        )  # fmt: skip

    def _ffmpeg_options(self) -> dict[str, str]:
        scheme = self._address.scheme
        if scheme in ("rtsp", "rtsps"):
            return {"rtsp_transport": self._options.rtsp_transport, **self._probe}
        return dict(self._probe) if self._address.live else {}

    def _refused(self, error: Exception, since_s: float) -> ConfigError | SourceUnavailable:
        """What a failed opening means: a file that is not a video stays one, everything else may come back."""
        path = self._address.path
        if path is not None and not (isinstance(error, OSError) and error.errno == errno.EACCES):
            return ConfigError(f"{path} cannot be read as video: {_words(error)}")
        return self._unavailable("cannot be opened", error, since_s, self._options.open_timeout_s)

    def _connection(self, container: InputContainer) -> Connection:
        live = self._address.live
        if live is None:
            live = container.duration is None
        tracks = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        video = self._track(container, tracks)
        context = video.codec_context
        self.check_size(context.width, context.height)
        context.thread_count = 1  # many streams share few cores
        context.options = {**context.options, "max_pixels": str(self._options.max_pixels + PADDING)}
        stated = video.sample_aspect_ratio
        aspect = stated if stated and stated != context.sample_aspect_ratio else None
        return Connection(container, video, live, self.device if context.is_hwaccel else None, aspect, len(tracks))

    def check_size(self, width: int, height: int) -> None:
        """Refuse a picture that is too large, by what is known before anything of it is decoded."""
        most = self._options.max_pixels
        if width * height > most:
            raise self._unfit(
                f"has pictures of {width}x{height}, more than max_pixels {most} allows; raise that for this stream if"
                " they are meant to be so large"
            )

    def _track(self, container: InputContainer, tracks: list[VideoStream]) -> VideoStream:
        """The video stream that was asked for, else the best that is not the cover picture of a sound file."""
        wanted = self._options.video_track
        if not tracks:
            found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise self._unfit(f"has no video stream; it has {found}")
        if wanted is not None and wanted >= len(tracks):
            raise self._unfit(f"has no video track {wanted}; it has {', '.join(map(_described, tracks, count()))}")
        best = container.streams.best("video")
        video = next((t for t in tracks if best and t.index == best.index), tracks[0])
        video = video if wanted is None else tracks[wanted]
        if video.codec_context is None:
            raise self._unfit("has video that this build of FFmpeg cannot decode")
        return video

    def _unfit(self, problem: str) -> ConfigError | SourceUnavailable:
        """What no retry helps in a recording, and time may in a camera."""
        message = f"{self._address.shown} {problem}"
        return ConfigError(message) if self._address.path else SourceUnavailable(message)


def _described(track: VideoStream, number: int) -> str:
    context = track.codec_context
    return f"{number}" if context is None else f"{number} ({context.name} {context.width}x{context.height})"


def _time(stated: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(stated)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _reason(error: Exception, took_s: float, limit_s: float) -> str:
    """Why an opening or a read failed. The time it took says more than the type: a time-out has many."""
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return "it refuses the user name or password (401)"
    if isinstance(error, av.error.HTTPForbiddenError):
        return "it forbids this to the user (403)"
    if isinstance(error, av.error.HTTPNotFoundError):
        return "it has nothing at this path (404)"
    if took_s >= 0.9 * limit_s:
        return f"it did not answer within {limit_s:g} s"
    if isinstance(error, OSError):
        return _NETWORK.get(error.errno or 0) or _words(error)
    if isinstance(error, av.error.InvalidDataError):
        return "what it sends is not video"
    return _words(error)


def _words(error: Exception) -> str:
    # Not str(error): FFmpeg's messages end with the URL, password and all.
    strerror = getattr(error, "strerror", None)
    return scrub(strerror if isinstance(strerror, str) else str(error))


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(known)}")


_NETWORK = {
    errno.ECONNREFUSED: "connection refused; is it on, and is the port right?",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "the network is unreachable",
    errno.EIO: "the host is unknown or the connection broke",
    errno.ECONNRESET: "the connection was reset",
    errno.ETIMEDOUT: "the host does not answer",
    errno.ENOENT: "there is no such device",
    errno.ENODEV: "there is no such device",
}
