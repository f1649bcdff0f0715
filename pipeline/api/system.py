"""The service itself: health, metrics, one screen of status, keys, the history of all edits, trying a sink."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict

from pipeline.api.auth import OPEN_NOTICE, Caller, Gate, allowed
from pipeline.api.desk import Desk
from pipeline.api.entries import AtDesk, Limit, Viewer, as_json
from pipeline.api.events import SeqCursor
from pipeline.api.nodes import nodes_of
from pipeline.api.problems import RESPONSES, Problem
from pipeline.api.views import EditView, EntryView, Page, SinkView, StreamView, WatchView, edit_view
from pipeline.errors import StoreUnavailable
from pipeline.redact import redact_mllm, scrub
from pipeline.registry.entry import Kind
from pipeline.registry.keys import Key, Keys, Role
from pipeline.service.health import Health, Trouble

router = APIRouter(responses=RESPONSES)
health = APIRouter(tags=["health"])

Admin = Annotated[Caller, Depends(allowed("admin"))]
Operator = Annotated[Caller, Depends(allowed("operator"))]
Send = Annotated[bool, Query(description="Also deliver one event of the type sink.test.")]


class TroubleView(BaseModel):
    """One part of the service that does not do its work now, and why."""

    what: str
    reason: str


class ServiceOverview(BaseModel):
    """One screen: what runs, and how. `alarms` are what is wrong with the service itself for long, `notice` is what an
    operator should know now; `troubles` are for those who see all streams; `in_fleet` if streams run on nodes."""

    version: str
    in_fleet: bool
    mllm: str
    allocator: str
    site_file: str | None
    edits: int
    applied: int
    events_pending: int
    alarms: list[str]
    auth: bool
    notice: str | None
    troubles: list[TroubleView] = []
    streams: list[StreamView]
    watches: list[WatchView]
    sinks: list[SinkView]


class KeyBody(BaseModel):
    """A key to make. `tags` are those of the streams it is for, none of them: all."""

    model_config = ConfigDict(extra="forbid")
    name: str
    role: Role = "viewer"
    tags: list[str] = []
    expires_at: datetime | None = None


class KeyView(BaseModel):
    """A key, without what proves it."""

    id: str
    name: str
    role: Role
    tags: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewKeyView(KeyView):
    """A new key; `key` proves it, and is shown this once."""

    key: str


class Checked(BaseModel):
    """The target of a sink's events."""

    detail: str


class Healthy(BaseModel):
    """The state of the service, and what is wrong with it if anything."""

    ok: bool
    detail: str = ""


@health.get("/health/live", response_model=Healthy, operation_id="live_health", responses={503: {"model": Healthy}})
async def alive(request: Request, response: Response) -> Healthy:
    """Liveness: the process works; if not, only a restart helps."""
    return _answered(_health_of(request).live, request, response)


@health.get("/health/ready", response_model=Healthy, operation_id="ready_health", responses={503: {"model": Healthy}})
async def ready(request: Request, response: Response) -> Healthy:
    """Readiness: streams are watched and decisions become durable."""
    return _answered(_health_of(request).ready and request.app.state.ready, request, response)


@health.get(
    "/health/startup", response_model=Healthy, operation_id="startup_health", responses={503: {"model": Healthy}}
)
async def startup(request: Request, response: Response) -> Healthy:
    """Start-up: the service has started."""
    return _answered(request.app.state.ready, request, response)


def _health_of(request: Request) -> Health:
    desk: Desk = request.app.state.desk
    return desk.reconciler.service.health()


def _answered(ok: bool, request: Request, response: Response) -> Healthy:
    """Only the phase: what is troubled names streams and sinks, which need a key (see /v1/status)."""
    response.status_code = 200 if ok else 503
    return Healthy(ok=ok, detail=_health_of(request).phase)


@router.get("/metrics", response_class=PlainTextResponse, operation_id="metrics", tags=["health"])
def metrics(caller: Viewer, desk: AtDesk) -> Response:
    """Prometheus metrics of the process."""
    if caller.tags:
        raise Problem(403, "not allowed", "the key is for some streams only, and metrics concern all", "tags")
    return Response(generate_latest(desk.reconciler.service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/status", response_model=ServiceOverview, operation_id="status", tags=["status"])
def status(request: Request, caller: Viewer, desk: AtDesk) -> Response:
    """Everything on one screen."""
    look, reconciler = desk.look(caller), desk.reconciler
    gate: Gate = request.app.state.gate
    site, health_now = reconciler.service.site, reconciler.service.health()

    def views(kind: Kind) -> list[EntryView]:
        return [look.view(entry) for entry in look.entries(kind)]

    streams = views("stream")
    overview = ServiceOverview(
        version=request.app.version,
        in_fleet=reconciler.service.in_fleet,
        mllm=redact_mllm(site.mllm.use),
        allocator=reconciler.service.allocator,
        site_file=str(reconciler.path) if reconciler.path else None,
        edits=look.snapshot.generation,
        applied=reconciler.applied,
        events_pending=sum(counts.pending for counts in reconciler.service.sink_counts.values()),
        alarms=list(reconciler.service.alarms),
        auth=not gate.is_open(),
        notice=OPEN_NOTICE if gate.is_open() else None,
        troubles=[] if caller.tags else [*map(_trouble, health_now.troubles), *_elsewhere(desk, streams)],
        streams=streams,
        watches=views("watch"),
        sinks=views("sink"),
    )
    return as_json(overview)


def _trouble(found: Trouble) -> TroubleView:
    return TroubleView(what=found.what, reason=found.reason)


def _elsewhere(desk: Desk, streams: Iterable[EntryView]) -> list[TroubleView]:
    """Troubles of a fleet's nodes, and of the streams on them, which are not those of this process."""
    if not desk.reconciler.service.in_fleet:
        return []
    found = [TroubleView(what=f"node {one.name}", reason=one.reason) for one in nodes_of(desk) if one.troubled]
    for view in streams:
        assert isinstance(view, StreamView)
        status = view.status
        if status.reason and (status.state in ("lost", "failed") or (status.state == "starting" and not status.node)):
            found.append(TroubleView(what=f"stream {view.slug}", reason=status.reason))
    return found


@router.get("/v1/audit", response_model=Page[EditView], operation_id="audit", tags=["status"])
def audit(caller: Admin, desk: AtDesk, limit: Limit = 100, cursor: SeqCursor = None) -> Page[EditView]:
    """Every edit of streams, watches, sinks and keys, newest first."""
    edits = desk.registry.edits(limit + 1, cursor)
    more = str(edits[limit - 1].seq) if len(edits) > limit else None
    return Page(items=[edit_view(edit) for edit in edits[:limit]], next=more)


@router.post("/v1/sinks/{slug}/test", response_model=Checked, operation_id="test_sink", tags=["sinks"])
async def try_sink(
    slug: str,
    caller: Operator,
    desk: AtDesk,
    send: Send = False,
) -> Checked:
    """Try a sink: whether events could go there, and with `send` whether one does, past its filter and rate limit."""
    service = desk.reconciler.service
    if caller.tags or service.sink(slug) is None:
        fault = None if caller.tags else desk.reconciler.faults.get(("sink", slug))
        if fault:
            raise Problem(502, "sink unavailable", f"the sink {slug} cannot run: {fault}")
        raise Problem(404, "not found", f"there is no sink {slug[:80]!r} that runs")
    return Checked(detail=scrub(await service.try_sink(slug, send, caller.name)))


@router.get("/v1/keys", response_model=Page[KeyView], operation_id="list_keys", tags=["keys"])
def list_keys(request: Request, caller: Admin) -> Page[KeyView]:
    """All keys, those that are no longer valid too."""
    return Page(items=[_view(key) for key in _keys(request).all()])


@router.post("/v1/keys", status_code=201, response_model=NewKeyView, operation_id="create_key", tags=["keys"])
def create_key(body: KeyBody, request: Request, caller: Admin) -> NewKeyView:
    """Make a key; what proves it is in the answer and nowhere else."""
    _require_whole(caller)
    expires_at = body.expires_at
    if expires_at is not None and expires_at.tzinfo is None:
        raise Problem(422, "not accepted", "expires_at: expected a time with a zone", "expires_at")
    key, text = _keys(request).create(body.name, body.role, body.tags, expires_at, caller.name)
    return NewKeyView(key=text, **_view(key).model_dump())


@router.delete("/v1/keys/{name}", status_code=204, operation_id="revoke_key", tags=["keys"])
def revoke_key(name: str, request: Request, caller: Admin) -> None:
    """Make a key worthless at once."""
    _require_whole(caller)
    _keys(request).revoke(name, caller.name)


def _require_whole(caller: Caller) -> None:
    if caller.tags:
        raise Problem(
            403, "not allowed", "the key is for some streams only; keys are made by an unscoped admin", "tags"
        )


def _keys(request: Request) -> Keys:
    keys: Keys | None = request.app.state.keys()
    if keys is None:
        raise StoreUnavailable("the service is starting; its store is not open yet")
    return keys


def _view(key: Key) -> KeyView:
    return KeyView(
        id=key.id,
        name=key.name,
        role=key.role,
        tags=sorted(key.tags),
        created_at=key.created_at,
        created_by=key.created_by,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        revoked_at=key.revoked_at,
    )
