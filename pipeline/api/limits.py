"""Bounds of what clients may ask, before anything is read: hosts, bodies, rates, connections."""

import ipaddress
import re
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.api.problems import Problem, answer
from pipeline.clock import Clock

_CLIENTS = 4096
_LIMIT_OF = {400: "host", 413: "body", 429: "rate"}
_FREE = ("/health/", "/static/")
"""Paths that are answered however busy the rest is."""
_RECORDING = re.compile(r"/v1/watches/[^/]+/(?:recording|wordings)")
ADMITTED = "resadapt.admitted"
"""Of a scope: it is part of a request that was let in already."""


def is_loopback(host: str) -> bool:
    """True if a host, a name or an address, is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


class Buckets:
    """A token bucket for each of many clients; the one that was longest idle is forgotten first."""

    def __init__(self, clock: Clock, rate_per_s: float, burst: int) -> None:
        self._clock = clock
        self._rate = rate_per_s
        self._burst = float(burst)
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str, take: float = 1.0) -> float:
        """Take from a client's bucket and return 0, or take nothing and return how long it has to wait."""
        now_s = self._clock.monotonic_s()
        level, at_s = self._levels.pop(client, (self._burst, now_s))
        level = min(self._burst, level + self._rate * (now_s - at_s))
        enough = level >= max(take, 1.0)
        self._levels[client] = level - take if enough else level, now_s
        while len(self._levels) > _CLIENTS:
            self._levels.popitem(last=False)
        return 0.0 if enough else max((max(take, 1.0) - level) / self._rate, 1.0)


class Failures:
    """Wrong keys by address: ten at once, then one in six seconds."""

    def __init__(self, clock: Clock) -> None:
        self._buckets = Buckets(clock, 1 / 6, 10)

    def wait_s(self, client: str) -> float:
        """Seconds until an address may try again; 0 if it may now."""
        return self._buckets.wait_s(client, take=0.0)

    def note(self, client: str) -> None:
        """One more that was wrong."""
        self._buckets.wait_s(client)


class RequestLimits:
    """Stands before the app (ASGI) and keeps the bounds of an ApiConfig.

    Where the API is on loopback, only loopback names are taken as Host: a page of the internet that points its own name
    here is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        clock: Clock,
        max_body: int,
        max_recording: int,
        rate_per_s: float,
        burst: int,
        local_hosts: bool,
        refused: Callable[[str], None],
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._max_recording = max_recording
        self._buckets = Buckets(clock, rate_per_s, burst)
        self._local_hosts = local_hosts
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is within bounds, answer the rest with a problem."""
        if scope["type"] != "http" or scope.get(ADMITTED):
            await self._app(scope, receive, send)
            return
        problem = self._refusal(scope)
        if problem is None:
            await self._app(scope, _BoundedBody(receive, self._most(scope)).receive, send)
            return
        self._refused(_LIMIT_OF[problem.body.status])
        await answer(problem)(scope, receive, send)

    def _most(self, scope: Scope) -> int:
        """The most bytes of a request's body."""
        return self._max_recording if _RECORDING.fullmatch(scope["path"]) else self._max_body

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = {name: value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1")
        if self._local_hosts and not is_loopback(_without_port(host)):
            return Problem(
                400,
                "not understood",
                f"Host: expected a name of this machine, such as localhost, not {host[:80]!r}",
                "Host",
            )
        length = headers.get(b"content-length", b"0").decode("latin-1")
        if length.isdigit() and int(length) > (most := self._most(scope)):
            return _too_large(most)
        if scope["path"].startswith(_FREE):
            return None
        client = (scope.get("client") or ("unknown",))[0]
        if wait_s := self._buckets.wait_s(client):
            return Problem(
                429,
                "too many requests",
                f"too many requests; try again in {wait_s:.0f} s",
                headers={"Retry-After": f"{wait_s:.0f}"},
            )
        return None


class _BoundedBody:
    """A body that ends with a Problem once it is larger than allowed, whatever its header said."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._left = most
        self._most = most

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise _too_large(self._most)
        return message


def _too_large(most: int) -> Problem:
    return Problem(413, "too large", f"the body is larger than {most} bytes, the most that is taken")


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].strip("[")
    return host.partition(":")[0]
