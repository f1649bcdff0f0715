"""Cameras of the network, each stream with a name under which it can be attached."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from pipeline.clock import Clock
from pipeline.config.slugs import unique_slug
from pipeline.config.values import resolve
from pipeline.errors import ConfigError
from pipeline.sources.discovery import LISTEN_S, Permits, discover
from pipeline.sources.onvif import CameraLogin, FoundCamera, FoundStream
from pipeline.urls import REFERENCE, parse_url

LISTEN_RANGE_S = (0.5, 20.0)
"""Shortest and longest time for which answers may be awaited."""
MOST_HOSTS = 64
"""Hosts that may be named at once."""


@dataclass(frozen=True, slots=True)
class Search:
    """The scope of a search for cameras: hosts (none: the whole network), duration in seconds, and login; `password` is
    a reference."""

    hosts: tuple[str, ...] = ()
    user: str | None = None
    password: str | None = None
    listen_s: float = LISTEN_S

    def __post_init__(self) -> None:
        """Raises ConfigError naming the value that cannot be."""
        shortest, longest = LISTEN_RANGE_S
        if not shortest <= self.listen_s <= longest:
            raise ConfigError(f"seconds: it is {self.listen_s:g}; expected {shortest:g} to {longest:g}")
        if len(self.hosts) > MOST_HOSTS:
            raise ConfigError(f"hosts: {len(self.hosts)} are named; expected at most {MOST_HOSTS}")
        if (self.user is None) != (self.password is None):
            raise ConfigError("user: a user name and a password belong together; give both or none")
        if self.password is not None and not REFERENCE.fullmatch(self.password):
            raise ConfigError("password: it is written out; expected a reference such as ${CAMERA_PASSWORD}")


async def find_cameras(
    search: Search, clock: Clock, permits: Permits = lambda host: True, typed: str | None = None
) -> list[FoundCamera]:
    """Cameras with their streams, by address. `typed` is a password that a person has just typed. Raises ConfigError
    and SourceUnavailable."""
    password = typed if typed is not None else resolve(search.password) if search.password else None
    login = CameraLogin(search.user or "", password) if password is not None else None
    return _named(await discover(search.hosts, login, clock, listen_s=search.listen_s, permits=permits))


def stream_named(name: str, cameras: Sequence[FoundCamera]) -> tuple[FoundCamera, FoundStream]:
    """The stream of a name; a camera's own name stands for its main stream. Raises ConfigError naming what there is."""
    for camera in cameras:
        for stream in camera.streams:
            if name == stream.name or (name == camera.name and stream.role == "main"):
                return camera, stream
    names = [stream.name for camera in cameras for stream in camera.streams]
    troubles = "".join(f"; {camera.name}: {camera.trouble}" for camera in cameras if camera.trouble)
    raise ConfigError(f"no stream {name[:80]!r} was found; there are {', '.join(names[:20]) or 'none'}{troubles}")


def stream_address(stream: FoundStream, search: Search) -> str:
    """The URL under which a stream can be attached: with the user's name, and the password as a reference."""
    if search.user is None or search.password is None:
        return stream.url
    url = parse_url(stream.url)
    return f"{url.scheme}://{quote(search.user, safe='')}:{search.password}@{url.authority}{url.rest}"


def _named(cameras: Sequence[FoundCamera]) -> list[FoundCamera]:
    found: list[FoundCamera] = []
    taken: set[str] = set()
    for camera in cameras:
        name = unique_slug(camera.name or camera.model or parse_url(camera.address).host, "camera", taken)
        taken.add(name)
        streams = tuple(replace(stream, name=f"{name}-{stream.role}") for stream in camera.streams)
        found.append(replace(camera, name=name, streams=streams))
    return found
