"""Events: the inbox and one event with what it rests on."""

from fastapi import APIRouter, Request, Response

from pipeline.page.calls import ask, call
from pipeline.page.forms import sent
from pipeline.page.render import page, texts
from pipeline.page.screens.entries import done

router = APIRouter()

LABELS = ("true", "false", "fixture")
SHOWN = 60


@router.get("/events")
async def inbox(request: Request) -> Response:
    """The newest events, filtered."""
    given = request.query_params
    wanted = {name: given.get(name, "") for name in ("stream", "watch", "type", "label", "cursor")}
    found = await ask(request, "/v1/events", limit=SHOWN, **wanted)
    streams = [one["slug"] for one in (await ask(request, "/v1/streams", limit=1000))["items"]]
    watches = [one["slug"] for one in (await ask(request, "/v1/watches", limit=1000))["items"]]
    types = [name.replace("_", ".", 1) for name in texts()["events"]["types"]]
    choices = {"stream": streams, "watch": watches, "type": types, "label": list(LABELS)}
    return await page(request, "events.html", events=found["items"], more=found["next"], wanted=wanted, choices=choices)


@router.get("/events/{event_id}")
async def show_event(request: Request, event_id: str) -> Response:
    """One event: when, what, why."""
    event = await ask(request, f"/v1/events/{event_id}")
    explained = await call(request, "GET", f"/v1/events/{event_id}/explain")
    evidence = await call(request, "GET", f"/v1/events/{event_id}/evidence") if event["watch"] else None
    return await page(
        request,
        "event.html",
        event=event,
        explained=explained.body if explained.ok else None,
        evidence=evidence.body if evidence and evidence.ok else None,
        labels=LABELS,
    )


@router.post("/events/{event_id}/label")
async def label(request: Request, event_id: str) -> Response:
    """Say whether it was true."""
    form = await sent(request)
    body = {"label": form.get("label") or None}
    return await _done(request, "PUT", event_id, "label", body)


@router.post("/events/{event_id}/hold")
async def hold(request: Request, event_id: str) -> Response:
    """Keep its evidence whatever its age."""
    return await _done(request, "PUT", event_id, "hold")


@router.post("/events/{event_id}/release")
async def release(request: Request, event_id: str) -> Response:
    """Let its evidence go when it is due."""
    return await _done(request, "DELETE", event_id, "hold")


async def _done(
    request: Request, method: str, event_id: str, what: str, body: dict[str, str | None] | None = None
) -> Response:
    return await done(request, method, f"/v1/events/{event_id}/{what}", f"/events/{event_id}", body)
