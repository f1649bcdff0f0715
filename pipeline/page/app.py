"""The page of a service: screens, static files, and what is shown where the API refuses."""

from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import Response

from pipeline.page.calls import PageRefused, call
from pipeline.page.files import keep_files
from pipeline.page.render import compile_templates, fingerprint, go, html, sent_page
from pipeline.page.screens import api_calls, events, login, sinks, streams, system, watches


def install(app: FastAPI) -> None:
    """Add the page to an API."""
    compile_templates()
    for screen in (streams, watches, events, system, sinks, login, api_calls):
        app.include_router(screen.router, include_in_schema=False)
    app.mount(f"/static/{fingerprint()}", keep_files, name="static")
    app.add_exception_handler(PageRefused, _refused)


async def _refused(request: Request, error: Exception) -> Response:
    """The response to a refused request: the login page if a login is needed, else the reason and what to do."""
    assert isinstance(error, PageRefused)
    reply = error.reply
    if reply.status == 401:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        asked = quote(wanted) if request.method == "GET" else "/"
        return go(request, f"/login?next={asked}")
    session = await call(request, "GET", "/v1/session")
    who = session.body if session.ok else None
    return sent_page(request, html(request, "refused.html", who, problem=reply.body), reply.status)
