"""The app: routes, limits, who may do what."""

import importlib.metadata
from functools import cache
from threading import Lock
from typing import Any

from fastapi import FastAPI

from pipeline.api import (
    apply,
    counts,
    discover,
    events,
    evidence,
    far,
    labels,
    live,
    load,
    nodes,
    preview,
    problems,
    profiles,
    recording,
    search,
    sessions,
    system,
    tiles,
    tune,
    what_if,
    wordings,
)
from pipeline.api.admission import Admission
from pipeline.api.auth import Gate
from pipeline.api.desk import Desk
from pipeline.api.entries import entry_router
from pipeline.api.hub import Hub
from pipeline.api.limits import Failures, RequestLimits, is_loopback
from pipeline.api.live import JpegCache
from pipeline.api.problems import ProblemBody
from pipeline.clock import Clock
from pipeline.config.api import ApiConfig
from pipeline.registry.entry import KINDS
from pipeline.registry.keys import Keys
from pipeline.registry.sessions import Sessions
from pipeline.service.reconciler import Reconciler

DESCRIPTION = """Streams, watches and sinks: what is wanted, how it stands, and the events and answers that come of it.

Errors are problems (RFC 9457) that name the field. An entry's ETag is its revision: send it as If-Match to change only
what you have seen. Lists have cursors; `/v1/events/stream` and `/v1/answers/stream` are server-sent events."""


def describe(app: FastAPI) -> None:
    """Complete the OpenAPI document by the problems, which no route returns as its own."""
    written = app.openapi

    def openapi() -> dict[str, Any]:
        document = written()
        schemas = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= {**schemas.pop("$defs"), "ProblemBody": schemas}
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def make_app(reconciler: Reconciler, config: ApiConfig, clock: Clock) -> FastAPI:
    """The app of a service, which may still be starting: then what needs the store is answered with 503."""
    app = FastAPI(
        title="resadapt-stream",
        version=importlib.metadata.version("resadapt-stream"),
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's own load scripts from other hosts
        redoc_url=None,
    )

    @cache
    def keys() -> Keys:
        return Keys(reconciler.registry.database, clock)

    @cache
    def browser_sessions() -> Sessions:
        return Sessions(reconciler.registry.database, keys(), clock)

    state = app.state
    metrics = reconciler.service.metrics
    metrics.api_listeners.set_function(lambda: state.listeners)
    state.desk = Desk(reconciler, Admission(config, reconciler.raw, clock), clock)
    state.keys = keys
    state.sessions = browser_sessions
    state.gate = Gate(keys, browser_sessions, is_loopback(config.host), Failures(clock))
    state.pictures = JpegCache()
    state.far_nodes = far.FarNodes()
    state.gallery = tiles.gallery_of(reconciler.service, clock, state.far_nodes)
    state.beside = Lock()
    state.max_recording = config.max_recording_mib * 2**20
    state.ready = False
    state.listeners, state.max_listeners = 0, config.max_listeners
    history = reconciler.history
    state.events = Hub(lambda seq, limit: history().events_after(seq, limit), lambda: history().last_seqs()[0])
    state.answers = Hub(lambda seq, limit: history().answers_after(seq, limit), lambda: history().last_seqs()[1])
    app.include_router(preview.router)
    app.include_router(live.router)  # before the routes of slugs, one of which `probe` would be
    for kind in KINDS:
        app.include_router(entry_router(kind))
    routers = (
        sessions.router,
        tiles.router,
        counts.router,
        events.router,
        evidence.router,
        labels.router,
        apply.router,
        discover.router,
        profiles.router,
        nodes.router,
        load.router,
        tune.router,
        what_if.router,
        recording.router,
        wordings.router,
        search.router,
        system.router,
        system.health,
    )
    for router in routers:
        app.include_router(router)
    problems.install(app)
    describe(app)
    app.add_middleware(
        RequestLimits,
        clock=clock,
        max_body=config.max_body_kib * 1024,
        max_recording=config.max_recording_mib * 2**20,
        rate_per_s=config.rate_per_s,
        burst=config.burst,
        local_hosts=is_loopback(config.host),
        refused=lambda limit: metrics.api_refused.labels(limit).inc(),
    )
    return app
