"""Where a stream is: what its URL says before anything is opened."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError
from pipeline.redact import lacks_scheme, redact_url

CAMERA_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "rtmpts", "srt", "udp", "rtp", "tcp", "v4l2")
WEB_SCHEMES = ("http", "https")
RECORDING_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv", ".wmv"})


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed stream URL.

    `target` is what FFmpeg opens, `shown` what people may see, `path` the local file of a recording. `live` is False
    for a recording, None where only opening can tell (a playlist or file on the web).
    """

    scheme: str
    target: str
    shown: str
    path: Path | None
    live: bool | None

    @property
    def likely_live(self) -> bool:
        """The best guess before opening."""
        if self.live is not None:
            return self.live
        return Path(urlsplit(self.target).path).suffix.lower() not in RECORDING_SUFFIXES

    @property
    def is_playlist(self) -> bool:
        """True if the path is that of an HLS playlist."""
        return urlsplit(self.target).path.lower().endswith((".m3u8", ".m3u"))


def parse_address(url: str, live: bool | None = None) -> Address:
    """The address in `url`: a URL of a known scheme, `v4l2:/dev/videoN` or a file path; `live` overrides what it tells.

    Raises ConfigError.
    """
    address = _parse(url)
    return address if live is None else replace(address, live=live)


def _parse(url: str) -> Address:
    if url.startswith("v4l2:"):
        device = url.removeprefix("v4l2:")
        return Address("v4l2", device, url, None, True)
    scheme, separator, _ = url.partition("://")
    if not separator:
        if lacks_scheme(url) and not os.path.exists(url):
            raise ConfigError(
                f"{redact_url(url)} lacks its scheme, or is a file that is not there; expected rtsp://..., or the path"
                " of a file"
            )
        scheme = url.partition(":")[0].lower()
        if scheme in (*CAMERA_SCHEMES, *WEB_SCHEMES):
            raise ConfigError(f"a URL of the scheme {scheme!r} lacks its //; expected {scheme}://host/path")
        return _file(url)
    scheme = scheme.lower()
    try:
        shown, parts = redact_url(url), urlsplit(url)
    except ValueError:
        raise ConfigError(
            f"{redact_url(url)} is not a URL; in a user name or password, @ : / ? # [ ] and letters beyond ASCII have"
            " to be percent-encoded (@ is %40)"
        ) from None
    if scheme == "file":
        return _file(unquote(parts.path))
    if scheme in WEB_SCHEMES:
        return Address(scheme, url, shown, None, None)
    if scheme in CAMERA_SCHEMES:
        return Address(scheme, url, shown, None, True)
    known = ", ".join((*CAMERA_SCHEMES, *WEB_SCHEMES, "file"))
    raise ConfigError(f"{shown} has the scheme {scheme!r}; expected one of {known}, or a file path")


def _file(path: str) -> Address:
    if not path:
        raise ConfigError("the stream URL is empty; expected a URL or a file path")
    # "file:" keeps FFmpeg from reading a protocol into a name that has a colon.
    return Address("file", f"file:{path}", path, Path(path), False)
