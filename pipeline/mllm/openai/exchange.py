"""One HTTP request and its reply, within bounds: connections, seconds, bytes."""

import asyncio
import logging
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from pipeline.errors import MLLMTimeout, MLLMUnavailable

CONNECTIONS = 16
"""Requests under way at once, of all streams; the others wait for their turn."""
CONNECT_S = 10.0
"""How long connecting may take."""
IDLE_S = 4.0
"""How long an unused connection is kept: less than the 5 s after which vLLM's server closes it."""
MAX_REPLY_BYTES = 1_048_576
"""Of a reply, as it arrives and once it is unpacked."""

_PLAIN = ("", "identity")
_PACKED = ("gzip", "x-gzip", "deflate")

# httpx logs whole URLs, which may hold a token; httpcore logs headers.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Received:
    """A reply: status, headers and the unpacked body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """The connections to one server, shown as `where`. `on_connect` is called for each new one that asks a question,
    `on_loss` when one breaks or cannot be made.

    `key` goes into a header and nowhere else. No redirect is followed: it would take the key along.
    """

    def __init__(
        self,
        url: str,
        where: str,
        *,
        key: str | None,
        timeout_s: float,
        shown: Callable[[str], str],
        on_connect: Callable[[], None],
        on_loss: Callable[[], None],
    ) -> None:
        self._url, self._where, self._timeout_s = url.rstrip("/"), where, timeout_s
        self._shown, self._on_connect, self._on_loss = shown, on_connect, on_loss
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._client = httpx.AsyncClient(
            headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S)),
            limits=httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=IDLE_S),
            follow_redirects=False,
        )
        self._slots = asyncio.Semaphore(CONNECTIONS)

    async def __call__(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Received:
        """Raises MLLMTimeout, also for a reply that drips, and MLLMUnavailable for one that breaks or is too large."""
        if self._client.is_closed:
            raise MLLMUnavailable(f"the connection to {self._where} was closed here", sent=False)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._received(method, path, body, headers)
        except httpx.HTTPError as error:
            raise self._failure(error) from error
        except TimeoutError as error:
            raise MLLMTimeout(f"{self._where} does not answer within {self._timeout_s:g} seconds") from error

    async def close(self) -> None:
        """Close every connection. May be repeated."""
        await self._client.aclose()

    async def _received(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Received:
        trace = {"trace": self._traced} if method == "POST" else {}
        async with (
            self._slots,
            self._client.stream(method, self._url + path, content=body, headers=headers, extensions=trace) as reply,
        ):
            read = bytearray()
            async for piece in reply.aiter_raw():
                read += piece
                self._check_size(len(read))
            return Received(reply.status_code, reply.headers, self._unpacked(bytes(read), reply.headers))

    def _unpacked(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The body without its one encoding: a small one may hide gigabytes, in one layer or in many."""
        encoding = headers.get("Content-Encoding", "").strip().lower()
        if encoding in _PLAIN or not body:
            return body
        if encoding not in _PACKED:
            raise MLLMUnavailable(
                f"{self._where} answers in the encoding {self._shown(encoding)!r}, which it was not asked for;"
                " expected none, or gzip"
            )
        try:
            plain = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, MAX_REPLY_BYTES + 1)
        except zlib.error as error:
            raise MLLMUnavailable(f"{self._where} answers with what is no {encoding} ({error})") from error
        self._check_size(len(plain))
        return plain

    def _check_size(self, count: int) -> None:
        if count > MAX_REPLY_BYTES:
            raise MLLMUnavailable(f"{self._where} answers with more than {MAX_REPLY_BYTES} bytes")

    def _failure(self, error: httpx.HTTPError) -> MLLMUnavailable:
        """The error that stands for a failed exchange. `raise ... from` keeps the cause, which holds no header."""
        unconnected = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        lost = unconnected or isinstance(error, httpx.NetworkError | httpx.ProtocolError)
        if lost:
            self._on_loss()
        if isinstance(error, httpx.TimeoutException):
            limit_s = min(self._timeout_s, CONNECT_S) if unconnected else self._timeout_s
            doing = "take a connection" if unconnected else "answer"
            return MLLMTimeout(f"{self._where} does not {doing} within {limit_s:g} seconds", sent=not unconnected)
        reason = self._shown(f"{type(error).__name__}: {error}")
        what = "cannot be reached" if unconnected else "broke off"
        return MLLMUnavailable(f"{self._where} {what} ({reason})", sent=not unconnected)

    async def _traced(self, event: str, _: Mapping[str, object]) -> None:
        if event == "connection.connect_tcp.complete":
            self._on_connect()


def unreachable(error: MLLMUnavailable) -> bool:
    """True for the error of a connection that could not be made."""
    return isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)


def broke_off(error: MLLMUnavailable) -> bool:
    """True for the error of a connection that broke while the server worked."""
    return error.sent and isinstance(error.__cause__, httpx.NetworkError | httpx.ProtocolError)
