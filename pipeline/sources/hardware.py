"""The hardware with which a stream is decoded: by FFmpeg, or by an element of GStreamer."""

import re
from pathlib import Path

from av.codec.hwaccel import hwdevices_available

from pipeline.errors import ConfigError

JETSON = "nvv4l2decoder"
"""GStreamer's decoder on a Jetson."""

_GSTREAMER = "gstreamer"
_ELEMENT = re.compile(rf"{_GSTREAMER}:([a-z][a-z0-9_]{{0,62}})")


def device_of(hwaccel: str) -> str | None:
    """The hardware device type to try, None for software. `auto` means CUDA where an NVIDIA device node exists;
    `gstreamer` the decoder of a Jetson, `gstreamer:ELEMENT` another one. Raises ConfigError for a type that this FFmpeg
    does not have."""
    if hwaccel == _GSTREAMER:
        return f"{_GSTREAMER}:{JETSON}"
    if element_of(hwaccel):
        return hwaccel
    known = ("auto", "none", _GSTREAMER, f"{_GSTREAMER}:ELEMENT", *hwdevices_available())
    if hwaccel not in known:
        raise ConfigError(f"hwaccel is {hwaccel!r}; expected one of {', '.join(known)}")
    if hwaccel != "auto":
        return None if hwaccel == "none" else hwaccel
    return "cuda" if has_device("cuda") and "cuda" in hwdevices_available() else None


def element_of(device: str | None) -> str | None:
    """The element of GStreamer by which a device decodes; None where FFmpeg does."""
    found = _ELEMENT.fullmatch(device or "")
    return found[1] if found else None


def has_device(kind: str) -> bool:
    """True if this machine has device nodes of an FFmpeg device type, and for types of which that is not known."""
    if kind == "cuda":
        return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/nvhost-ctrl").exists()
    if kind in ("vaapi", "qsv", "drm", "vulkan"):
        return any(Path("/dev/dri").glob("renderD*"))
    return True
