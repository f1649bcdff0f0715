"""An ONVIF camera asked for what it is and which streams it has: SOAP over HTTP, as much of it as that needs.

Sources: ONVIF Core, Device and Media services; WS-Security UsernameToken Profile 1.0. The libraries for it load all of
ONVIF's service descriptions, and bound neither a reply nor where it leads; needed here are six requests.
"""

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from xml.sax.saxutils import escape, quoteattr

import httpx

from pipeline.clock import Clock
from pipeline.errors import ConfigError, SourceRefused, SourceUnavailable
from pipeline.sources.onvif_xml import (
    MAX_BYTES,
    Tree,
    every,
    local,
    number_of,
    parse_xml,
    text_of,
    whole_text_of,
)
from pipeline.sources.policy import AddressPolicy, reach_of
from pipeline.urls import Url, parse_url

REQUEST_S = 5.0
"""How long a device may take over one request."""
MAX_PROFILES = 16
"""Profiles of a camera that are asked for their streams."""
MAX_URL = 1024

_DEVICE = "http://www.onvif.org/ver10/device/wsdl"
_MEDIA = "http://www.onvif.org/ver10/media/wsdl"
_MEDIA2 = "http://www.onvif.org/ver20/media/wsdl"
_SCHEMA = "http://www.onvif.org/ver10/schema"
_WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-"
_REFUSED = frozenset({"NotAuthorized", "FailedAuthentication", "FailedCheck", "InvalidSecurity", "OperationProhibited"})


@dataclass(frozen=True, slots=True)
class CameraLogin:
    """The login for a camera. The password is sent as a digest only."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FoundStream:
    """A stream of a camera: its name, what it is (`main`, `sub`, `sub-2` by its size), and its URL without a login."""

    name: str
    role: str
    codec: str
    width: int
    height: int
    fps: int
    url: str


@dataclass(frozen=True, slots=True)
class FoundCamera:
    """A camera that was found: where it is asked, what it says it is, its streams by size, and what went wrong."""

    name: str
    address: str
    manufacturer: str = ""
    model: str = ""
    firmware: str = ""
    serial: str = ""
    streams: tuple[FoundStream, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """A media profile: its token, name, codec, size in pixels and frames per second (0: not said)."""

    token: str
    name: str
    codec: str
    width: int
    height: int
    fps: int


class OnvifCamera:
    """The services of one device, asked one request after the other.

    A device is believed about itself only: where it names a service at another host, its own is asked instead, and a
    stream may be nowhere that is more private than the device. Methods raise SourceUnavailable, and SourceRefused for a
    login that it refuses: it is not asked again with that.
    """

    def __init__(self, address: str, login: CameraLogin | None, clock: Clock, client: httpx.AsyncClient) -> None:
        self.device = parse_url(address)
        self._login = login
        self._clock = clock
        self._client = client
        self._ahead_s = 0.0

    async def read(self) -> tuple[dict[str, str], list[tuple[Profile, str]], list[str]]:
        """The device's description of itself, its profiles with their stream URLs, and the faults of other profiles."""
        await self._read_clock()
        about = await self._device_information()
        media, wsdl = await self._media()
        profiles = _profiles(await self._call(media, f"<GetProfiles xmlns={quoteattr(wsdl)}{_types(wsdl)}", wsdl))
        found, wrong = [], []
        for profile in profiles:
            try:
                found.append((profile, await self._stream_url(media, wsdl, profile)))
            except SourceRefused:
                raise
            except SourceUnavailable as error:
                wrong.append(str(error))
        return about, found, wrong

    async def _read_clock(self) -> None:
        """Measure how far its clock is ahead of ours, since it refuses a login that is too old."""
        try:
            reply = await self._call(self.device, f"<GetSystemDateAndTime xmlns={quoteattr(_DEVICE)}/>", _DEVICE, False)
        except SourceRefused:
            return  # some want a login even for this
        parts = [number_of(reply, "UTCDateTime", *path) for path in _CLOCK]
        try:
            self._ahead_s = (datetime(*parts, tzinfo=UTC) - self._clock.now()).total_seconds()  # type: ignore[misc, arg-type]
        except ValueError:
            self._ahead_s = 0.0

    async def _device_information(self) -> dict[str, str]:
        reply = await self._call(self.device, f"<GetDeviceInformation xmlns={quoteattr(_DEVICE)}/>", _DEVICE)
        names = {
            "manufacturer": "Manufacturer",
            "model": "Model",
            "firmware": "FirmwareVersion",
            "serial": "SerialNumber",
        }
        return {name: text_of(reply, "GetDeviceInformationResponse", key) for name, key in names.items()}

    async def _media(self) -> tuple[Url, str]:
        """The address of its media service, and the namespace that identifies which of the two versions it is."""
        try:
            reply = await self._call(
                self.device,
                f"<GetServices xmlns={quoteattr(_DEVICE)}><IncludeCapability>false</IncludeCapability></GetServices>",
                _DEVICE,
            )
            services = {text_of(one, "Namespace"): whole_text_of(one, "XAddr") for one in every(reply, "Service")}
        except SourceRefused:
            raise
        except SourceUnavailable:
            services = {}
        for wsdl in (_MEDIA, _MEDIA2):
            if address := services.get(wsdl):
                return self._own(address), wsdl
        body = f"<GetCapabilities xmlns={quoteattr(_DEVICE)}><Category>Media</Category></GetCapabilities>"
        address = whole_text_of(await self._call(self.device, body, _DEVICE), "Media", "XAddr")
        if not address:
            raise SourceUnavailable("it names no media service; it may be no camera")
        return self._own(address), _MEDIA

    async def _stream_url(self, media: Url, wsdl: str, profile: Profile) -> str:
        token = escape(profile.token)
        if wsdl == _MEDIA2:
            body = (
                f"<GetStreamUri xmlns={quoteattr(wsdl)}><Protocol>RTSP</Protocol>"
                f"<ProfileToken>{token}</ProfileToken></GetStreamUri>"
            )
        else:
            body = (
                f"<GetStreamUri xmlns={quoteattr(wsdl)}><StreamSetup>"
                f"<Stream xmlns={quoteattr(_SCHEMA)}>RTP-Unicast</Stream>"
                f"<Transport xmlns={quoteattr(_SCHEMA)}><Protocol>RTSP</Protocol></Transport></StreamSetup>"
                f"<ProfileToken>{token}</ProfileToken></GetStreamUri>"
            )
        reply = await self._call(media, body, wsdl)
        return stream_url(whole_text_of(reply, "GetStreamUriResponse", "MediaUri", "Uri")
                          or whole_text_of(reply, "GetStreamUriResponse", "Uri"), self.device)  # fmt: skip

    def _own(self, address: str) -> Url:
        return own_service(address, self.device)

    async def _call(self, where: Url, body: str, wsdl: str, with_login: bool = True) -> Tree:
        login = self._login if with_login else None
        header = "" if login is None else _security(login, self._clock.now() + timedelta(seconds=self._ahead_s))
        content = _ENVELOPE.format(header=header, body=body).encode()
        status, reply = await self._post(where, content, wsdl, None)
        if status == 401 and login is not None:
            status, reply = await self._post(where, content, wsdl, httpx.DigestAuth(login.user, login.password))
        if status == 401:
            raise _refused(login)
        try:
            tree = parse_xml(reply)
        except ValueError as error:
            raise SourceUnavailable(f"its reply ({status}) cannot be read: {error}") from None
        fault = next(every(tree, "Fault"), None)
        if fault is not None or status >= 400:
            _raise_fault(fault, status, login)
        return tree

    async def _post(self, where: Url, content: bytes, wsdl: str, auth: httpx.Auth | None) -> tuple[int, bytes]:
        headers = {
            "Content-Type": f'application/soap+xml; charset=utf-8; action="{wsdl}"',
            "Accept-Encoding": "identity",
        }
        size, pieces = 0, []
        try:
            async with self._client.stream("POST", where.text, content=content, headers=headers, auth=auth) as reply:
                async for piece in reply.aiter_raw():  # what is packed is not unpacked
                    size += len(piece)
                    if size > MAX_BYTES:
                        raise SourceUnavailable(f"its reply is larger than {MAX_BYTES // 1024} KiB")
                    pieces.append(piece)
                return reply.status_code, b"".join(pieces)
        except httpx.HTTPError as error:
            raise SourceUnavailable(f"it cannot be asked: {str(error) or type(error).__name__}") from error


_CLOCK = (
    ("Date", "Year"),
    ("Date", "Month"),
    ("Date", "Day"),
    ("Time", "Hour"),
    ("Time", "Minute"),
    ("Time", "Second"),
)
_ENVELOPE = (
    '<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope">'
    "<s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
)


def own_service(address: str, device: Url) -> Url:
    """A service that a device names, at the device itself. Raises SourceUnavailable for what is no such address."""
    try:
        parts = parse_url(address[:MAX_URL])
    except ConfigError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or len(address) > MAX_URL:
        raise SourceUnavailable("it names a service that is at no HTTP address")
    host = f"[{device.host}]" if ":" in device.host else device.host
    return Url(parts.scheme, None, None, host if parts.port is None else f"{host}:{parts.port}", parts.rest)


def stream_url(text: str, device: Url) -> str:
    """The URL of a stream that a device names, without a login. Raises SourceUnavailable for one that is none, or that
    leads to where a stranger may not send us."""
    try:
        parts = parse_url(text) if len(text) <= MAX_URL and text.isprintable() else None
    except ConfigError:
        parts = None
    if parts is None or parts.scheme not in ("rtsp", "rtsps", "http", "https") or not parts.host:
        raise SourceUnavailable("it names a stream whose URL cannot be read")
    if parts.host != device.host and not _may_lead(parts.host, device.host):
        raise SourceUnavailable(
            f"it names a stream at {parts.host[:80]!r}, which is not its own address; if it is meant, attach it by hand"
        )
    return parts.anonymous.text


def _may_lead(host: str, device_host: str) -> bool:
    """True if a device may refer to another host: an address that is no more private than its own."""
    try:
        target, origin = ip_address(host.partition("%")[0]), ip_address(device_host.partition("%")[0])
    except ValueError:
        return False
    return bool(AddressPolicy().permitted([target], reach_of(origin)))


def by_size(profiles: Sequence[tuple[Profile, str]]) -> list[tuple[str, Profile, str]]:
    """Profiles with their roles, the largest picture first: `main`, `sub`, `sub-2`, ..."""
    order = sorted(profiles, key=lambda one: (-one[0].width * one[0].height, -one[0].fps))
    distinct = list({url: (profile, url) for profile, url in reversed(order)}.values())[::-1]
    return [(_role(place), profile, url) for place, (profile, url) in enumerate(distinct)]


def _role(place: int) -> str:
    return ("main", "sub")[place] if place < 2 else f"sub-{place}"


def _types(wsdl: str) -> str:
    return "><Type>VideoEncoder</Type></GetProfiles>" if wsdl == _MEDIA2 else "/>"


def _profiles(reply: Tree) -> list[Profile]:
    """The profiles of a reply that have a video encoder, as the first or the second media service writes them."""
    found = []
    for one in every(reply, "Profiles"):
        encoders = [*every(one, "VideoEncoderConfiguration"), *every(one, "Configurations", "VideoEncoder")]
        if not encoders or not one.get("token"):
            continue
        encoder = encoders[0]
        size = [number_of(encoder, "Resolution", name) for name in ("Width", "Height")]
        codec = text_of(encoder, "Encoding").lower()
        fps = number_of(encoder, "RateControl", "FrameRateLimit")
        found.append(Profile(str(one.get("token")), text_of(one, "Name"), codec, size[0], size[1], fps))
    return found[:MAX_PROFILES]


def _security(login: CameraLogin, now: datetime) -> str:
    nonce, created = secrets.token_bytes(16), now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha1(nonce + created.encode() + login.password.encode(), usedforsecurity=False).digest()
    encoded = [base64.b64encode(one).decode() for one in (digest, nonce)]
    return (
        f'<w:Security s:mustUnderstand="1" xmlns:w="{_WSSE}wssecurity-secext-1.0.xsd"><w:UsernameToken>'
        f"<w:Username>{escape(login.user)}</w:Username>"
        f'<w:Password Type="{_WSSE}username-token-profile-1.0#PasswordDigest">{encoded[0]}</w:Password>'
        f'<w:Nonce EncodingType="{_WSSE}soap-message-security-1.0#Base64Binary">{encoded[1]}</w:Nonce>'
        f'<u:Created xmlns:u="{_WSSE}wssecurity-utility-1.0.xsd">{created}</u:Created>'
        "</w:UsernameToken></w:Security>"
    )


def _raise_fault(fault: Tree | None, status: int, login: CameraLogin | None) -> None:
    codes = {(one.text or "").rpartition(":")[2].strip() for one in fault.iter()} if fault is not None else set()
    if codes & _REFUSED:
        raise _refused(login)
    words = "" if fault is None else text_of(fault, "Reason", "Text") or text_of(fault, "faultstring")
    named = "" if fault is None else ", ".join(sorted({local(one) for one in fault.iter()} & {"Receiver", "Sender"}))
    raise SourceUnavailable(f"it refuses a request with {status}: {words or named or 'without a reason'}")


def _refused(login: CameraLogin | None) -> SourceRefused:
    if login is None:
        return SourceRefused("it asks for a user name and a password; give --user and --password '${CAMERA_PASSWORD}'")
    return SourceRefused("it refuses the user name or the password")
