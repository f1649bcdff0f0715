"""The page's only door to the service: it asks the API, as whoever looks at it, inside the process."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from starlette.types import Message

from pipeline.api.limits import ADMITTED

_PASSED_ON = (b"cookie", b"host", b"origin", b"sec-fetch-site", b"user-agent", b"x-forwarded-proto", b"authorization")


@dataclass(frozen=True, slots=True)
class ApiReply:
    """A reply of the API: `body` is its JSON, a mapping where the answer has one."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True if the request succeeded."""
        return self.status < 400


class PageRefused(Exception):
    """The API refused what a screen needs; `reply` says why."""

    def __init__(self, reply: ApiReply) -> None:
        super().__init__(reply.body.get("detail", ""))
        self.reply = reply


async def call(
    request: Request,
    method: str,
    path: str,
    query: Mapping[str, object] | None = None,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ApiReply:
    """Ask the API as the browser that asks for a screen."""
    content = b"" if body is None else json.dumps(body).encode()
    sent = [(name, value) for name, value in request.headers.raw if name in _PASSED_ON]
    sent += [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    sent += [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    given = {name: value for name, value in (query or {}).items() if value not in (None, "")}
    scope = {
        **{name: request.scope.get(name) for name in ("asgi", "http_version", "scheme", "client", "server")},
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": urlencode(given, doseq=True).encode(),
        "headers": sent,
        ADMITTED: True,
    }
    answered = _InnerRequest(content)
    await request.app(scope, answered.receive, answered.send)
    return answered.reply()


async def ask(request: Request, path: str, **query: object) -> dict[str, Any]:
    """Read something of the API. Raises PageRefused where it is refused."""
    reply = await call(request, "GET", path, query)
    if not reply.ok:
        raise PageRefused(reply)
    return reply.body


class _InnerRequest:
    """Both ends of one request within the process."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._status = 500
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    async def receive(self) -> Message:
        return {"type": "http.request", "body": self._content, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        elif message["type"] == "http.response.body":
            self._body.append(message.get("body", b""))

    def reply(self) -> ApiReply:
        """The reply to the call."""
        body = json.loads(b"".join(self._body) or b"{}")
        return ApiReply(self._status, body if isinstance(body, dict) else {"items": body}, self._headers)
