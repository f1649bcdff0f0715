"""Watches: all of them, and one with its form, its scores and a try."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request, Response

from pipeline.api.entries import desk_of
from pipeline.api.views import spec_schema
from pipeline.page.calls import PageRefused, ask, call
from pipeline.page.forms import form_groups, sent, spec_of
from pipeline.page.render import go, page
from pipeline.page.screens.entries import added_or_shown, done, errors_of, saved_or_shown, set_paused

router = APIRouter()

GROUPS = (
    ("basics", ("question", "display_name", "streams", "zone", "count", "choice")),
    ("rule", ("open_at", "clear_at", "confirm", "hold_s", "absent_s", "cooldown_s")),
    ("asking", ("every_s", "priority", "schedule")),
    ("events", ("severity", "escalate", "emit", "max_per_hour", "update_every_s", "describe", "profiles")),
)
_DAY = timedelta(days=1)
SHOWN_TESTS = 6
"""Results of tests of wordings that are shown, the newest."""


@router.get("/watches")
async def all_watches(request: Request) -> Response:
    """All of them, how they stand, and what they did within a day."""
    watches = (await ask(request, "/v1/watches", limit=1000))["items"]
    streams = {one["slug"]: one["status"] for one in (await ask(request, "/v1/streams", limit=1000))["items"]}
    since = (desk_of(request).clock.now() - _DAY).isoformat()
    counts = _by_watch((await ask(request, "/v1/events/counts", since=since))["items"])
    tokens = {
        watch["slug"]: round(sum(_tokens_a_day(streams[slug]) for slug in watch["streams"] if slug in streams))
        for watch in watches
    }
    return await page(request, "watches.html", watches=watches, tokens=tokens, counts=counts)


def _tokens_a_day(status: Mapping[str, Any]) -> float:
    """Vision tokens that a stream spends in a day of its time, at its rate so far."""
    return status["spent"] / status["stream_s"] * _DAY.total_seconds() if status["stream_s"] > 0 else 0.0


@router.get("/add-watch")
async def show_new(request: Request) -> Response:
    """The form of a new watch."""
    stream = request.query_params.get("stream")
    return await _form(request, "", {"streams": [stream]} if stream else {}, None)


@router.post("/add-watch")
async def add(request: Request) -> Response:
    """Add it."""
    form = await sent(request)
    spec = spec_of(spec_schema("watch"), form)
    return await added_or_shown(
        request, "watch", spec, form, lambda slug: f"/watches/{slug}?said=added",
        lambda *args: _form(request, form.get("slug", ""), spec, *args),
    )  # fmt: skip


@router.get("/watches/{slug}")
async def show_watch(request: Request, slug: str) -> Response:
    """One watch."""
    watch = await ask(request, f"/v1/watches/{slug}")
    return await _form(request, slug, watch["spec"], watch)


@router.post("/watches/{slug}")
async def save(request: Request, slug: str) -> Response:
    """Save it, if nobody was faster."""
    form = await sent(request)
    spec = spec_of(spec_schema("watch"), form)
    return await saved_or_shown(
        request, "watch", slug, spec, form, f"/watches/{slug}?said=saved",
        lambda *args: _form(request, slug, spec, *args),
    )  # fmt: skip


@router.post("/watches/{slug}/missed")
async def mark_missed(request: Request, slug: str) -> Response:
    """Label an interval in which it should have been open. A time without a zone is UTC."""
    form = await sent(request)
    body = {"watch": slug, **{name: form.get(name, "") for name in ("stream", "start", "end", "note")}}
    return await done(request, "POST", "/v1/labels", f"/watches/{slug}?said=marked", body)


@router.post("/watches/{slug}/missed/{number}/withdraw")
async def withdraw_missed(request: Request, slug: str, number: int) -> Response:
    """Withdraw such a label."""
    return await done(request, "DELETE", f"/v1/labels/{number}", f"/watches/{slug}?said=unmarked")


@router.post("/watches/{slug}/wording")
async def use_wording(request: Request, slug: str) -> Response:
    """Give it a wording that did better in a test, with the settings that suit it."""
    form = await sent(request)
    better = (await ask(request, f"/v1/watches/{slug}/wordings"))["better"]
    wanted = next((one for one in better if one["figures"]["question"] == form.get("question")), None)
    if wanted is None:
        return go(request, f"/watches/{slug}?said=wording_gone#wordings")
    headers = {"If-Match": f'"{form.get("revision", "")}"'}
    reply = await call(request, "PATCH", f"/v1/watches/{slug}", body=wanted["changes"], headers=headers)
    if not reply.ok:
        raise PageRefused(reply)
    return go(request, f"/watches/{slug}?said=saved")


@router.post("/watches/{slug}/{action}")
async def act(request: Request, slug: str, action: str) -> Response:
    """Pause, resume, remove."""
    if action == "remove":
        return await done(request, "DELETE", f"/v1/watches/{slug}", "/watches?said=removed")
    return await set_paused(request, "watches", slug, action)


async def _form(
    request: Request,
    slug: str,
    spec: Mapping[str, Any],
    present: Mapping[str, Any] | None,
    problem: Mapping[str, Any] | None = None,
    status: int = 200,
) -> Response:
    signed_in = status != 401
    streams = (await ask(request, "/v1/streams", limit=1000))["items"] if signed_in else []
    tags = {tag for stream in streams for tag in stream["spec"].get("tags") or ()}
    events = (await ask(request, "/v1/events", watch=slug, limit=10))["items"] if present else []
    missed = (await ask(request, "/v1/labels", watch=slug, kind="missed", limit=10))["items"] if present else []
    tests = await ask(request, f"/v1/watches/{slug}/wordings") if present and signed_in else {"items": [], "better": []}
    values = {
        "slug": slug,
        "tests": tests["items"][:SHOWN_TESTS],
        "better": {(one["at"], one["figures"]["question"]) for one in tests["better"]},
        "groups": form_groups("watch", spec_schema("watch"), spec, errors_of(problem), GROUPS),
        "present": present,
        "problem": problem,
        "events": events,
        "selectors": [stream["slug"] for stream in streams] + [f"tag:{tag}" for tag in sorted(tags)],
        "slug_error": errors_of(problem).get("slug", ""),
        "missed": missed,
        "now": desk_of(request).clock.now().strftime("%Y-%m-%dT%H:%M"),
    }
    return await page(request, "watch.html", status, **values)


def _by_watch(counts: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """For each watch, the number of times it opened, and of those the number of false alarms."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"opened": 0, "false": 0})
    for one in counts:
        if one["watch"] and one["type"] == "watch.opened":
            found[one["watch"]]["opened"] += one["count"]
            found[one["watch"]]["false"] += one["count"] if one["label"] == "false" else 0
    return found
