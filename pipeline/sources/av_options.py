"""How a stream is opened and read: the options of a source that FFmpeg serves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from av.codec.hwaccel import hwdevices_available

from pipeline.errors import ConfigError
from pipeline.sources.policy import AddressPolicy
from pipeline.sources.shape import MAX_PIXELS

TRANSPORTS = ("tcp", "udp", "udp_multicast", "http", "https")
ON_CORRUPT = ("keep", "drop")


@dataclass(frozen=True, slots=True)
class AvOptions:
    """How to open and read. Raises ConfigError for a value that is not allowed.

    `open_timeout_s` bounds each of FFmpeg's two steps of opening, `stall_s` the silence of a live stream (one that
    sends less often is given more), `first_picture_s` how long its packets may show no picture, in seconds.
    `hwaccel` is `auto`, `none` or a device type of FFmpeg. `on_corrupt` says what to do with a picture that is damaged
    or built on one that is: `drop` shows none until the next key frame that is whole. A picture of more than
    `max_pixels` px is refused. `video_track` is counted from 0, None for the one that FFmpeg finds best.
    `policy` judges what the stream may lead to.
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
    policy: AddressPolicy = AddressPolicy()

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
    """True if this machine has device nodes of an FFmpeg device type, and for types of which that is not known."""
    if kind == "cuda":
        return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/nvhost-ctrl").exists()
    if kind in ("vaapi", "qsv", "drm", "vulkan"):
        return any(Path("/dev/dri").glob("renderD*"))
    return True


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(known)}")
