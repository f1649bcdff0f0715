"""Sinks: adding one, editing it, removing it. How they stand is on the screen of the service."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from pipeline.api.views import spec_schema
from pipeline.page.calls import PageRefused, ask, call
from pipeline.page.forms import form_groups, sent, spec_of
from pipeline.page.render import go, page
from pipeline.page.screens.entries import errors_of
from pipeline.redact import HIDDEN

router = APIRouter()

GROUPS = (
    ("basics", ("url",)),
    ("filter", ("filter",)),
    ("limit", ("rate_limit",)),
    ("webhook", ("secret", "signed")),
    ("messages", ("title", "body", "picture", "topic", "states", "discovery")),
    ("access", ("username", "password", "ca_file", "cert_file", "key_file", "check_hostname")),
    ("kafka", ("security",)),
)


@router.get("/add-sink")
async def show_new(request: Request) -> Response:
    """The form of a new sink."""
    return await _form(request, "", {}, None)


@router.post("/add-sink")
async def add(request: Request) -> Response:
    """Add it."""
    form = await sent(request)
    spec = spec_of(sink_schema(), form)
    body = spec | ({"slug": form["slug"]} if form.get("slug") else {})
    reply = await call(request, "POST", "/v1/sinks", body=body)
    if reply.ok:
        return go(request, "/system?said=added_sink")
    return await _form(request, form.get("slug", ""), spec, None, reply.body, reply.status)


@router.get("/sinks/{slug}")
async def show_sink(request: Request, slug: str) -> Response:
    """Its form. An address that is kept without what may be a secret has to be given again."""
    sink = await ask(request, f"/v1/sinks/{slug}")
    return await _form(request, slug, without_hidden(sink["spec"]), sink)


@router.post("/sinks/{slug}")
async def save(request: Request, slug: str) -> Response:
    """Save it, if nobody was faster."""
    form = await sent(request)
    spec = spec_of(sink_schema(), form)
    revision = form.get("revision", "")
    headers = {"If-Match": f'"{revision}"'} if revision else {}
    reply = await call(request, "PUT", f"/v1/sinks/{slug}", body=spec, headers=headers)
    if reply.ok:
        return go(request, "/system?said=saved")
    present = await call(request, "GET", f"/v1/sinks/{slug}")
    return await _form(request, slug, spec, present.body if present.ok else None, reply.body, reply.status)


@router.post("/sinks/{slug}/remove")
async def remove(request: Request, slug: str) -> Response:
    """Send nothing there any more."""
    reply = await call(request, "DELETE", f"/v1/sinks/{slug}")
    if not reply.ok:
        raise PageRefused(reply)
    return go(request, "/system?said=removed")


def sink_schema() -> dict[str, Any]:
    """The settings of all kinds of sinks as one form; what a kind has no use for, the API refuses by name."""
    properties: dict[str, Any] = {}
    for kind in spec_schema("sink")["oneOf"]:
        properties |= kind["properties"]
    return {"type": "object", "properties": properties, "required": ["url"]}


def without_hidden(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec without values of which something is hidden: what is shown of them is not what they are."""
    return {name: value for name, value in spec.items() if not (isinstance(value, str) and HIDDEN in value)}


async def _form(
    request: Request,
    slug: str,
    spec: Mapping[str, Any],
    present: Mapping[str, Any] | None,
    problem: Mapping[str, Any] | None = None,
    status: int = 200,
) -> Response:
    errors = errors_of(problem)
    return await page(
        request,
        "sink.html",
        status,
        slug=slug,
        groups=form_groups("sink", sink_schema(), spec, errors, GROUPS),
        present=present,
        hidden=present is not None and len(without_hidden(present["spec"])) < len(present["spec"]),
        problem=problem,
        slug_error=errors.get("slug", ""),
    )
