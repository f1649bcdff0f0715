"""Opening a connection with FFmpeg: options, hardware, and errors in plain words."""

import errno
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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

log = logging.getLogger(__name__)

TRANSPORTS = ("tcp", "udp", "udp_multicast", "http", "https")
ON_CORRUPT = ("keep", "drop")
DEFAULT_FPS = 25.0
PREROLL_S = 10.0
"""How much earlier, in seconds, a format without an index is read when it is resumed."""

QUICK_PROBE = {"probesize": "500000", "analyzeduration": "500000"}
"""Bytes and microseconds that FFmpeg may read of a camera before the first picture; its own limits cost 5 s."""


@dataclass(frozen=True, slots=True)
class AvOptions:
    """How to open and read. Raises ConfigError for a value that is not allowed.

    `open_timeout_s` bounds each of FFmpeg's two steps of opening, `stall_s` the silence of a live stream, in seconds.
    `hwaccel` is `auto`, `none` or a device type of FFmpeg. `on_corrupt` says what to do with a damaged picture.
    """

    hwaccel: str = "auto"
    stall_s: float = 5.0
    open_timeout_s: float = 5.0
    ring_frames: int = 8
    on_corrupt: Literal["keep", "drop"] = "drop"
    rtsp_transport: str = "tcp"
    start_s: float = 0.0

    def __post_init__(self) -> None:
        _one_of("hwaccel", self.hwaccel, ("auto", "none", *hwdevices_available()))
        _one_of("on_corrupt", self.on_corrupt, ON_CORRUPT)
        _one_of("rtsp_transport", self.rtsp_transport, TRANSPORTS)
        for name, value in (("stall_s", self.stall_s), ("open_timeout_s", self.open_timeout_s)):
            if not value > 0:
                raise ConfigError(f"{name} is {value}; expected seconds, more than 0")
        if self.ring_frames < 1:
            raise ConfigError(f"ring_frames is {self.ring_frames}; expected at least 1")
        if not self.start_s >= 0:
            raise ConfigError(f"start_s is {self.start_s}; expected seconds, at least 0")

    def device(self) -> str | None:
        """The hardware device type to try, None for software. `auto` means CUDA where an NVIDIA device node exists."""
        if self.hwaccel != "auto":
            return None if self.hwaccel == "none" else self.hwaccel
        present = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/nvhost-ctrl").exists()
        return "cuda" if present and "cuda" in hwdevices_available() else None


@dataclass(frozen=True, slots=True)
class Connection:
    """An open container and its video stream. `live` is what opening told, `device` the hardware in use."""

    container: InputContainer
    video: VideoStream
    live: bool
    device: str | None

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

    def started_at(self, path: Path | None) -> datetime | None:
        """UTC of a recording's start: its `creation_time`, else the file's modification time minus its length."""
        stated = self.container.metadata.get("creation_time") or self.video.metadata.get("creation_time")
        if stated:
            try:
                created = datetime.fromisoformat(stated)
                return created if created.tzinfo else created.replace(tzinfo=UTC)
            except ValueError:
                log.info("creation_time %r is not a time; the file's own date is used", stated)
        if path is None:
            return None
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) - timedelta(seconds=self.duration_s or 0.0)


class Opener:
    """Opens one connection, on hardware `device` if that is there. `device` is None once it fell back to software."""

    def __init__(self, address: Address, options: AvOptions, clock: Clock, device: str | None) -> None:
        self.device = device
        self._address = address
        self._options = options
        self._clock = clock
        self._pipe: FfmpegPipe | None = None

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
        # Twice the stall time: the source's own watch must be the first to see a silence, since what FFmpeg does at
        # its limit differs by protocol. This limit ends the thread that was left behind.
        return 2 * self._options.stall_s

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
            return self._open_with(self.device)
        except (FFmpegError, OSError) as error:
            if self.device is None:
                raise self._refused(error, since_s) from None
            refusal = error
        # The device may be at fault, not the stream: only a second try without it can tell.
        since_s = self._clock.monotonic_s()
        try:
            container = self._open_with(None)
        except (FFmpegError, OSError) as error:
            raise self._refused(error, since_s) from None
        log.warning("%s: no %s here (%s); decoding in software", self._address.shown, self.device, _words(refusal))
        self.device = None
        return container

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
            return {"rtsp_transport": self._options.rtsp_transport, **QUICK_PROBE}
        return dict(QUICK_PROBE) if self._address.live else {}

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
        video = _video_stream(container)
        if video is None or video.codec_context is None:
            found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            problem = "has no video stream" if video is None else "has video that this build of FFmpeg cannot decode"
            message = f"{self._address.shown} {problem}; it has {found}"
            raise ConfigError(message) if self._address.path else SourceUnavailable(message)
        video.codec_context.thread_count = 1  # many streams share few cores
        device = self.device if video.codec_context.is_hwaccel else None
        return Connection(container, video, live, device)


def _video_stream(container: InputContainer) -> VideoStream | None:
    """The best video stream that is not the cover picture of a sound file."""
    best = container.streams.best("video")
    if isinstance(best, VideoStream) and not best.disposition & Disposition.attached_pic:
        return best
    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


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
