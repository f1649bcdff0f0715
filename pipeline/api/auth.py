"""Authentication and authorization: the sender of a request, and what it may do."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request

from pipeline.api.limits import Failures
from pipeline.api.problems import Problem
from pipeline.registry.keys import ROLES, Key, Keys, Role
from pipeline.registry.sessions import Session, Sessions

OPEN_NOTICE = "no key is needed: the API listens on this machine only, and there is no key yet (resadapt key create)"


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: a name for the history, a role, and the tags of the streams it is for (none: all)."""

    name: str
    role: Role
    tags: frozenset[str] = frozenset()

    def may(self, role: Role) -> bool:
        """True if its role includes another."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def sees(self, tags: Collection[str]) -> bool:
        """True if it may see streams of these tags."""
        return not self.tags or bool(self.tags.intersection(tags))


class Gate:
    """Finds out who asks: by a key, by the session of a browser that has proved one, or, where there is no key yet and
    the API listens on loopback only, everybody there, who may do everything and is told so.

    What a browser sends by itself proves nothing about the page that made it ask: a change that comes from a page of
    another site is refused.
    """

    def __init__(
        self, keys: Callable[[], Keys], sessions: Callable[[], Sessions], on_loopback: bool, failures: Failures
    ) -> None:
        self._keys = keys
        self._sessions = sessions
        self._on_loopback = on_loopback
        self._failures = failures
        self._closed = False

    def is_open(self) -> bool:
        """True if requests need no key. Once one was, that stays so while the process runs."""
        if not self._on_loopback:
            return False
        self._closed = self._closed or self._keys().any_stands()
        return not self._closed

    def caller(self, request: Request) -> Caller:
        """The sender of a request, by its key. Raises Problem 401, 403 for a change that another site's page wants, or
        429 after too many wrong keys from one address."""
        given = _given(request)
        if given is not None:
            return _caller(self.prove(request, given))
        require_same_site(request)
        session = self.session(request)
        if session is not None:
            return _caller(session.key)
        if self.is_open():
            return Caller("local", "admin")
        if session_token(request):
            raise _unproven("the session has ended; log in again")
        raise _unproven("no key was given; send it as 'Authorization: Bearer KEY'")

    def prove(self, request: Request, given: str) -> Key:
        """The key that a text proves. Raises Problem 401 or 429."""
        client = request.client.host if request.client else "unknown"
        if wait_s := self._failures.wait_s(client):
            raise Problem(
                429,
                "too many requests",
                f"too many wrong keys; try again in {wait_s:.0f} s",
                headers={"Retry-After": f"{wait_s:.0f}"},
            )
        key = self._keys().verify(given)
        if key is None:
            self._failures.note(client)
            raise _unproven("the key is unknown, expired or revoked")
        return key

    def session(self, request: Request) -> Session | None:
        """The session of the browser that asks, if it has one that stands."""
        token = session_token(request)
        return self._sessions().of(token) if token else None


def session_cookie(request: Request) -> str:
    """The name of the cookie of a session: browsers do not keep those of two ports of a host apart by themselves."""
    server = request.scope.get("server") or ("", 0)
    return f"resadapt_session_{server[1]}"


def session_token(request: Request) -> str | None:
    """The session token in the browser's cookie, or None."""
    return request.cookies.get(session_cookie(request))


def require_same_site(request: Request) -> None:
    """Refuse, with Problem 403, a change that a browser asks for on behalf of another site's page."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    same = site in ("same-origin", "none") if site else not origin or urlsplit(origin).netloc == request.url.netloc
    if not same:
        raise Problem(403, "not allowed", "a page of another site may change nothing here", "Origin")


def _caller(key: Key) -> Caller:
    return Caller(f"key:{key.name}", key.role, key.tags)


def _given(request: Request) -> str | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return request.headers.get("x-api-key")


def _unproven(detail: str) -> Problem:
    return Problem(401, "no valid key", detail, headers={"WWW-Authenticate": "Bearer"})


def allowed(role: Role) -> Callable[[Request], Caller]:
    """A dependency: the caller, who may do what a role may. Raises Problem 401, 403 or 429."""

    def caller(request: Request) -> Caller:
        gate: Gate = request.app.state.gate
        found = gate.caller(request)
        if not found.may(role):
            raise Problem(403, "not allowed", f"this needs the role {role}; the key has {found.role}", "role")
        return found

    return caller
