"""The address of a stream: the properties of its URL that are known before anything is opened."""

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from pipeline.errors import ConfigError
from pipeline.redact import lacks_scheme, redact_url, remember
from pipeline.urls import Url, parse_url

CAMERA_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "rtmpts", "srt", "udp", "rtp", "tcp", "v4l2")
WEB_SCHEMES = ("http", "https")
RECORDING_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv", ".wmv"})
STANDARD_INPUT = ("-", "pipe:", "pipe:0", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed stream URL.

    `target` is what FFmpeg opens, `shown` what people may see, `path` the local file of a recording or the named pipe,
    `url` the parts of what has a host. The scheme `pipe` without a path is standard input. `live` is False for a
    recording, None where only opening can tell (what is on the web).
    """

    scheme: str
    target: str
    shown: str
    path: Path | None
    live: bool | None
    url: Url | None = None

    @property
    def likely_live(self) -> bool:
        """The best guess before opening."""
        if self.live is not None:
            return self.live
        return self.url is None or Path(self.url.path).suffix.lower() not in RECORDING_SUFFIXES


def parse_address(url: str, live: bool | None = None, shown: str | None = None) -> Address:
    """The address in `url`: a URL of a known scheme, `v4l2:/dev/videoN`, a path of a file or named pipe, or `-`.

    `live` overrides what it tells, `shown` what people may see of it. Its password is hidden in every text from now on.
    Raises ConfigError.
    """
    address = _parse(url, redact_url(url))
    if shown is not None:
        address = replace(address, shown=shown)
    return address if live is None else replace(address, live=live)


def _parse(url: str, shown: str) -> Address:
    if url.startswith("v4l2:"):
        device = url.removeprefix("v4l2:").removeprefix("//")
        return Address("v4l2", device, shown, None, True)
    if url in STANDARD_INPUT:
        return Address("pipe", url, "standard input", None, False)
    scheme, separator, behind = url.partition("://")
    scheme = scheme.lower()
    if not separator:
        return _without_scheme(url, shown)
    if scheme == "file":
        return _file(_path_of(behind))
    if scheme not in (*CAMERA_SCHEMES, *WEB_SCHEMES):
        known = ", ".join((*CAMERA_SCHEMES, *WEB_SCHEMES, "file"))
        raise ConfigError(f"{shown} has the scheme {redact_url(scheme)!r}; expected one of {known}, or a file path")
    try:
        parts = parse_url(url)
    except ConfigError as error:
        raise ConfigError(f"{shown} is not a URL: {error}") from None
    if parts.password is not None:
        remember(parts.password)
    return Address(scheme, parts.text, shown, None, None if scheme in WEB_SCHEMES else True, parts)


def _without_scheme(url: str, shown: str) -> Address:
    scheme = url.partition(":")[0].lower()
    if scheme in (*CAMERA_SCHEMES, *WEB_SCHEMES):
        raise ConfigError(f"a URL of the scheme {scheme!r} lacks its //; expected {scheme}://host/path")
    if scheme == "file" and not os.path.exists(url):
        return _file(_path_of(url.removeprefix("file:")))
    if lacks_scheme(url) and not os.path.exists(url):
        raise ConfigError(
            f"{shown} lacks its scheme, or is a file that is not there; expected rtsp://..., or the path of a file"
        )
    return _file(url)


def _path_of(behind: str) -> str:
    """The path in what stands behind `file://`: encoded, or as it is if there is such a file."""
    plain = behind.removeprefix("localhost")
    return plain if os.path.exists(plain) else unquote(plain)


def _file(path: str) -> Address:
    if not path:
        raise ConfigError("the stream URL is empty; expected a URL or a file path")
    if _is_pipe(path):
        return Address("pipe", path, path, Path(path), False)
    # "file:" keeps FFmpeg from reading a protocol into a name that has a colon.
    return Address("file", f"file:{path}", path, Path(path), False)


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
