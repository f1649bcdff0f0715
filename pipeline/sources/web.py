"""HTTP as streams need it: the login on request only, redirects within the address policy, sockets that can be cut.

A name is looked up first, its addresses are judged, and the connection goes to one of those that passed, so that a name
cannot mean one host when it is judged and another when it is asked.
"""

import contextlib
import logging
import socket
import ssl
from collections.abc import Generator, Iterator
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urljoin

import httpx

from pipeline.errors import ConfigError, SourceRefused, SourceUnavailable
from pipeline.sources.policy import Address, AddressPolicy, Reach, reach_of
from pipeline.urls import Url, parse_url

log = logging.getLogger(__name__)
# httpx logs whole URLs, which may hold a token.
logging.getLogger("httpx").setLevel(logging.WARNING)

MAX_REDIRECTS = 8
MAX_CLIENTS = 16
"""Hosts to which connections are kept open; the one that was asked longest ago is dropped for the next."""
CHUNK_BYTES = 65_536

_REDIRECTS = (301, 302, 303, 307, 308)
_REFUSED = {
    401: "it refuses the user name or password (401)",
    403: "it forbids this to the user (403)",
    407: "its proxy asks for a password (407)",
    423: "it has locked the account (423)",
    429: "it is asked too often (429)",
}
_SAID = {404: "it has nothing at this path (404)", 410: "it has nothing at this path any more (410)"}


class Missing(SourceUnavailable):
    """The server answers, but not with what was asked for."""


class Resolver(Protocol):
    """Looks up a host's addresses. Raises OSError."""

    def __call__(self, host: str) -> tuple[Address, ...]: ...


def look_up(host: str) -> tuple[Address, ...]:
    """All addresses of a host, in the system's order of preference. Raises OSError for a name that is unknown."""
    with contextlib.suppress(ValueError):
        return (ip_address(host),)
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


class WebReply:
    """An answer whose body is read as it comes. `url` is where it was found, `reach` whom that host is for."""

    def __init__(self, response: httpx.Response, url: str, reach: Reach) -> None:
        self.url = url
        self.reach = reach
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._pieces = response.iter_bytes(CHUNK_BYTES) if self._is_packed else response.iter_raw()
        self._rest = b""

    @property
    def kind(self) -> str:
        """The content type without its parameters, in lower case."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def length(self) -> int | None:
        """Bytes of the whole, by the server's word."""
        total = str(self.headers.get("content-range", "")).rpartition("/")[2]
        size = total if total.isdigit() else str(self.headers.get("content-length", ""))
        return int(size) if size.isdigit() and len(size) < 20 and not self._is_packed else None

    @property
    def ranges(self) -> bool:
        """True if the server gives parts of it."""
        return self.status == 206 or str(self.headers.get("accept-ranges", "")).strip().lower() == "bytes"

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as soon as some are there; none at the end. Raises SourceUnavailable."""
        while not self._rest:
            try:
                self._rest = next(self._pieces)
            except StopIteration:
                return b""
            except (httpx.HTTPError, httpx.StreamError, OSError) as error:
                raise SourceUnavailable(_words(error)) from None
        given, self._rest = self._rest[:size], self._rest[size:]
        return given

    def read_all(self, limit: int) -> bytes:
        """The whole body. Raises SourceUnavailable where it is longer than `limit` bytes."""
        whole = bytearray()
        while piece := self.read(CHUNK_BYTES):
            whole += piece
            if len(whole) > limit:
                raise SourceUnavailable(f"it sends more than {limit} bytes where a short text belongs")
        return bytes(whole)

    def close(self) -> None:
        self._response.close()

    def cut(self) -> None:
        """End a read that is under way in another thread."""
        stream = self._response.extensions.get("network_stream")
        sock = stream.get_extra_info("socket") if stream is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @property
    def _is_packed(self) -> bool:
        return str(self.headers.get("content-encoding", "identity")).lower() not in ("", "identity")


class Web:
    """Asks HTTP servers on behalf of one stream, whose URL is `home`: only its host is given its login.

    `connect_s` and `read_s` bound connecting and each wait for the next bytes. Certificates are verified where the
    address is public; in a local network cameras sign their own.
    """

    def __init__(
        self, home: Url | None, policy: AddressPolicy, connect_s: float, read_s: float, resolve: Resolver = look_up
    ) -> None:
        self._home = home
        self._policy = policy
        self._timeout = httpx.Timeout(read_s, connect=connect_s)
        self._resolve = resolve
        self._login = _Login(home.user, home.password or "") if home is not None and home.user is not None else None
        self._clients: dict[tuple[str, bool], httpx.Client] = {}
        self._open: set[WebReply] = set()
        self._closed = False

    def get(self, url: str, origin: Reach | None, span: tuple[int, int | None] | None = None) -> WebReply:
        """Fetch `url`, following redirects; `origin` is the reach of the address that named it, None for a person.

        `span` asks for bytes `[first, end)`. Raises SourceUnavailable, of it SourceRefused for a login that does not
        do, and ConfigError for what can be no URL.
        """
        for _ in range(MAX_REDIRECTS):
            reply = self._ask(url, origin, span)
            location = reply.headers.get("location")
            if reply.status not in _REDIRECTS or not location:
                break
            self.forget(reply)
            url, origin = urljoin(url, location), reply.reach
        else:
            raise SourceUnavailable(f"it redirects more than {MAX_REDIRECTS} times")
        if reply.status in (200, 206):
            return reply
        self.forget(reply)
        raise _refusal(reply)

    def forget(self, reply: WebReply) -> None:
        """Close a reply."""
        self._open.discard(reply)
        reply.close()

    def interrupt(self) -> None:
        """End what is under way, for good. From any thread."""
        self._closed = True
        for reply in tuple(self._open):
            reply.cut()

    def close(self) -> None:
        """Free all connections. Call from the thread that reads."""
        self._closed = True
        for reply in tuple(self._open):
            self.forget(reply)
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _ask(self, url: str, origin: Reach | None, span: tuple[int, int | None] | None) -> WebReply:
        try:
            target = parse_url(url)
        except ConfigError:
            raise SourceUnavailable("it leads to what is no URL") from None
        if target.scheme not in ("http", "https") or not target.host:
            raise SourceUnavailable(f"it leads to {target.scheme}://, where only http and https are followed")
        failed: Exception | None = None
        for address in self._addresses(target, origin):
            if self._closed:
                break
            try:
                return self._send(target, address, span)
            except httpx.ConnectError as error:
                failed = error
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                raise SourceUnavailable(_words(error)) from None
        raise SourceUnavailable(_words(failed) if failed else "it was closed")

    def _addresses(self, target: Url, origin: Reach | None) -> tuple[Address, ...]:
        try:
            found = self._resolve(target.host)
        except (OSError, UnicodeError):
            raise SourceUnavailable("the host is unknown or the connection broke") from None
        permitted = self._policy.permitted(found, origin)
        if not permitted:
            raise SourceUnavailable(refusal(found, origin))
        return permitted

    def _send(self, target: Url, address: Address, span: tuple[int, int | None] | None) -> WebReply:
        host = f"[{address}]" if address.version == 6 else str(address)
        port = "" if target.port is None else f":{target.port}"
        path = target.rest.partition("#")[0]
        name = target.host if target.host.isascii() else target.host.encode("idna").decode()
        headers = {"Host": target.authority.replace(target.host, name)}
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{'' if span[1] is None else span[1] - 1}"
        client = self._client(target, address)
        request = client.build_request(
            "GET",
            f"{target.scheme}://{host}{port}{path if path.startswith('/') else f'/{path}'}",
            headers=headers,
            extensions={"sni_hostname": name},
        )
        response = client.send(request, auth=self._login_for(target), stream=True)
        reply = WebReply(response, target.anonymous.text, reach_of(address))
        self._open.add(reply)
        return reply

    def _client(self, target: Url, address: Address) -> httpx.Client:
        # One for each name: connections are pooled by address, and two names may share one.
        key = (f"{target.scheme}://{target.authority}", reach_of(address) == "public")
        client = self._clients.pop(key, None)
        if client is None:
            verify: ssl.SSLContext | bool = (
                ssl.create_default_context() if key[1] and target.scheme == "https" else False
            )
            headers = {"User-Agent": "resadapt-stream", "Accept": "*/*", "Accept-Encoding": "identity"}
            client = httpx.Client(timeout=self._timeout, verify=verify, trust_env=False, headers=headers)
        self._clients[key] = client
        while len(self._clients) > MAX_CLIENTS:
            self._clients.pop(next(iter(self._clients))).close()
        return client

    def _login_for(self, target: Url) -> httpx.Auth | None:
        home = self._home
        at_home = home is not None and (target.host, _port(target)) == (home.host, _port(home))
        return self._login if at_home and home is not None and target.scheme in (home.scheme, "https") else None


class _Login(httpx.Auth):
    """Basic or Digest, whichever the server asks for. Nothing is sent before it asks."""

    def __init__(self, user: str, password: str) -> None:
        self._basic = httpx.BasicAuth(user, password)
        self._digest = httpx.DigestAuth(user, password)
        self._asked: httpx.Auth | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._asked is None:
            response = yield request
            if response.status_code != 401:
                return
            asked = " ".join(response.headers.get_list("www-authenticate")).lower()
            self._asked = self._digest if "digest" in asked else self._basic
        yield from self._asked.auth_flow(request)


def refusal(found: tuple[Address, ...], origin: Reach | None) -> str:
    """Why none of a host's addresses may be asked, in words."""
    reaches = ", ".join(sorted({reach_of(address) for address in found}))
    if origin is None:
        return f"its address ({reaches}) is not allowed here; see allow_addresses and deny_addresses"
    return f"a {origin} server leads to a {reaches} address, which is not followed; allow it with allow_addresses"


def _refusal(reply: WebReply) -> SourceUnavailable:
    status = reply.status
    if status in _REFUSED:
        return SourceRefused(_REFUSED[status])
    return Missing(_SAID.get(status, f"it answers with the status {status}"))


def _port(url: Url) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _words(error: Exception) -> str:
    """The fault of a connection in words, without the server's words and the URL."""
    if isinstance(error, httpx.ConnectTimeout):
        return "it did not answer in time"
    if isinstance(error, httpx.TimeoutException):
        return "it went silent"
    if isinstance(error, httpx.ConnectError):
        cause = _root(error)
        if isinstance(cause, ssl.SSLError):
            return "its certificate is not trusted, or it speaks no TLS"
        if isinstance(cause, ConnectionRefusedError) or "refused" in str(error).lower():
            return "connection refused; is it on, and is the port right?"
        return "no connection; is it on, and is the address right?"
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return "it leads to what is no URL"
    return "the connection broke off"


def _root(error: BaseException) -> BaseException:
    seen: Iterator[BaseException | None] = iter((error.__cause__, error.__context__))
    below = next((one for one in seen if one is not None), None)
    return error if below is None else _root(below)
