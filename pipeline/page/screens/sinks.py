"""Sinks: adding one, editing it, removing it. How they stand is on the screen of the service."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from pipeline.api.views import spec_schema
from pipeline.page.calls import ask
from pipeline.page.forms import form_groups, sent, spec_of
from pipeline.page.render import page
from pipeline.page.screens.entries import added_or_shown, done, errors_of, saved_or_shown
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
    return await added_or_shown(
        request, "sink", spec, form, lambda _slug: "/system?said=added_sink",
        lambda *args: _form(request, form.get("slug", ""), spec, *args),
    )  # fmt: skip


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
    return await saved_or_shown(
        request, "sink", slug, spec, form, "/system?said=saved", lambda *args: _form(request, slug, spec, *args)
    )


@router.post("/sinks/{slug}/remove")
async def remove(request: Request, slug: str) -> Response:
    """Send nothing there any more."""
    return await done(request, "DELETE", f"/v1/sinks/{slug}", "/system?said=removed")


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
