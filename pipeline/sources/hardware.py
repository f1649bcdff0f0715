"""The hardware with which FFmpeg decodes a stream."""

from pathlib import Path

from av.codec.hwaccel import hwdevices_available

from pipeline.errors import ConfigError


def device_of(hwaccel: str) -> str | None:
    """The hardware device type to try, None for software. `auto` means CUDA where an NVIDIA device node exists. Raises
    ConfigError for a type that this FFmpeg does not have."""
    known = ("auto", "none", *hwdevices_available())
    if hwaccel not in known:
        raise ConfigError(f"hwaccel is {hwaccel!r}; expected one of {', '.join(known)}")
    if hwaccel != "auto":
        return None if hwaccel == "none" else hwaccel
    return "cuda" if has_device("cuda") and "cuda" in hwdevices_available() else None


def has_device(kind: str) -> bool:
    """True if this machine has device nodes of an FFmpeg device type, and for types of which that is not known."""
    if kind == "cuda":
        return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/nvhost-ctrl").exists()
    if kind in ("vaapi", "qsv", "drm", "vulkan"):
        return any(Path("/dev/dri").glob("renderD*"))
    return True
