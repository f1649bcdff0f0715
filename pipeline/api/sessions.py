"""Logging in: a key proves who somebody is once, and a cookie stands for it from then on."""

from datetime import datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from pipeline.api.auth import OPEN_NOTICE, Caller, Gate, require_same_site, session_cookie, session_token
from pipeline.api.entries import Viewer
from pipeline.api.problems import RESPONSES
from pipeline.registry.keys import Role
from pipeline.registry.sessions import SESSION_S, Sessions

router = APIRouter(prefix="/v1/session", tags=["session"], responses=RESPONSES)


class LoginBody(BaseModel):
    """A key, as `resadapt key create` shows it once."""

    model_config = ConfigDict(extra="forbid")
    key: str


class SessionView(BaseModel):
    """The caller's name and role, the tags of the streams it may see (none: all), and the time at which the session
    expires; `notice` is set where requests need no key."""

    name: str
    role: Role
    tags: list[str]
    expires_at: datetime | None = None
    notice: str | None = None


@router.post("", response_model=SessionView, operation_id="log_in")
def log_in(body: LoginBody, request: Request, response: Response) -> SessionView:
    """Begin a session: the answer's cookie stands for the key, below the path that was asked. Wrong keys are counted as
    everywhere."""
    require_same_site(request)
    gate: Gate = request.app.state.gate
    key = gate.prove(request, body.key.strip())
    sessions: Sessions = request.app.state.sessions()
    session, token = sessions.open(key)
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    response.set_cookie(
        session_cookie(request), token, max_age=SESSION_S, path=None, secure=secure, httponly=True, samesite="lax"
    )
    caller = Caller(f"key:{key.name}", key.role, key.tags)
    return _view(caller, session.expires_at, None)


@router.get("", response_model=SessionView, operation_id="show_session")
def show_session(request: Request, caller: Viewer) -> SessionView:
    """The caller's name and rights."""
    gate: Gate = request.app.state.gate
    session = gate.session(request)
    open_to_all = caller.name == "local" and gate.is_open()
    return _view(caller, session.expires_at if session else None, OPEN_NOTICE if open_to_all else None)


@router.delete("", status_code=204, operation_id="log_out")
def log_out(request: Request, response: Response) -> None:
    """End the session."""
    require_same_site(request)
    if token := session_token(request):
        sessions: Sessions = request.app.state.sessions()
        sessions.close(token)
    response.set_cookie(session_cookie(request), "", max_age=0, path=None, httponly=True, samesite="lax")


def _view(caller: Caller, expires_at: datetime | None, notice: str | None) -> SessionView:
    return SessionView(
        name=caller.name, role=caller.role, tags=sorted(caller.tags), expires_at=expires_at, notice=notice
    )
