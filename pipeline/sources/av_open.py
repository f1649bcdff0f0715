"""Opening a connection with FFmpeg: options, hardware, and errors in plain words."""

import errno
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from itertools import count

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from pipeline.clock import Clock
from pipeline.errors import ConfigError, SourceRefused, SourceUnavailable
from pipeline.sources.address import WEB_SCHEMES, Address
from pipeline.sources.av_faults import REFUSALS, reason_of, words
from pipeline.sources.connection import Connection
from pipeline.sources.ffmpeg_pipe import FfmpegPipe
from pipeline.sources.hls import Body
from pipeline.sources.inputs import Input, WebInput, begins_playlist, open_local_playlist, open_pipe
from pipeline.sources.settings import SourceConfig
from pipeline.sources.web import look_up, refusal

log = logging.getLogger(__name__)

PADDING = 64 * 16_384
"""What FFmpeg adds to a picture before it compares it with its own bound, in px: its lines are up to 63 px longer."""

QUICK_PROBE = {"probesize": "500000", "analyzeduration": "500000"}
"""Bytes and microseconds that FFmpeg may read of a camera before the first picture; its own limits cost 5 s."""

BRIEF_PROBE = {"probesize": "5000", "analyzeduration": "100000"}
"""The same for a camera whose next key frame is far away, or that begins with sound."""

SLOW_TO_TELL = ("rtsp", "rtsps", "rtp", "udp", "tcp")
"""Schemes whose streams are joined anywhere, and may state their pictures' size at a key frame only."""


class Opener:
    """Opens one connection, on hardware `device` if that is there. `device` is None once it fell back to software.

    Snapshots are asked for `fps` times a second.
    """

    def __init__(
        self, address: Address, settings: SourceConfig, clock: Clock, device: str | None, fps: float = 1.0
    ) -> None:
        self.device = device
        self._address = address
        self._settings, self._policy = settings, settings.address_policy()
        self._clock = clock
        self._fps = fps
        self._pipe: FfmpegPipe | None = None
        self._cut: Callable[[], None] | None = None
        self._interrupted = False
        self._opened = False
        self._probe = QUICK_PROBE

    def interrupt(self) -> None:
        """Unblock a read that is not FFmpeg's own. From any thread."""
        self._interrupted = True
        if self._pipe is not None:
            self._pipe.kill()
        if self._cut is not None:
            self._cut()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """An open connection, closed at the end. Raises SourceUnavailable, or ConfigError where no retry can help."""
        self._check_path()
        self._check_host()
        self._pipe = FfmpegPipe(self._address) if self._needs_program() else None
        try:
            with self._open() as (container, read):
                yield self._connection(container, read)
                if read is not None and (fault := read.fault()) is not None:
                    raise fault
        except SourceUnavailable as error:
            raise self._named(error) from None
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
        return 2 * max(self._settings.stall_s, self._settings.first_picture_s)

    def _unavailable(self, event: str, error: Exception, since_s: float, limit_s: float) -> SourceUnavailable:
        said = self._pipe.said() if self._pipe is not None else ""
        reason = said or reason_of(error, self._clock.monotonic_s() - since_s, limit_s)
        kind = SourceRefused if isinstance(error, REFUSALS) else SourceUnavailable
        return self._named(kind(reason), event)

    def _named(self, error: SourceUnavailable, event: str | None = None) -> SourceUnavailable:
        """`error` with the address in front, if it does not have it, and what happened."""
        shown, url = self._address.shown, self._address.url
        if str(error).startswith(shown):
            return error
        event = event or ("broke off" if self._opened else "cannot be opened")
        encoded = isinstance(error, SourceRefused) and url is not None and _ENCODED.search(url.password or "")
        return type(error)(f"{shown} {event}: {error}{_AS_IT_IS if encoded else ''}")

    def _input(self) -> Input | None:
        """The input that FFmpeg reads instead of opening the address itself."""
        address, settings = self._address, self._settings
        if address.scheme in WEB_SCHEMES:
            web = WebInput(
                address, self._policy, settings.open_timeout_s, self._read_limit_s, self._clock, settings.max_pixels
            )
            self._set_cut(web.cut)
            try:
                return web.open(1 / self._fps)
            except (SourceUnavailable, ConfigError):
                web.close()
                raise
        if address.scheme == "pipe":
            read = open_pipe(address.path)
        elif address.path is not None and begins_playlist(address.path):
            read = open_local_playlist(
                address.path, self._policy, settings.open_timeout_s, self._read_limit_s, self._clock
            )
        else:
            return None
        self._set_cut(read.cut)
        return read

    def _set_cut(self, cut: Callable[[], None]) -> None:
        self._cut = cut
        if self._interrupted:
            cut()

    def _check_host(self) -> None:
        """Judge the host of what FFmpeg opens by itself, where the policy can refuse what was typed."""
        url, policy = self._address.url, self._policy
        if not policy.judges_typed or url is None or self._address.scheme in WEB_SCHEMES or not url.host:
            return
        try:
            found = look_up(url.host)
        except (OSError, UnicodeError):
            return  # FFmpeg does not find it either, and says so
        if not policy.permitted(found, None):
            raise SourceUnavailable(refusal(found, None))

    def _check_path(self) -> None:
        path = self._address.path
        if path is None:
            return
        if not self._policy.permits_file(path, None):
            raise ConfigError(f"{path} is not allowed here; see allow_addresses and deny_addresses")
        if self._address.scheme == "pipe":
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

    @contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, Input | None]]:
        """The container, and what it reads where FFmpeg does not open that itself."""
        for device in dict.fromkeys((self.device, None)):
            since_s = self._clock.monotonic_s()
            read = self._input()
            try:
                container = self._open_patiently(device, read)
            except (FFmpegError, OSError) as error:
                fault = read.fault() if read is not None else None
                _close(read)
                # What refuses a password must not be asked twice. Else the device may be at fault, not the stream: only
                # a second try without it can tell.
                if fault is not None or device is None or isinstance(error, REFUSALS):
                    raise fault or self._refused(error, since_s) from None
                refusal = error
                continue
            except SourceUnavailable:
                _close(read)
                raise
            break
        if device != self.device:
            log.warning("%s: no %s here (%s); decoding in software", self._address.shown, self.device, words(refusal))
            self.device = None
        try:
            with closing(container):
                yield container, read
        finally:
            _close(read)

    def _open_patiently(self, device: str | None, read: Input | None) -> InputContainer:
        """Open, and where a camera takes too long to say what its video is, for that stands at its next key frame, be
        content with less: the decoder learns it when it comes."""
        since_s = self._clock.monotonic_s()
        try:
            return self._open_with(device, read)
        except (FFmpegError, OSError) as error:
            in_time = self._clock.monotonic_s() - since_s < 0.9 * self._settings.open_timeout_s
            if in_time or isinstance(error, REFUSALS) or self._address.scheme not in SLOW_TO_TELL:
                raise
        self._probe = BRIEF_PROBE
        return self._open_with(device, read)

    def _open_with(self, device: str | None, read: Input | None) -> InputContainer:
        address, settings = self._address, self._settings
        # Frames stay on the device; the few that are sampled are downloaded by AvPicture.
        hwaccel = HWAccel(device, is_hw_owned=True) if device else None
        if self._pipe is not None:
            return av.open(
                self._pipe.stream, "r", format=self._pipe.format, options=QUICK_PROBE, metadata_errors="replace",
                hwaccel=hwaccel,
            )  # fmt: skip
        if read is not None:
            return av.open(
                read.file, "r", format=read.format, options={**self._ffmpeg_options(), **read.options},
                timeout=None if address.live is False else (settings.open_timeout_s, self._read_limit_s),
                io_open=read.open or _open_nothing, metadata_errors="replace", hwaccel=hwaccel,
            )  # fmt: skip
        timeout = None if address.scheme == "file" else (settings.open_timeout_s, self._read_limit_s)
        return av.open(
            address.target, "r", format="v4l2" if address.scheme == "v4l2" else None, options=self._ffmpeg_options(),
            timeout=timeout, metadata_errors="replace", hwaccel=hwaccel,
        )  # fmt: skip

    def _ffmpeg_options(self) -> dict[str, str]:
        scheme = self._address.scheme
        protocols = {"protocol_whitelist": _PROTOCOLS[scheme]} if scheme in _PROTOCOLS else {}
        if scheme in ("rtsp", "rtsps"):
            return {"rtsp_transport": self._settings.rtsp_transport, **protocols, **self._probe}
        return {**protocols, **self._probe} if self._address.live else {}

    def _refused(self, error: Exception, since_s: float) -> ConfigError | SourceUnavailable:
        """The error that stands for a failed opening: a file that is not a video stays one, everything else may come
        back."""
        path = self._address.path
        if (
            path is not None
            and self._address.scheme == "file"
            and not (isinstance(error, OSError) and error.errno == errno.EACCES)
        ):
            return ConfigError(f"{path} cannot be read as video: {words(error)}")
        return self._unavailable("cannot be opened", error, since_s, self._settings.open_timeout_s)

    def _connection(self, container: InputContainer, read: Input | None) -> Connection:
        self._opened = True
        live = self._address.live
        if read is not None and (live is None or read.format == "hls"):
            live = read.live
        if live is None:
            live = container.duration is None
        tracks = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        video = self._track(container, tracks)
        context = video.codec_context
        self.check_size(context.width, context.height)
        context.thread_count = 1  # many streams share few cores
        context.options = {**context.options, "max_pixels": str(self._settings.max_pixels + PADDING)}
        stated = video.sample_aspect_ratio
        aspect = stated if stated and stated != context.sample_aspect_ratio else None
        return Connection(
            container, video, live, self.device if context.is_hwaccel else None, aspect, len(tracks), read
        )

    def check_size(self, width: int, height: int) -> None:
        """Refuse a picture that is too large, by what is known before anything of it is decoded."""
        most = self._settings.max_pixels
        if width * height > most:
            raise self._unfit(
                f"has pictures of {width}x{height}, more than max_pixels {most} allows; raise that for this stream if"
                " they are meant to be so large"
            )

    def _track(self, container: InputContainer, tracks: list[VideoStream]) -> VideoStream:
        """The video stream that was asked for, else the best that is not the cover picture of a sound file."""
        wanted = self._settings.video_track
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
        """The error of an input without usable video: final for a recording, temporary for a camera."""
        message = f"{self._address.shown} {problem}"
        return ConfigError(message) if self._address.path else SourceUnavailable(message)


def _close(read: Input | None) -> None:
    if read is not None:
        read.close()


def _open_nothing(_url: str, _flags: int, _options: dict[str, str]) -> Body:
    """Refuse whatever a container other than a playlist names."""
    return BytesIO()


def _described(track: VideoStream, number: int) -> str:
    context = track.codec_context
    return f"{number}" if context is None else f"{number} ({context.name} {context.width}x{context.height})"


_ENCODED = re.compile("%[0-9A-Fa-f]{2}")
_AS_IT_IS = "; its password holds %XX: what a ${NAME} stands for is the password as it is, and is encoded here"

_PROTOCOLS = {
    "rtsp": "rtsp,rtp,srtp,udp,tcp,tls,http,https",
    "rtsps": "rtsps,rtp,srtp,udp,tcp,tls,http,https",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tls,tcp",
    "rtmpt": "rtmpt,rtmp,ffrtmphttp,http,tcp",
    "rtmpts": "rtmpts,rtmp,ffrtmphttp,https,http,tls,tcp",
    "udp": "udp",
    "rtp": "rtp,udp",
    "tcp": "tcp",
}
"""What FFmpeg may speak to serve a URL of a scheme; nothing that is told by the other side opens another."""
