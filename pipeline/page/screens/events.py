"""Events: the inbox and one event with what it rests on."""

import re

from fastapi import APIRouter, Request, Response

from pipeline.page.calls import PageRefused, ask, call
from pipeline.page.forms import sent
from pipeline.page.render import go, page
from pipeline.page.screens.watches import has_route

router = APIRouter()

LABELS = ("true", "false", "fixture")
TYPES = ("watch.opened", "watch.cleared", "stream.lost", "stream.recovered", "stream.degraded")
SHOWN = 60
_SNAPSHOT = re.compile(r"/v1/events/\{[a-z_]+\}/snapshot\.jpg")
_CLIP = re.compile(r"/v1/events/\{[a-z_]+\}/clip\.mp4")
_REPLAY = re.compile(r"/v1/events/\{[a-z_]+\}/replay")
_EXPLAIN = re.compile(r"/v1/events/\{[a-z_]+\}/explain")


@router.get("/events")
async def inbox(request: Request) -> Response:
    """The newest events, filtered."""
    given = request.query_params
    wanted = {name: given.get(name, "") for name in ("stream", "watch", "type", "label", "cursor")}
    found = await ask(request, "/v1/events", limit=SHOWN, **wanted)
    streams = [one["slug"] for one in (await ask(request, "/v1/streams", limit=1000))["items"]]
    watches = [one["slug"] for one in (await ask(request, "/v1/watches", limit=1000))["items"]]
    choices = {"stream": streams, "watch": watches, "type": list(TYPES), "label": list(LABELS)}
    return await page(
        request,
        "events.html",
        events=found["items"],
        more=found["next"],
        wanted=wanted,
        choices=choices,
        pictured=has_route(request, _SNAPSHOT),
    )


@router.get("/events/{event_id}")
async def show_event(request: Request, event_id: str) -> Response:
    """One event: when, what, why."""
    event = await ask(request, f"/v1/events/{event_id}")
    explained = None
    if has_route(request, _EXPLAIN) and event["watch"]:
        reply = await call(request, "GET", f"/v1/events/{event_id}/explain")
        explained = reply.body if reply.ok else None
    watch = await call(request, "GET", f"/v1/watches/{event['watch']}") if event["watch"] else None
    return await page(
        request,
        "event.html",
        event=event,
        explained=explained,
        watch=watch.body if watch and watch.ok else None,
        pictured=has_route(request, _SNAPSHOT),
        filmed=has_route(request, _CLIP),
        replays=has_route(request, _REPLAY),
        labels=LABELS,
    )


@router.post("/events/{event_id}/label")
async def label(request: Request, event_id: str) -> Response:
    """Say whether it was true."""
    form = await sent(request)
    body = {"label": form.get("label") or None}
    reply = await call(request, "PUT", f"/v1/events/{event_id}/label", body=body)
    if not reply.ok:
        raise PageRefused(reply)
    return go(request, f"/events/{event_id}")
