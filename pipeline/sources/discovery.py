"""Cameras found on the network: WS-Discovery over UDP, and each that answers asked by ONVIF.

Sources: WS-Discovery (April 2005), ONVIF Core Specification, device discovery.
"""

import asyncio
import re
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from urllib.parse import unquote
from uuid import uuid4

import httpx

from pipeline.clock import Clock
from pipeline.errors import ConfigError, SourceUnavailable
from pipeline.redact import scrub
from pipeline.sources.onvif import REQUEST_S, CameraLogin, FoundCamera, FoundStream, OnvifCamera, by_size, own_service
from pipeline.sources.onvif_xml import every, parse_xml, whole_text_of
from pipeline.urls import parse_url

GROUP, PORT = "239.255.255.250", 3702
"""Where devices listen for a probe."""
LISTEN_S = 3.0
"""How long answers are awaited, if nothing else is said."""
CAMERA_S = 25.0
"""How long one camera may take over everything that it is asked."""
AT_ONCE = 16
"""Cameras asked at a time."""
MAX_CAMERAS = 256
"""Cameras that are listed; more answers are not looked at."""

_DATAGRAM = 16 * 1024
_NAME_SCOPE = "onvif://www.onvif.org/name/"
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s/:@\[\]]+)(?::(?P<port>\d{1,5}))?")
_PROBE = (
    '<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
    ' xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"'
    ' xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery"><s:Header>'
    "<a:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action><a:MessageID>uuid:{id}</a:MessageID>"
    "<a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To></s:Header><s:Body><d:Probe>"
    '<d:Types xmlns:n="http://www.onvif.org/ver10/network/wsdl">n:NetworkVideoTransmitter</d:Types>'
    "</d:Probe></s:Body></s:Envelope>"
)


@dataclass(frozen=True, slots=True)
class Answered:
    """A device that answered a probe: the address of its device service, and a name if it gave one."""

    address: str
    name: str = ""


Permits = Callable[[str], bool]
"""Whether the device at an address may be asked."""


async def discover(
    hosts: Sequence[str],
    login: CameraLogin | None,
    clock: Clock,
    *,
    listen_s: float = LISTEN_S,
    permits: Permits = lambda host: True,
    port: int = PORT,
) -> list[FoundCamera]:
    """Cameras at `hosts` (`HOST`, `HOST:PORT` or the URL of a device service), or where none are named, all that answer
    on the network. Raises ConfigError for a host that is none, and SourceUnavailable where nothing can be sent.

    `login` goes, as digests, to every camera that answers.
    """
    answered = await _answers(hosts, clock, listen_s, permits, port)
    limit = asyncio.Semaphore(AT_ONCE)
    # A camera may bring a certificate that nobody signed; of the login it gets digests only.
    async with httpx.AsyncClient(timeout=REQUEST_S, verify=False, trust_env=False, follow_redirects=False) as client:

        async def look(one: Answered) -> FoundCamera:
            async with limit:
                return await _look(one, login, clock, client)

        cameras = await asyncio.gather(*(look(one) for one in answered))
    return sorted(cameras, key=lambda one: one.address)


async def _look(one: Answered, login: CameraLogin | None, clock: Clock, client: httpx.AsyncClient) -> FoundCamera:
    found = FoundCamera(one.name, one.address)
    try:
        async with asyncio.timeout(CAMERA_S):
            about, profiles, wrong = await OnvifCamera(one.address, login, clock, client).read()
    except TimeoutError:
        return replace(found, trouble=f"it took longer than {CAMERA_S:g} s")
    except SourceUnavailable as error:
        return replace(found, trouble=scrub(str(error)))
    streams = tuple(
        FoundStream("", role, profile.codec, profile.width, profile.height, profile.fps, url)
        for role, profile, url in by_size(profiles)
    )
    trouble = "; ".join(dict.fromkeys(wrong)) or ("" if streams else "it has no stream")
    return replace(found, **about, streams=streams, trouble=scrub(trouble))


async def _answers(hosts: Sequence[str], clock: Clock, listen_s: float, permits: Permits, port: int) -> list[Answered]:
    if not hosts:
        heard = await _probe([(GROUP, port)], clock, listen_s)
        return [one for host, one in heard.items() if permits(host)]
    fixed = {host: _device_service(host) for host in hosts}
    asked = [host.strip("[]") for host, address in fixed.items() if address is None]
    heard = await _probe([(host, port) for host in asked], clock, listen_s) if asked else {}
    usual = [heard.get(host) or Answered(f"http://{_bracketed(host)}/onvif/device_service") for host in asked]
    return [Answered(address) for address in fixed.values() if address is not None] + usual


def _device_service(host: str) -> str | None:
    """The device service that a host names by a port or as a URL; None for a host that is to be probed first."""
    if host.startswith(("http://", "https://")) and (parts := parse_url(host)).host:
        return parts.anonymous.text
    match = _HOST.fullmatch(host)
    if match is None and _is_address(host):
        return None
    if match is None:
        raise ConfigError(
            f"the host {host[:80]!r} is none; expected HOST, HOST:PORT or http://HOST/onvif/device_service"
        )
    return f"http://{host}/onvif/device_service" if match["port"] else None


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        return bool(ip_address(host))
    return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _probe(targets: Sequence[tuple[str, int]], clock: Clock, listen_s: float) -> dict[str, Answered]:
    """The devices that answer a probe within `listen_s` seconds, by address."""
    loop = asyncio.get_running_loop()
    places = [place for host, port in targets for place in await _resolved(host, port)]
    heard = _Heard(str(uuid4()))
    transports, sockets = [], dict[int, socket.socket]()
    try:
        for family in {family for family, _ in places}:
            sockets[family] = _socket(family)
            opened = await loop.create_datagram_endpoint(lambda: heard, sock=sockets[family])
            transports.append(opened[0])
        sent = 0
        for _ in range(2):  # a datagram may be lost
            for family, asking in sockets.items():
                sent += _send(asking, [place for of, place in places if of == family], heard.question)
            await clock.sleep(min(0.3, listen_s / 2))
        if not sent and places:
            raise SourceUnavailable("no probe could be sent: this machine has no network that takes it; name a --host")
        await clock.sleep(max(listen_s - 0.6, 0.0))
    finally:
        for transport in transports:
            transport.close()
    return heard.answered


async def _resolved(host: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the host {host[:80]!r} cannot be found: {error}") from error
    return [(int(family), address) for family, _, _, _, address in found[:1]]


def _socket(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setblocking(False)
    if family == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
    return made


def _send(asking: socket.socket, places: Sequence[tuple[object, ...]], question: bytes) -> int:
    """Send to each place, to the group by every interface there is. How many datagrams went."""
    sent = 0
    for place in places:
        for index in _interfaces() if place[0] == GROUP else (None,):
            try:
                if index is not None:
                    by = struct.pack("=4s4sI", socket.inet_aton(GROUP), b"\0" * 4, index)
                    asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, by)
                asking.sendto(question, place)
            except OSError:
                continue  # an interface without an address, or that is down
            sent += 1
    return sent


def _interfaces() -> list[int]:
    with suppress(OSError):
        return [index for index, _ in socket.if_nameindex()]
    return [0]


class _Heard(asyncio.DatagramProtocol):
    """Collects the answers to one probe, each believed about the address that it came from."""

    def __init__(self, identity: str) -> None:
        self.question = _PROBE.format(id=identity).encode()
        self.answered: dict[str, Answered] = {}
        self._identity = identity

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        host = addr[0].partition("%")[0]
        if host in self.answered or len(self.answered) >= MAX_CAMERAS or len(data) > _DATAGRAM:
            return
        try:
            found = match_of(data, host, self._identity)
        except ValueError:
            return
        if found:
            self.answered[host] = found

    def error_received(self, exc: Exception) -> None:
        return


def match_of(data: bytes, host: str, identity: str) -> Answered | None:
    """The device of an answer that came from `host`; None for one to another probe. Raises ValueError."""
    tree = parse_xml(data)
    if identity not in whole_text_of(tree, "RelatesTo"):
        return None
    for match in every(tree, "ProbeMatch"):
        addresses = whole_text_of(match, "XAddrs").split()[:8]
        own = [one for one in addresses if _host_of(one) == host]
        device = parse_url(f"http://{_bracketed(host)}/")
        for address in own or addresses:
            with suppress(SourceUnavailable):
                return Answered(own_service(address, device).text, _name_of(whole_text_of(match, "Scopes")))
    return None


def _host_of(address: str) -> str:
    try:
        return parse_url(address).host
    except ConfigError:
        return ""


def _name_of(scopes: str) -> str:
    """The name that a device gives itself, if it does."""
    names = (unquote(one.removeprefix(_NAME_SCOPE)) for one in scopes.split() if one.startswith(_NAME_SCOPE))
    return next(("".join(one for one in name if one.isprintable())[:80] for name in names), "")
