"""One reading of every URL that a person writes: of a camera, an MLLM server, a store, a sink, a broker.

What people write is not always a legal URL: a password may hold `@ / # ? % :` as they are. Each `@` that a host could
follow is a possible end of the user name and password; where several are left and nothing tells them apart, the URL is
refused rather than a part of a password taken for a host.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from pipeline.errors import ConfigError

_HOST = r"(?:\[[0-9A-Fa-f:.]{2,64}(?:%[\w.-]{1,32})?\]|[^\s/?#@:,\[\]\\\"'<>]{0,253})(?::\d{1,5})?"
_AUTHORITY = re.compile(rf"{_HOST}(?:,{_HOST}){{0,64}}(?=[/?#]|$)")
_ENDS = re.compile(r"[/?#]")
_DOTTED = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+\.?")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
REFERENCE = re.compile(r"\$\{(file:[^}]+|[^}@/]+)\}")
_MASKED = re.compile("\ue000(\\d+)\ue001")
_FILE_NAMES = frozenset(
    {".m3u8", ".m3u", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".flv", ".sdp", ".jpg", ".jpeg", ".mjpeg"}
)


@dataclass(frozen=True, slots=True)
class UrlReading:
    """One way to read what stands behind `scheme://`: all parts as written. `userinfo` is None where there is none."""

    userinfo: str | None
    authority: str
    rest: str


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in its parts. `scheme` is in lower case, `user` and `password` are as they are meant, not encoded.

    `authority` is the host with its port (of a broker several, with commas), `rest` path, query and fragment as
    written.
    """

    scheme: str
    user: str | None
    password: str | None
    authority: str
    rest: str

    @property
    def text(self) -> str:
        """The URL as the standard has it: user name and password percent-encoded."""
        return f"{self.scheme}://{self.login}{self.authority}{self.rest}"

    @property
    def login(self) -> str:
        """User name and password with what separates them from the host, percent-encoded; empty without."""
        if self.user is None:
            return ""
        behind = "" if self.password is None else f":{quote(self.password, safe='')}"
        return f"{quote(self.user, safe='')}{behind}@"

    @property
    def anonymous(self) -> "Url":
        """Without user name and password."""
        return replace(self, user=None, password=None)

    @property
    def host(self) -> str:
        """Name or address of the host, without port and brackets. Empty where there is none."""
        return split_port(self.authority)[0].strip("[]")

    @property
    def port(self) -> int | None:
        """The port, where one is given."""
        return split_port(self.authority)[1]

    @property
    def path(self) -> str:
        """The path as written, without query and fragment."""
        return _ENDS.split(self.rest.replace("/", "\0"), maxsplit=1)[0].replace("\0", "/")


def split_port(authority: str) -> tuple[str, int | None]:
    """Host and port of `host`, `host:port` or `[v6]:port`."""
    host, colon, port = authority.rpartition(":")
    if colon and port.isdigit() and "]" not in port:
        return host, int(port)
    return authority.removesuffix(":"), None


def parse_url(text: str) -> Url:
    """The URL in `text`. Raises ConfigError, which repeats no part of it, where it can be read in several ways or none.

    A `%XX` in a user name or password is what it encodes; a `%` that encodes nothing is itself.
    """
    scheme, mark, behind = text.partition("://")
    if not mark:
        raise ConfigError("this is no URL; expected scheme://host/path")
    reading = choose(readings(behind))
    if reading is None:
        raise ConfigError(
            f"a URL of the scheme {scheme!r} can be read in more than one way, or in none; in a user name, a password"
            " and a path, write @ as %40, / as %2F, # as %23, ? as %3F, : as %3A and % as %25, or give a password as"
            " ${NAME}, which is encoded for you"
        )
    if reading.userinfo is None:
        return Url(scheme.lower(), None, None, reading.authority, reading.rest)
    user, colon, password = reading.userinfo.partition(":")
    return Url(scheme.lower(), _plain(user), _plain(password) if colon else None, reading.authority, reading.rest)


def readings(behind: str) -> list[UrlReading]:
    """Every way to read what stands behind `scheme://`; the one by the standard comes first, if it is one."""
    found = []
    ends = _ENDS.search(behind)
    end = ends.start() if ends else len(behind)
    colon = behind.find(":")
    without = _AUTHORITY.match(behind)
    if without:
        found.append(UrlReading(None, without.group(), behind[without.end() :]))
    at = behind.find("@")
    while at >= 0:
        host = _AUTHORITY.match(behind, at + 1)
        # Behind the first / ? or # an @ ends a password only where a colon came before it.
        if host and (at < end or 0 <= colon < at) and not _is_file_name(behind, host, bool(found)):
            found.append(UrlReading(behind[:at], host.group(), behind[host.end() :]))
        at = behind.find("@", at + 1)
    return found


def choose(found: list[UrlReading]) -> UrlReading | None:
    """The reading that is meant, None where none is or nothing tells them apart."""
    if len(found) < 2:
        return found[0] if found else None
    first = found[0]
    sure = [reading for reading in found if is_sure(reading)]
    nested = first.userinfo is None and all("://" in reading.userinfo for reading in found if reading.userinfo)
    if first in sure or nested:
        return first
    bare = first.userinfo is None and ":" not in first.authority
    if len(sure) == 1 and not (bare and _DOTTED.fullmatch(first.authority)):
        return sure[0]
    if bare and not sure:
        return first  # no password begins without a colon before the first slash
    # A host of digits alone would be an address that nobody writes.
    rest = [reading for reading in found if not split_port(reading.authority)[0].isdigit()]
    return rest[0] if len(rest) == 1 and not sure else None


def is_sure(reading: UrlReading) -> bool:
    """True if its host cannot be a piece of a password: an address, `localhost`, or a dotted name with a port."""
    host, port = split_port(reading.authority.split(",")[0])
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
        return True
    except ValueError:
        return host == "localhost" or (port is not None and _DOTTED.fullmatch(host) is not None)


def fill(template: str, value_of: Callable[[str], str], *, whole_path: bool = False) -> str:
    """`template` with every `${NAME}` replaced by `value_of(NAME)`, percent-encoded where it stands in a URL.

    As it is stays what brings its own scheme, a host, and with `whole_path` what stands behind the host: file names of
    databases know no encoding. A reference for user name and password together keeps its first colon.
    """
    values: list[str] = []

    def mask(match: re.Match[str]) -> str:
        values.append(value_of(match.group(1)))
        return f"\ue000{len(values) - 1}\ue001"

    masked = REFERENCE.sub(mask, template)
    before, mark, behind = masked.partition("://")
    reading = choose(readings(behind)) if mark else None

    def filled(part: str, encoded: bool) -> str:
        def value(match: re.Match[str]) -> str:
            one = values[int(match.group(1))]
            return quote(one, safe="") if encoded else one

        return _MASKED.sub(value, part)

    if reading is None:
        return filled(masked, False)
    login = "" if reading.userinfo is None else _login(reading.userinfo, filled) + "@"
    return (
        filled(before, False) + mark + login + filled(reading.authority, False) + filled(reading.rest, not whole_path)
    )


def _login(userinfo: str, filled: Callable[[str, bool], str]) -> str:
    if not _MASKED.fullmatch(userinfo):
        return filled(userinfo, True)
    user, colon, password = filled(userinfo, False).partition(":")
    return quote(user, safe="") + colon + quote(password, safe="")


def _plain(text: str) -> str:
    return unquote(_STRAY_PERCENT.sub("%25", text))


def _is_file_name(behind: str, host: re.Match[str], otherwise: bool) -> bool:
    """True if what looks like a host is the end of a path, such as of `a@2x.m3u8`, and can be read `otherwise`."""
    suffix = PurePosixPath(host.group()).suffix.lower()
    return otherwise and host.end() == len(behind) and suffix in _FILE_NAMES
