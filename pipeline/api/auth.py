"""Who asks, and what they may do."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fastapi import Request

from pipeline.api.limits import Failures
from pipeline.api.problems import Problem
from pipeline.registry.keys import ROLES, Keys, Role

OPEN_NOTICE = "no key is needed: the API listens on this machine only, and there is no key yet (resadapt key create)"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a name for the history, a role, and the tags of the streams it is for (none: all)."""

    name: str
    role: Role
    tags: frozenset[str] = frozenset()

    def may(self, role: Role) -> bool:
        """Whether it may do what a role may."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def sees(self, tags: Collection[str]) -> bool:
        """Whether streams of these tags are for it."""
        return not self.tags or bool(self.tags.intersection(tags))


class Gate:
    """Finds out who asks. Where there is no key yet and the API listens on loopback only, everybody there may do
    everything, and is told so."""

    def __init__(self, keys: Callable[[], Keys], on_loopback: bool, failures: Failures) -> None:
        self._keys = keys
        self._on_loopback = on_loopback
        self._failures = failures
        self._closed = False

    def is_open(self) -> bool:
        """Whether no key is asked for. Once one was, that stays so while the process runs."""
        if not self._on_loopback:
            return False
        self._closed = self._closed or self._keys().any_stands()
        return not self._closed

    def caller(self, request: Request) -> Caller:
        """Who asks. Raises Problem 401, or 429 after too many wrong keys from one address."""
        client = request.client.host if request.client else "unknown"
        if wait_s := self._failures.wait_s(client):
            raise Problem(
                429,
                "too many requests",
                f"too many wrong keys; try again in {wait_s:.0f} s",
                headers={"Retry-After": f"{wait_s:.0f}"},
            )
        given = _given(request)
        if given is None:
            if self.is_open():
                return Caller("local", "admin")
            raise _unproven("no key was given; send it as 'Authorization: Bearer KEY'")
        key = self._keys().verify(given)
        if key is None:
            self._failures.note(client)
            raise _unproven("the key is unknown, expired or revoked")
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
