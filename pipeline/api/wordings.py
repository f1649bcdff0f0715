"""Wordings of a watch compared on a recording that is sent, by people's labels of that time."""

import asyncio
from datetime import datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, JsonValue

from pipeline.api.admission import zones_of
from pipeline.api.auth import Caller
from pipeline.api.desk import Desk
from pipeline.api.entries import AtDesk, Viewer
from pipeline.api.problems import RESPONSES, Problem
from pipeline.api.recording import BODY, sent, spec_as_served
from pipeline.api.views import plain
from pipeline.api.what_if import Analyst
from pipeline.clock import as_utc
from pipeline.config.entries import parse_watch
from pipeline.config.values import Slug
from pipeline.delivery.history import EventFilter
from pipeline.delivery.labels import LabelBook, LabelFilter
from pipeline.delivery.wording_tests import WordingTestBook
from pipeline.errors import ConfigError, StoreUnavailable
from pipeline.lab.tested import (
    BetterWording,
    KeptWordingResult,
    WordingResult,
    better_wordings,
    keep_result,
    result_of,
    results_of,
)
from pipeline.lab.truths import MOST_EVENTS, Reviewed, marks_of, reviewed
from pipeline.lab.tuning import MOST_LABELS
from pipeline.lab.wording_trial import ask_wordings, tune_wordings
from pipeline.lab.wordings import MOST_WORDINGS, wordings_of

log = structlog.get_logger()

router = APIRouter(prefix="/v1", tags=["watches"], responses=RESPONSES)


class WordingsView(BaseModel):
    """The watch as it is (`now`, with its figures on the recording) and the wordings, its own first: each with the
    settings that suit it, what is `expected` of them on time that they were not chosen on, and the `gain` over the
    watch's own wording. `proposed` is null where none is surely better, for a `reason`; `changes` are a patch of the
    watch. `kept` is false where the store could not take the figures: then this answer alone has them."""

    watch: str
    recordings: int
    seconds: float
    realtime_factor: float | None
    tokens: int
    ended_early: dict[str, str]
    reviewed_s: float
    truths: int
    now: dict[str, JsonValue]
    wordings: list[dict[str, JsonValue]]
    proposed: str | None
    changes: dict[str, JsonValue]
    reason: str
    kept: bool


class KeptWordings(BaseModel):
    """The results of tests of a watch's wordings, newest first, and those wordings that did surely `better` than what
    it asks now. At most 20 are kept of a watch, for 90 days."""

    items: list[KeptWordingResult]
    better: list[BetterWording]


@router.get("/watches/{slug}/wordings", response_model=KeptWordings, operation_id="list_wordings")
def list_wordings(slug: str, caller: Viewer, desk: AtDesk) -> KeptWordings:
    """The results of tests of its wordings, on which recordings, and which of them did better."""
    watch = parse_watch(slug, desk.look(caller).entry("watch", slug).spec)
    kept = results_of(tests_of(desk), slug, watch)
    return KeptWordings(items=list(kept), better=list(better_wordings(kept, watch)))


@router.post(
    "/watches/{slug}/wordings/results",
    status_code=201,
    response_model=KeptWordings,
    operation_id="keep_wordings",
)
def keep_wordings(slug: str, body: WordingResult, caller: Analyst, desk: AtDesk) -> KeptWordings:
    """Keep the result of a test that was made elsewhere, as `resadapt watch test --watch` does."""
    desk.look(caller).entry("watch", slug)
    keep_result(tests_of(desk), slug, body, caller.name)
    return list_wordings(slug, caller, desk)


def tests_of(desk: Desk) -> WordingTestBook:
    """The results that are kept."""
    return WordingTestBook(desk.registry.database, desk.clock)


@router.post(
    "/watches/{slug}/wordings", response_model=WordingsView, operation_id="compare_wordings", openapi_extra=BODY
)
async def compare(
    slug: str,
    request: Request,
    caller: Analyst,
    desk: AtDesk,
    name: Annotated[str, Query(min_length=3, max_length=200, description="Name of the file, with its ending.")],
    wording: Annotated[tuple[str, ...], Query(max_length=MOST_WORDINGS, description="Questions to compare.")] = (),
    stream: Annotated[Slug | None, Query(description="The stream it is of, if several have labels.")] = None,
    began: Annotated[
        datetime | None, Query(description="When it begins, UTC without a zone; by default as it says itself.")
    ] = None,
) -> WordingsView:
    """Ask a watch and its question in other words over a recording of one of its streams, the body, and compare them by
    the labels of that time. One recording is tried at a time; of it nothing is kept, and of the result the figures."""
    view = desk.look(caller)
    watch = parse_watch(slug, view.entry("watch", slug).spec)
    wordings_of(watch.question, wording)
    truths = await asyncio.to_thread(_truths, slug, stream, caller, desk)
    of = _one(slug, sorted(truths))
    entry = view.entry("stream", of)
    if watch.zone is not None and watch.zone not in zones_of(entry):
        raise Problem(422, "not taken", f"the stream {of} has no zone {watch.zone!r}", "stream")
    async with sent(request, desk, name, spec_as_served(desk, entry)) as trial:
        runtime = desk.reconciler.service.runtime
        asked = await ask_wordings(trial.site, trial.names, watch, wording, desk.clock, runtime.mllm)
        if began is not None:
            asked = asked.dated({name: as_utc(began).timestamp()})
        found = await asyncio.to_thread(tune_wordings, slug, watch, asked, {name: truths[of]})
        result = result_of(watch, found, {name: trial.digest})
    kept = await asyncio.to_thread(_kept, desk, slug, result, caller)
    shown: dict[str, Any] = plain(found.as_json())
    return WordingsView(**shown, kept=kept)


def _kept(desk: Desk, slug: str, result: WordingResult, caller: Caller) -> bool:
    """Keep a result that took minutes. False where the store does not take it, for which it is not thrown away."""
    try:
        keep_result(tests_of(desk), slug, result, caller.name)
    except StoreUnavailable as error:
        log.warning("wordings_not_kept", watch=slug, error=str(error))
        return False
    return True


def _truths(slug: str, stream: str | None, caller: Caller, desk: Desk) -> dict[str, Reviewed]:
    """The truth of the watch by stream, as labels say it."""
    visible = desk.visible_streams(caller)
    streams = visible if stream is None else frozenset({stream}) & (visible if visible is not None else {stream})
    labels = LabelBook(desk.registry.database, desk.clock).find(LabelFilter(streams, slug), MOST_LABELS)
    events = desk.reconciler.history().events(EventFilter(streams, slug), MOST_EVENTS)[::-1]
    return {one: truth for one, marks in marks_of(labels, events).items() if (truth := reviewed(marks, 0.0))}


def _one(slug: str, streams: list[str]) -> str:
    """The only stream that has labels."""
    if not streams:
        raise ConfigError(f"there is no label of the watch {slug}; expected some of the time of the recording")
    if len(streams) > 1:
        raise ConfigError(f"stream: {', '.join(streams[:10])} have labels of {slug}; name the one the recording is of")
    return streams[0]
