"""Logging in with a key, and out."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from pipeline.page.calls import ApiReply, call
from pipeline.page.forms import sent
from pipeline.page.render import HEADERS, go, html

router = APIRouter()


@router.get("/login")
async def show_login(request: Request) -> Response:
    """The form, or the page itself for who needs none."""
    session = await call(request, "GET", "/v1/session")
    if session.ok:
        return go(request, _next(request.query_params.get("next", "/")))
    return _form(request, session if session.status != 401 else None, 200)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Begin a session."""
    form = await sent(request)
    reply = await call(request, "POST", "/v1/session", body={"key": form.get("key", "")})
    if not reply.ok:
        return _form(request, reply, reply.status)
    response = go(request, _next(form.get("next", "/")))
    response.headers["set-cookie"] = reply.headers["set-cookie"]
    return response


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """End it."""
    reply = await call(request, "DELETE", "/v1/session")
    response = go(request, "/login")
    if "set-cookie" in reply.headers:
        response.headers["set-cookie"] = reply.headers["set-cookie"]
    return response


def _form(request: Request, reply: ApiReply | None, status: int) -> Response:
    problem = None if reply is None else reply.body
    after = _next(request.query_params.get("next", "/"))
    return HTMLResponse(html(request, "login.html", None, problem=problem, after=after), status, HEADERS)


def _next(path: str) -> str:
    """A path of this page, whatever was asked for."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
