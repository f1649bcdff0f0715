"""Parts that screens share: adding, saving without overwriting others, pausing, what is refused, faults by field."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Request, Response

from pipeline.page.calls import PageRefused, call
from pipeline.page.render import go, text
from pipeline.registry.desired import SECTIONS
from pipeline.registry.entry import Kind

Show = Callable[[Mapping[str, Any] | None, Mapping[str, Any] | None, int], Awaitable[Response]]
"""Shows a form again: the entry as it is now, the problem, the status."""
WARNED_S = 60
"""How long a browser keeps the warnings of an edit for the screen that it is sent to."""


def errors_of(problem: Mapping[str, Any] | None) -> dict[str, str]:
    """The errors of a problem, by field."""
    return {one["field"]: one["detail"] for one in problem.get("errors", ())} if problem else {}


def go_warning(request: Request, then: str, edited: Mapping[str, Any]) -> Response:
    """Send the browser on to the screen of an entry that was edited, with the warnings of the API's answer: in a cookie
    of that edit alone, which no link can forge."""
    response = go(request, then)
    if warnings := edited.get("warnings"):
        kept = urlsafe_b64encode("\n".join(warnings).encode()).decode()
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
        response.set_cookie(
            _warned(edited), kept, max_age=WARNED_S, path=None, secure=secure, httponly=True, samesite="lax"
        )
    return response


def warnings_of_edit(request: Request, entry: Mapping[str, Any]) -> list[str]:
    """The warnings with which the last edit of an entry was answered, where this browser made it a moment ago."""
    try:
        return urlsafe_b64decode(request.cookies.get(_warned(entry), "")).decode().splitlines()
    except ValueError:  # a cookie that is not ours
        return []


def _warned(entry: Mapping[str, Any]) -> str:
    return f"resadapt_warned_{entry['slug']}_{entry['revision']}"


async def done(request: Request, method: str, path: str, then: str, body: Mapping[str, Any] | None = None) -> Response:
    """Change something by the API, and go on to a screen. Raises PageRefused where it is refused."""
    reply = await call(request, method, path, body=body)
    if not reply.ok:
        raise PageRefused(reply)
    return go(request, then)


async def added_or_shown(
    request: Request,
    kind: Kind,
    spec: Mapping[str, Any],
    form: Mapping[str, str],
    then: Callable[[str], str],
    show: Show,
) -> Response:
    """Add an entry and go to the screen that `then` names for its slug; else show the form again, with what was
    typed."""
    body = {**spec, "slug": form["slug"]} if form.get("slug") else spec
    reply = await call(request, "POST", f"/v1/{SECTIONS[kind]}", body=body)
    if reply.ok:
        return go_warning(request, then(reply.body["slug"]), reply.body)
    return await show(None, reply.body, reply.status)


async def saved_or_shown(
    request: Request,
    kind: Kind,
    slug: str,
    spec: Mapping[str, Any],
    form: Mapping[str, str],
    then: str,
    show: Show,
) -> Response:
    """Put an entry if it is still at the revision of the form; else show the form again, with what was typed, and what
    somebody else has made of it. A session that has ended costs nothing that was typed either."""
    path = f"/v1/{SECTIONS[kind]}/{slug}"
    revision = form.get("revision", "")
    reply = await call(request, "PUT", path, body=spec, headers={"If-Match": f'"{revision}"'} if revision else {})
    if reply.ok:
        return go_warning(request, then, reply.body)
    now = await call(request, "GET", path)
    present = now.body if now.ok else None
    problem = dict(reply.body)
    if reply.status == 401:
        problem["detail"] = text("form.session_ended")
    if reply.status == 412 and present is not None:
        was = {name: value for name, value in present["spec"].items() if spec.get(name) != value}
        was |= {name: None for name in spec if name not in present["spec"]}
        problem["theirs"] = was
    return await show(present, problem, reply.status)


async def set_paused(request: Request, section: str, slug: str, action: str) -> Response:
    """Pause or resume an entry."""
    verb = "pause" if action == "pause" else "resume"
    return await done(request, "POST", f"/v1/{section}/{slug}/{verb}", f"/{section}/{slug}?said={verb}d")


def polygons_of(said: str) -> object:
    """The polygons of a field; what is no JSON stays as it is, for the API to refuse."""
    try:
        return json.loads(said or "{}")
    except ValueError:
        return said


def merging(wanted: object, present: object) -> object:
    """A value as a merge patch makes it of what is there: null takes away the names that are no longer wanted."""
    if not isinstance(wanted, Mapping) or not isinstance(present, Mapping):
        return wanted
    return {**dict.fromkeys(name for name in present if name not in wanted), **wanted}
