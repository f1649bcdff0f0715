"""Routes of the evidence that events rest on: the bundle, its pictures and clip, the explanation, the replay, the
hold."""

import asyncio
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from pydantic import BaseModel, JsonValue

from pipeline.api.auth import Caller, allowed
from pipeline.api.desk import Desk
from pipeline.api.entries import AtDesk, Viewer
from pipeline.api.events import Analyst, Name, event_of
from pipeline.api.problems import RESPONSES, Problem, one_at_a_time
from pipeline.build import build_watch
from pipeline.core.selectors import selects
from pipeline.evidence.bundle import EvidenceDamaged
from pipeline.evidence.explain import Explanation, explain_event
from pipeline.evidence.hashes import model_of
from pipeline.evidence.page import page
from pipeline.evidence.past import moment_of, parse_moment
from pipeline.evidence.replay import replay
from pipeline.evidence.shelf import KeptEvidence, Shelf

router = APIRouter(prefix="/v1", tags=["evidence"], responses=RESPONSES)

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
FILE_HEADERS = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
Operator = Annotated[Caller, Depends(allowed("operator"))]


def _binary(kind: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}}, "description": "the file"}}


class FileView(BaseModel):
    """A file of the evidence, as it was written."""

    sha256: str
    bytes: int


class ScoreView(BaseModel):
    """One answer of the watch: stream seconds of its hop; a mass below 0.5 is `unknown`."""

    start_s: float
    end_s: float
    score: float
    mass: float
    relooked: bool


class SegmentView(FileView):
    """A segment as the model saw it: `/segments/{n}.png` has its frames one above the other. `aside`: of a second
    look."""

    n: int
    pts_s: list[float]
    height: int
    width: int
    tokens: int
    content_id: str
    aside: bool


class SnapshotView(FileView):
    """The newest frame of the decision, at native size: `/snapshot.jpg`."""

    pts_s: float
    captured_at: datetime
    clock: str
    height: int
    width: int


class ClipView(FileView):
    """Seconds of the stream as it came: `/clip.mp4`."""

    start_s: float
    end_s: float


class EvidenceView(BaseModel):
    """The evidence of one event. `whole`: all that the model saw is kept, so that it can be asked again. `clip_note` is
    the reason for a missing or shortened clip; `held_by` the person who holds the evidence; `bytes` the size of all its
    files. `zone` is what the watch is about and `crop` the part of the picture that the model was shown, as corners in
    shares of its width and height; null for all of it."""

    event: str
    type: str
    stream: str
    watch: str
    time: datetime
    held_by: str | None
    bytes: int
    question: str
    prompt: str
    score: ScoreView
    scores: list[ScoreView]
    rule: dict[str, JsonValue]
    model: dict[str, JsonValue]
    sizing: dict[str, JsonValue]
    tokens: dict[str, JsonValue]
    frames: list[tuple[float, float]]
    anchor_s: float
    whole: bool
    segments: list[SegmentView]
    snapshot: SnapshotView | None
    zone: list[tuple[float, float]] | None
    crop: list[tuple[float, float]] | None
    clip: ClipView | None
    clip_note: str
    version: str


class ExplanationView(BaseModel):
    """Why a watch fired, or did not, in words: `sentences` from top to bottom. `event`, `evidence` and its `segments`
    where there are some."""

    title: str
    fired: bool
    stream: str
    watch: str | None
    question: str
    at: str
    sentences: list[str]
    rule: dict[str, JsonValue]
    scores: list[ScoreView]
    event: str | None
    type: str | None
    evidence: bool
    label: str | None
    segments: list[SegmentView] = []


class SaidView(BaseModel):
    """An answer and who gave it."""

    score: float
    mass: float
    verdict: str
    model: dict[str, JsonValue]
    value: str | None = None


class ReplayView(BaseModel):
    """The model's answers to the same prompt then and now. `same`: the verdict is equal, and the score but for
    rounding; `identical`: the score is equal to the last digit; `tokens` are the vision tokens it cost."""

    event: str
    question: str
    then: SaidView
    now: SaidView
    same: bool
    identical: bool
    same_model: bool
    tokens: int
    notes: list[str]


@router.get("/events/{event_id}/evidence", response_model=EvidenceView, operation_id="show_evidence")
def show_evidence(event_id: str, caller: Viewer, desk: AtDesk) -> EvidenceView:
    """The manifest of what is kept of an event."""
    event_of(event_id, caller, desk)
    return evidence_view(shelf_of(desk).of(event_id))


@router.get("/events/{event_id}/explain", response_model=ExplanationView, operation_id="explain_event")
def explain(event_id: str, caller: Viewer, desk: AtDesk) -> ExplanationView:
    """Why it was sent, in words."""
    return explanation_view(*_explained(event_id, caller, desk))


@router.get("/events/{event_id}/explain.html", response_class=HTMLResponse, operation_id="explain_event_page")
def explain_page(event_id: str, caller: Viewer, desk: AtDesk) -> HTMLResponse:
    """The same as a page that stands alone."""
    explanation, kept = _explained(event_id, caller, desk)
    return HTMLResponse(page(explanation, shelf_of(desk), kept, "clip.mp4"), headers=PAGE_HEADERS)


@router.get(
    "/events/{event_id}/snapshot.jpg", response_class=Response, responses=_binary("image/jpeg"),
    operation_id="evidence_snapshot",
)  # fmt: skip
def evidence_snapshot(event_id: str, caller: Viewer, desk: AtDesk) -> Response:
    """The newest frame of the decision, at its native size."""
    kept, shelf = _kept(event_id, caller, desk)
    return Response(shelf.snapshot(kept), media_type="image/jpeg", headers=FILE_HEADERS)


@router.get(
    "/events/{event_id}/segments/{number}.png", response_class=Response, responses=_binary("image/png"),
    operation_id="evidence_segment",
)  # fmt: skip
def evidence_segment(event_id: str, number: int, caller: Viewer, desk: AtDesk) -> Response:
    """A segment as the model saw it, its frames one above the other."""
    kept, shelf = _kept(event_id, caller, desk)
    return Response(shelf.segment(kept, number), media_type="image/png", headers=FILE_HEADERS)


@router.get(
    "/events/{event_id}/clip.mp4", response_class=Response, responses=_binary("video/mp4"), operation_id="evidence_clip"
)
def evidence_clip(event_id: str, caller: Viewer, desk: AtDesk) -> Response:
    """Seconds of the stream before and after the decision, as they came from the camera."""
    kept, shelf = _kept(event_id, caller, desk)
    path = shelf.clip_path(kept)
    if path is None:
        return Response(shelf.clip(kept), media_type="video/mp4", headers=FILE_HEADERS)
    return FileResponse(path, media_type="video/mp4", headers=FILE_HEADERS)  # players ask for parts


@router.post("/events/{event_id}/replay", response_model=ReplayView, operation_id="replay_event")
async def replay_event(event_id: str, request: Request, caller: Analyst, desk: AtDesk) -> ReplayView:
    """Ask the model again from the evidence, and compare. It costs the vision tokens of the whole context."""
    kept, shelf = await asyncio.to_thread(_kept, event_id, caller, desk)
    service = desk.reconciler.service
    runtime = service.runtime
    with beside_streams(request):
        found = await replay(
            shelf, kept, runtime.mllm, lambda: model_of(service.site.mllm, runtime.mllm.info), runtime.budget
        )
    return ReplayView.model_validate(asdict(found))


@router.put("/events/{event_id}/hold", response_model=EvidenceView, operation_id="hold_event")
def hold(event_id: str, caller: Operator, desk: AtDesk) -> EvidenceView:
    """Keep the event and its evidence whatever their age, until the hold is lifted."""
    return _held(event_id, caller, desk, caller.name)


@router.delete("/events/{event_id}/hold", response_model=EvidenceView, operation_id="release_event")
def release(event_id: str, caller: Operator, desk: AtDesk) -> EvidenceView:
    """Lift the hold."""
    return _held(event_id, caller, desk, None)


@router.get("/watches/{slug}/explain", response_model=ExplanationView, operation_id="explain_watch")
def explain_watch(
    slug: str,
    caller: Viewer,
    desk: AtDesk,
    at: Annotated[str, Query(max_length=40, description="UTC (ISO 8601), or seconds of stream.")],
    stream: Name = None,
) -> ExplanationView:
    """Why it fired, or did not, at a moment: from the answers kept. `stream` where it stands on several."""
    return explanation_view(_of_moment(slug, stream, at, caller, desk)[0])


@router.get("/watches/{slug}/explain.html", response_class=HTMLResponse, operation_id="explain_watch_page")
def explain_watch_page(
    slug: str,
    caller: Viewer,
    desk: AtDesk,
    at: Annotated[str, Query(max_length=40, description="UTC (ISO 8601), or seconds of stream.")],
    stream: Name = None,
) -> HTMLResponse:
    """The same as a page, with pictures where an event's evidence of that time is kept."""
    explanation, kept = _of_moment(slug, stream, at, caller, desk)
    return HTMLResponse(page(explanation, shelf_of(desk), kept), headers=PAGE_HEADERS)


def beside_streams(request: Request) -> AbstractContextManager[None]:
    """The right to ask the MLLM beside what streams ask, for one request at a time. Raises Problem 503 on entering
    while another has it."""
    return one_at_a_time(request.app.state.beside, "another event is being replayed, or a search asks the model")


def shelf_of(desk: Desk) -> Shelf:
    """The evidence of a service. Raises StoreUnavailable while it starts."""
    return Shelf(desk.registry.database, desk.reconciler.service.evidence_files)


def evidence_view(kept: KeptEvidence) -> EvidenceView:
    """A bundle as the API shows it."""
    bundle, manifest = kept.bundle, kept.manifest
    snapshot = (
        SnapshotView.model_validate(asdict(bundle.snapshot) | _file(kept, "snapshot")) if bundle.snapshot else None
    )
    clip = None
    if bundle.clip:
        clip = ClipView(start_s=bundle.clip.start_s, end_s=bundle.clip.end_s, **_file(kept, "clip"))
    return EvidenceView(
        event=bundle.event_id, type=bundle.type, stream=bundle.stream, watch=bundle.watch, time=manifest.time,
        held_by=manifest.held_by, bytes=manifest.bytes, question=bundle.question, prompt=bundle.prompt,
        score=ScoreView.model_validate(asdict(bundle.score)),
        scores=[ScoreView.model_validate(asdict(one)) for one in bundle.scores],
        rule=dict(bundle.rule), model=asdict(bundle.model), sizing=asdict(bundle.sizing), tokens=asdict(bundle.tokens),
        frames=list(bundle.frames), anchor_s=bundle.anchor_s, whole=bundle.whole, segments=_segments(kept),
        snapshot=snapshot, zone=list(bundle.zone.polygon) if bundle.zone else None,
        crop=list(bundle.crop.corners) if bundle.crop else None, clip=clip,
        clip_note=bundle.clip_note, version=bundle.version,
    )  # fmt: skip


def explanation_view(explanation: Explanation, kept: KeptEvidence | None = None) -> ExplanationView:
    """An explanation as the API shows it, with the segments of an event's evidence."""
    view = ExplanationView.model_validate(asdict(explanation))
    return view.model_copy(update={"segments": _segments(kept)}) if kept else view


def _segments(kept: KeptEvidence) -> list[SegmentView]:
    bundle = kept.bundle
    notes = [(note, False) for note in bundle.segments] + [(note, True) for note in bundle.aside]
    return [
        SegmentView(
            n=n, pts_s=list(note.pts_s), height=note.height, width=note.width, tokens=note.tokens,
            content_id=note.content_id, aside=aside, **_file(kept, note.file),
        )
        for n, (note, aside) in enumerate(notes)
    ]  # fmt: skip


def _file(kept: KeptEvidence, name: str) -> dict[str, Any]:
    found = kept.manifest.files.get(name)
    if found is None:
        raise EvidenceDamaged(f"the manifest of {kept.bundle.event_id} lacks its {name}")
    return {"sha256": found.sha256, "bytes": found.bytes}


def _explained(event_id: str, caller: Caller, desk: Desk) -> tuple[Explanation, KeptEvidence | None]:
    stored = event_of(event_id, caller, desk)
    kept = shelf_of(desk).find(event_id)
    missing = "" if kept else "No evidence of it is kept: it was written without, or has gone by age or room."
    return explain_event(stored.event, kept.bundle if kept else None, stored.label, missing), kept


def _kept(event_id: str, caller: Caller, desk: Desk) -> tuple[KeptEvidence, Shelf]:
    event_of(event_id, caller, desk)
    shelf = shelf_of(desk)
    return shelf.of(event_id), shelf


def _held(event_id: str, caller: Caller, desk: Desk, by: str | None) -> EvidenceView:
    kept, shelf = _kept(event_id, caller, desk)
    shelf.manifests.hold(kept.bundle.event_id, by)
    return evidence_view(shelf.of(event_id))


def _of_moment(
    slug: str, stream: str | None, at: str, caller: Caller, desk: Desk
) -> tuple[Explanation, KeptEvidence | None]:
    look = desk.look(caller)
    look.entry("watch", slug)
    watch = desk.reconciler.service.site.watches.get(slug)
    if watch is None:
        raise Problem(503, "not available now", f"the watch {slug!r} is not applied", headers={"Retry-After": "1"})
    standing = [one.slug for one in look.entries("stream") if selects(frozenset(watch.streams), one.slug, one.tags)]
    if not stream and len(standing) != 1:
        few = ", ".join(standing[:10]) or "none"
        raise Problem(422, "not accepted", f"stream: the watch {slug} stands on {few}; name one", "stream")
    wanted = stream or standing[0]
    if wanted not in standing:
        raise Problem(422, "not accepted", f"stream: the watch {slug} does not stand on {wanted[:80]!r}", "stream")
    history = desk.reconciler.service.store.history
    return moment_of(history, shelf_of(desk), build_watch(slug, watch), wanted, parse_moment(at))
