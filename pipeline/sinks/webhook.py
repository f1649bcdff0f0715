"""Events to an HTTP endpoint: batches of structured CloudEvents, signed with a shared secret.

Sources: CloudEvents HTTP protocol binding 1.0.2 (batched content mode).
"""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

import httpx

from pipeline.clock import Clock
from pipeline.errors import ConfigError, SinkUnavailable
from pipeline.redact import remember
from pipeline.sinks.cloudevents import BATCH_TYPE, encode_batch
from pipeline.types import Event
from pipeline.urls import Url, parse_url
from pipeline.waiting import retry_after_s

SIGNATURE_HEADER = "X-Resadapt-Signature"
TIMEOUT_S = 10.0
"""How long connecting, sending or the next piece of the reply may take."""
EXCHANGE_S = 30.0
"""How long a request may take in all, until the receiver has said whether it takes the events."""
REST_S = 2.0
"""How long the rest of a reply, which says nothing more, is read so that its connection can be used again."""
POST_EVENTS = 100
"""Events in one request."""

_TRY_LATER = (408, 425, 429)
_REPLY_BYTES = 65_536

# httpx logs whole URLs, which may hold a token.
logging.getLogger("httpx").setLevel(logging.WARNING)


def sign(secret: str, body: bytes, now: datetime) -> str:
    """The signature header of a request sent at `now`: `t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">`."""
    at = int(now.timestamp())
    return f"t={at},v1={_digest(secret, str(at), body)}"


def verify_signature(secret: str, header: str, body: bytes, now: datetime, tolerance_s: float = 300.0) -> bool:
    """True if `header` signs `body` with `secret`, at most `tolerance_s` seconds away from `now`: for receivers.

    Check before parsing the body, on its raw bytes. Several `v1` may stand in a header; one right one is enough. A
    request that was recorded can be repeated within the tolerance: drop events whose id is known.
    """
    fields = [field.strip().partition("=") for field in header.split(",")]
    times = [value for name, _, value in fields if name == "t"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit()) or len(times[0]) > 12:
        return False
    if abs(now.timestamp() - int(times[0])) > tolerance_s:
        return False
    right = _digest(secret, times[0], body).encode()
    return any([hmac.compare_digest(value.encode(), right) for name, _, value in fields if name == "v1"])


def _digest(secret: str, at: str, body: bytes) -> str:
    return hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()


class WebhookSink:
    """POSTs to `url`. A reply of 2xx acknowledges; no redirect is followed.

    Anything else is SinkUnavailable, after the receiver's Retry-After where it gives one. Refusals that another try
    will not change (4xx) are tried again all the same, for events must not get lost; their message says so. Only the
    host of `url` is ever shown: the rest may hold a token.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        secret: str | None = None,
        name: str | None = None,
        timeout_s: float = TIMEOUT_S,
        exchange_s: float = EXCHANGE_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        parts = _parsed(url)
        self._where = f"{parts.scheme}://{parts.authority}"
        self.name = name or f"webhook:{self._where}"
        self._url = parts.text
        self._clock = clock
        self._secret = secret
        self._exchange_s = exchange_s
        self._client = httpx.AsyncClient(timeout=timeout_s, follow_redirects=False, transport=transport)

    async def publish(self, events: Sequence[Event]) -> None:
        for start in range(0, len(events), POST_EVENTS):
            await self._post(encode_batch(events[start : start + POST_EVENTS]))

    async def check(self) -> str:
        """Ask with OPTIONS, which sends no event; any reply at all shows that the receiver can be reached."""
        status, _ = await self._request("OPTIONS", b"", {})
        return f"events go to {self._where}, which answers ({status} to OPTIONS)"

    async def close(self) -> None:
        await self._client.aclose()

    async def _post(self, body: bytes) -> None:
        headers = {"Content-Type": BATCH_TYPE}
        if self._secret:
            headers[SIGNATURE_HEADER] = sign(self._secret, body, self._clock.now())
        status, reply = await self._request("POST", body, headers)
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise SinkUnavailable(f"{self._where} answers {status}, a redirect; give the address it leads to")
        pause_s = retry_after_s(reply.get("Retry-After"), self._clock.now())
        if 400 <= status < 500 and status not in _TRY_LATER:
            raise SinkUnavailable(
                f"{self._where} refuses the events with {status}; they wait until it takes them", pause_s
            )
        raise SinkUnavailable(f"{self._where} cannot take events now: {status}", pause_s)

    async def _request(self, method: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str]]:
        try:
            async with (
                asyncio.timeout(self._exchange_s) as deadline,
                self._client.stream(method, self._url, content=body, headers=headers) as reply,
            ):
                deadline.reschedule(None)  # the answer is there
                with suppress(httpx.HTTPError, TimeoutError):
                    await _read_rest(reply)
                return reply.status_code, reply.headers
        except TimeoutError as error:
            raise SinkUnavailable(f"{self._where} gave no answer within {self._exchange_s:g} s") from error
        except httpx.HTTPError as error:
            reason = type(error).__name__ if not str(error) else f"{type(error).__name__}: {error}"
            raise SinkUnavailable(
                f"{self._where} cannot be reached: {reason.replace(self._url, self._where)}"
            ) from error


async def _read_rest(reply: httpx.Response) -> None:
    """Read a reply to its end, if that comes soon."""
    size = 0
    async with asyncio.timeout(REST_S):
        async for piece in reply.aiter_raw():
            size += len(piece)
            if size > _REPLY_BYTES:
                return


def _parsed(url: str) -> Url:
    """The parts of an HTTP address. Raises ConfigError for what is none."""
    try:
        parts = parse_url(url)
        httpx.URL(parts.text)
    except (ConfigError, httpx.InvalidURL) as error:
        raise ConfigError(f"the URL of a webhook cannot be read; expected https://host/path: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ConfigError(
            f"the URL of a webhook begins with {parts.scheme or 'no scheme'!r}; expected https://host/path"
        )
    if parts.password is not None:
        remember(parts.password)
    return parts
