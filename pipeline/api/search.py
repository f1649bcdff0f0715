"""Search among events: by words, and by asking the model about their snapshots."""

import asyncio
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from pipeline.api.auth import Caller
from pipeline.api.desk import Desk
from pipeline.api.entries import AtDesk, Viewer
from pipeline.api.events import Analyst, Name
from pipeline.api.evidence import beside_streams, shelf_of
from pipeline.api.problems import RESPONSES
from pipeline.api.views import EventView, event_view
from pipeline.delivery.labels import LabelBook
from pipeline.evidence.looking import (
    AT_MOST,
    LEAST_LOOK_TOKENS,
    LOOK_TOKENS,
    MOST_LOOK_TOKENS,
    MOST_LOOKS,
    EventFound,
    LookRules,
    SearchResult,
    by_looking,
    by_words,
)
from pipeline.evidence.search import MOST_FOUND, SINCE, EventSearch, SearchTerms, terms_of
from pipeline.evidence.shelf import Shelf
from pipeline.service.beside import names_of
from pipeline.types import Answer

router = APIRouter(prefix="/v1", tags=["events"], responses=RESPONSES)

SINCE_TOLD = "A span before now such as 90m, 24h or 7d, or UTC (ISO 8601)."


class SearchBody(BaseModel):
    """A search by asking the model: its text, a filter of events, and its bounds: at most `at_most` snapshots of at
    most `tokens` vision tokens each."""

    model_config = ConfigDict(extra="forbid")
    text: str
    since: Annotated[str, Field(max_length=40, description=SINCE_TOLD)] = SINCE
    until: Annotated[str | None, Field(max_length=40)] = None
    stream: Annotated[str | None, Field(max_length=63)] = None
    watch: Annotated[str | None, Field(max_length=63)] = None
    limit: Annotated[int, Field(ge=1, le=MOST_FOUND)] = 20
    at_most: Annotated[int, Field(ge=1, le=MOST_LOOKS)] = AT_MOST
    tokens: Annotated[int, Field(ge=LEAST_LOOK_TOKENS, le=MOST_LOOK_TOKENS)] = LOOK_TOKENS


class LookView(BaseModel):
    """The model's answer about a snapshot: the probability of yes, and `unknown` for a mass below 0.5."""

    score: float
    mass: float
    verdict: str


class FoundView(BaseModel):
    """An event that was found: its rank by words (0: none of them is in it), these words, and, where the model was
    asked, what it answered. `evidence`: a snapshot of it is kept."""

    event: EventView
    rank: float
    words: list[str]
    evidence: bool
    answer: LookView | None


class SearchedView(BaseModel):
    """The extent of a search: the span, the number of events in it, of how many streams, the times of the oldest and
    the newest, how many have words of the text and of how many a snapshot is kept."""

    since: datetime
    until: datetime | None
    events: int
    streams: int
    oldest: datetime | None
    newest: datetime | None
    matched: int
    with_evidence: int


class SearchCostView(BaseModel):
    """Snapshots that the model was asked about, what it answered, and what that cost: vision tokens sent, prompt
    tokens prefilled as far as the model counts them, seconds."""

    asked: int
    yes: int
    no: int
    unknown: int
    vision_tokens: int
    prompt_tokens: int
    seconds: float


class SearchView(BaseModel):
    """The result of a search, best first. `question` is what the model was asked; `left_out` says in words what was
    not looked at or not given."""

    text: str
    words: list[str]
    question: str
    items: list[FoundView]
    searched: SearchedView
    left_out: list[str]
    cost: SearchCostView


@router.get("/search", response_model=SearchView, operation_id="search_events")
def search_events(
    caller: Viewer,
    desk: AtDesk,
    text: Annotated[str, Query(description="What to search for.")],
    since: Annotated[str, Query(max_length=40, description=SINCE_TOLD)] = SINCE,
    until: Annotated[str | None, Query(max_length=40)] = None,
    stream: Name = None,
    watch: Name = None,
    limit: Annotated[int, Query(ge=1, le=MOST_FOUND)] = 20,
) -> SearchView:
    """By words: of questions, descriptions, values, the names of streams and watches, and notes of labels. It costs no
    tokens."""
    terms = terms_of(text, desk.clock.now(), since, until, _streams(caller, desk, stream), watch, limit)
    return search_view(by_words(_search(desk), terms))


@router.post("/search", response_model=SearchView, operation_id="search_pictures")
async def search_pictures(body: SearchBody, request: Request, caller: Analyst, desk: AtDesk) -> SearchView:
    """By asking the model about the snapshots of events, those with words of the text first, then the newest."""
    runtime, rules = desk.reconciler.service.runtime, LookRules(body.at_most, body.tokens)
    with beside_streams(request):
        terms, search, shelf = await asyncio.to_thread(_admitted, body, caller, desk)
        found = await by_looking(search, shelf, terms, rules, runtime.mllm, desk.clock, runtime.budget)
    return search_view(found)


def search_view(found: SearchResult) -> SearchView:
    """A result as the API shows it."""
    terms, among = found.terms, found.among
    assert terms.among.since is not None
    return SearchView(
        text=terms.text,
        words=list(terms.words),
        question=found.question,
        items=[_found_view(one) for one in found.events],
        searched=SearchedView(
            since=terms.among.since, until=terms.among.until, events=len(among.events), streams=len(among.streams),
            oldest=among.oldest, newest=among.newest, matched=len(among.matched),
            with_evidence=sum(one.snapshot is not None for one in among.events),
        ),
        left_out=list(found.left_out),
        cost=SearchCostView.model_validate(asdict(found.cost)),
    )  # fmt: skip


def _found_view(one: EventFound) -> FoundView:
    return FoundView(
        event=event_view(one.stored), rank=round(one.ranked.rank, 4), words=list(one.ranked.words),
        evidence=one.ranked.snapshot is not None, answer=_look_view(one.answer) if one.answer else None,
    )  # fmt: skip


def _look_view(answer: Answer) -> LookView:
    return LookView(score=round(answer.score, 6), mass=round(answer.mass, 6), verdict=answer.verdict)


def _admitted(body: SearchBody, caller: Caller, desk: Desk) -> tuple[SearchTerms, EventSearch, Shelf]:
    streams = _streams(caller, desk, body.stream)
    terms = terms_of(body.text, desk.clock.now(), body.since, body.until, streams, body.watch, body.limit)
    return terms, _search(desk), shelf_of(desk)


def _search(desk: Desk) -> EventSearch:
    service, labels = desk.reconciler.service, LabelBook(desk.registry.database, desk.clock)
    return EventSearch(service.store.history, labels, shelf_of(desk).manifests, names_of(service.site))


def _streams(caller: Caller, desk: Desk, stream: str | None) -> frozenset[str] | None:
    """The streams among whose events a caller searches; None for all."""
    visible = desk.visible_streams(caller)
    if stream is None:
        return visible
    return frozenset({stream}) & (visible if visible is not None else {stream})
