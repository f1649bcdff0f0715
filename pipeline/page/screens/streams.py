"""Streams: the wall, one stream, attaching, editing, zones."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from pipeline.api.views import spec_schema
from pipeline.page.calls import ask, call
from pipeline.page.forms import form_groups, sent, spec_of
from pipeline.page.render import go, page, page_as_it_comes
from pipeline.page.screens.entries import (
    added_or_shown,
    done,
    errors_of,
    merging,
    polygons_of,
    saved_or_shown,
    set_paused,
    warnings_of_edit,
)

router = APIRouter()

GROUPS = (
    ("basics", ("url", "display_name", "site", "tags", "live_url")),
    (
        "budget",
        (
            "budget.rate_tokens_per_s",
            "budget.burst_hops",
            "budget.burst_tokens",
            "priority",
            "sample_fps",
            "hop_s",
            "crop",
        ),
    ),
    (
        "connection",
        (
            "rtsp_transport",
            "realtime",
            "stall_s",
            "first_picture_s",
            "open_timeout_s",
            "on_corrupt",
            "decode",
            "hwaccel",
        ),
    ),
)
AREAS = ("zones", "masks")
"""Fields of a stream that are drawn on its picture."""
SEEN_FIRST = 24
"""Tiles that a large screen shows at first: they come whole, the others with name and state, and whole once they are
seen."""
STATES = ("up", "connecting", "starting", "lost", "failed", "refused", "paused", "ended")


@router.get("/")
async def wall(request: Request) -> Response:
    """All streams at a glance."""

    async def values() -> Mapping[str, Any]:
        return _wall((await ask(request, "/v1/streams", limit=1000))["items"], request.query_params)

    return await page_as_it_comes(request, "wall.html", "tiles.html", values)


def _wall(found: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> Mapping[str, Any]:
    """The streams that were found as the wall shows them, by the filter of a query."""
    tag, state, node = (query.get(name, "") for name in ("tag", "state", "node"))
    tags = Counter(one for stream in found for one in stream["spec"].get("tags") or ())
    states = Counter(stream["status"]["state"] for stream in found)
    nodes = Counter(stream["status"]["node"] for stream in found if stream["status"]["node"])
    shown = [
        stream
        for stream in found
        if (not tag or tag in (stream["spec"].get("tags") or ()))
        and (not state or stream["status"]["state"] == state)
        and (not node or stream["status"]["node"] == node)
    ]
    return {
        "streams": shown, "count": len(found), "tag": tag, "state": state, "node": node,
        "tags": sorted(tags.items()), "nodes": sorted(nodes.items()), "seen_first": SEEN_FIRST,
        "states": [(one, states[one]) for one in STATES if states[one]],
    }  # fmt: skip


@router.get("/attach")
async def show_attach(request: Request) -> Response:
    """The form of a new stream."""
    return await _form(request, "", {}, None)


@router.post("/attach")
async def attach(request: Request) -> Response:
    """Look at it first, or attach it."""
    form = await sent(request)
    spec = spec_of(stream_schema(), form)
    if form.get("action") == "probe":
        reply = await call(request, "POST", "/v1/streams/probe", body=spec)
        return await _form(request, form.get("slug", ""), spec, None, reply.body, 200 if reply.ok else reply.status)
    return await added_or_shown(
        request, "stream", spec, form, lambda slug: f"/streams/{slug}?said=attached",
        lambda *args: _form(request, form.get("slug", ""), spec, *args),
    )  # fmt: skip


@router.get("/streams/{slug}")
async def show_stream(request: Request, slug: str) -> Response:
    """One stream: its picture, what was allocated, what was answered."""
    stream = await ask(request, f"/v1/streams/{slug}")
    watches = (await ask(request, "/v1/watches", limit=1000))["items"]
    events = await ask(request, "/v1/events", stream=slug, limit=12)
    edits = await ask(request, f"/v1/streams/{slug}/history", limit=8)
    just_edited = request.query_params.get("said") in ("attached", "saved")
    return await page(
        request,
        "stream.html",
        stream=stream,
        watches=[watch for watch in watches if slug in watch["streams"]],
        events=events["items"],
        edits=edits["items"],
        warnings=warnings_of_edit(request, stream) if just_edited else [],
    )


@router.get("/streams/{slug}/edit")
async def show_edit(request: Request, slug: str) -> Response:
    """Its form."""
    stream = await ask(request, f"/v1/streams/{slug}")
    return await _form(request, slug, stream["spec"], stream)


@router.post("/streams/{slug}/edit")
async def edit(request: Request, slug: str) -> Response:
    """Save it, if nobody was faster."""
    form = await sent(request)
    spec = spec_of(stream_schema(), form)
    return await saved_or_shown(
        request, "stream", slug, spec, form, f"/streams/{slug}?said=saved",
        lambda *args: _form(request, slug, spec, *args),
    )  # fmt: skip


@router.get("/streams/{slug}/areas")
async def show_areas(request: Request, slug: str) -> Response:
    """Zones and masks, on its picture."""
    return await _areas(request, slug, None, {})


@router.post("/streams/{slug}/areas")
async def save_areas(request: Request, slug: str) -> Response:
    """Save them."""
    form = await sent(request)
    stream = await ask(request, f"/v1/streams/{slug}")
    patch = {name: merging(polygons_of(form[name]), stream["spec"].get(name)) for name in AREAS if name in form}
    headers = {"If-Match": f'"{form.get("revision", "")}"'}
    reply = await call(request, "PATCH", f"/v1/streams/{slug}", body=patch, headers=headers)
    if reply.ok:
        return go(request, f"/streams/{slug}?said=saved")
    return await _areas(request, slug, reply.body, patch)


@router.post("/streams/{slug}/{action}")
async def act(request: Request, slug: str, action: str) -> Response:
    """Pause, resume, detach."""
    if action == "detach":
        return await done(request, "DELETE", f"/v1/streams/{slug}", "/?said=detached")
    return await set_paused(request, "streams", slug, action)


def stream_schema() -> dict[str, Any]:
    """The schema of the form of a stream: what is drawn has a screen of its own."""
    schema = spec_schema("stream")
    return {**schema, "properties": {name: one for name, one in schema["properties"].items() if name not in AREAS}}


async def _form(
    request: Request,
    slug: str,
    spec: Mapping[str, Any],
    present: Mapping[str, Any] | None,
    answer: Mapping[str, Any] | None = None,
    status: int = 200,
) -> Response:
    """`answer` is a problem, or what a probe found."""
    problem = answer if answer and status >= 400 else None
    groups = form_groups("stream", stream_schema(), spec, errors_of(problem), GROUPS)
    found = answer if answer and not problem else None
    return await page(
        request,
        "stream_form.html",
        status,
        slug=slug,
        groups=groups,
        present=present,
        problem=problem,
        found=found,
        slug_error=errors_of(problem).get("slug", ""),
    )


async def _areas(request: Request, slug: str, problem: Mapping[str, Any] | None, drawn: Mapping[str, Any]) -> Response:
    stream = await ask(request, f"/v1/streams/{slug}")
    values = {name: drawn.get(name, stream["spec"].get(name) or {}) for name in AREAS}
    status = problem["status"] if problem else 200
    return await page(request, "areas.html", status, stream=stream, values=values, problem=problem)
