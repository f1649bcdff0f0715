"""Events and answers: listed, filtered, labelled, and streamed as they are decided."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from pipeline.api import sse
from pipeline.api.auth import Caller, allowed
from pipeline.api.desk import Desk
from pipeline.api.entries import AtDesk, Limit, Viewer
from pipeline.api.hub import Hub
from pipeline.api.problems import RESPONSES
from pipeline.api.views import AnswersView, EventView, Page, answers_view, event_view
from pipeline.clock import as_utc
from pipeline.delivery.history import EventFilter, StoredAnswers, StoredEvent
from pipeline.delivery.labels import MAX_NOTE, EventLabel, LabelBook
from pipeline.registry.entry import EntryMissing

router = APIRouter(prefix="/v1", tags=["events"], responses=RESPONSES)

Analyst = Annotated[Caller, Depends(allowed("analyst"))]
SeqCursor = Annotated[int | None, Query(ge=1, lt=2**62, description="`next` of the page before.")]
Name = Annotated[str | None, Query(max_length=63)]
Stream: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "events"}
}


class LabelBody(BaseModel):
    """A person's label of an event; null removes it."""

    model_config = ConfigDict(extra="forbid")
    label: EventLabel | None
    note: Annotated[str, Field(max_length=MAX_NOTE)] = ""


@router.get("/events", response_model=Page[EventView], operation_id="list_events")
def list_events(
    caller: Viewer,
    desk: AtDesk,
    limit: Limit = 100,
    cursor: SeqCursor = None,
    stream: Name = None,
    watch: Name = None,
    type: Annotated[list[str], Query(max_length=50)] = [],  # noqa: B006 - the name on the wire; FastAPI copies it
    since: datetime | None = None,
    until: datetime | None = None,
    label: EventLabel | None = None,
) -> Page[EventView]:
    """Newest first. Times without a zone are UTC."""
    visible = desk.visible_streams(caller)
    streams = visible if stream is None else frozenset({stream}) & (visible if visible is not None else {stream})
    wanted = EventFilter(streams, watch, frozenset(type), given_utc(since), given_utc(until), label)
    found = desk.reconciler.service.store.history.events(wanted, limit + 1, cursor)
    items = [event_view(one) for one in found[:limit]]
    return Page(items=items, next=str(items[-1].seq) if len(found) > limit else None)


@router.get("/events/stream", response_class=StreamingResponse, responses=Stream, operation_id="stream_events")
def stream_events(
    request: Request,
    caller: Viewer,
    desk: AtDesk,
    stream: Name = None,
    watch: Name = None,
    after: Annotated[int | None, Query(ge=0, lt=2**62, description="As Last-Event-ID.")] = None,
) -> StreamingResponse:
    """Events as they are decided, as server-sent events; `Last-Event-ID` gives those that were missed too."""
    after_seq = sse.last_event_id(request, after)
    visible = desk.visible_streams(caller)

    def show(stored: StoredEvent) -> str | None:
        event = stored.event
        hidden = visible is not None and event.stream_id not in visible
        other = (stream is not None and event.stream_id != stream) or (watch is not None and event.watch_id != watch)
        return None if hidden or other else event_view(stored).model_dump_json()

    hub: Hub[StoredEvent] = request.app.state.events
    return sse.stream(hub, after_seq, show, sse.listening(request))


@router.get("/events/{event_id}", response_model=EventView, operation_id="show_event")
def show_event(event_id: str, caller: Viewer, desk: AtDesk) -> EventView:
    """One event by its id."""
    return event_view(event_of(event_id, caller, desk))


@router.put("/events/{event_id}/label", response_model=EventView, operation_id="label_event")
def label_event(event_id: str, body: LabelBody, caller: Analyst, desk: AtDesk) -> EventView:
    """Say of an event whether it was right; `fixture`: something that stays there sets it off, ignore it."""
    event = event_of(event_id, caller, desk).event
    LabelBook(desk.registry.database, desk.clock).mark(event, body.label, body.note, caller.name)
    return event_view(event_of(event_id, caller, desk))


@router.get("/answers", response_model=Page[AnswersView], operation_id="list_answers")
def list_answers(
    caller: Viewer, desk: AtDesk, limit: Limit = 100, cursor: SeqCursor = None, stream: Name = None
) -> Page[AnswersView]:
    """Questions and answers of each hop, newest first."""
    visible = desk.visible_streams(caller)
    streams = visible if stream is None else frozenset({stream}) & (visible if visible is not None else {stream})
    names = None if streams is None else sorted(streams)
    found = desk.reconciler.service.store.history.answers(names, limit + 1, cursor)
    items = [answers_view(one) for one in found[:limit]]
    return Page(items=items, next=str(items[-1].seq) if len(found) > limit else None)


@router.get("/answers/stream", response_class=StreamingResponse, responses=Stream, operation_id="stream_answers")
def stream_answers(
    request: Request,
    caller: Viewer,
    desk: AtDesk,
    stream: Name = None,
    after: Annotated[int | None, Query(ge=0, lt=2**62, description="As Last-Event-ID.")] = None,
) -> StreamingResponse:
    """Answers of each hop as they are decided, as server-sent events."""
    after_seq = sse.last_event_id(request, after)
    visible = desk.visible_streams(caller)

    def show(stored: StoredAnswers) -> str | None:
        hidden = visible is not None and stored.stream_id not in visible
        other = stream is not None and stored.stream_id != stream
        return None if hidden or other else answers_view(stored).model_dump_json()

    hub: Hub[StoredAnswers] = request.app.state.answers
    return sse.stream(hub, after_seq, show, sse.listening(request))


def event_of(event_id: str, caller: Caller, desk: Desk) -> StoredEvent:
    """An event that is for the caller. Raises EntryMissing for one that is not, as if it were not there."""
    found = desk.reconciler.service.store.history.event(event_id) if "\0" not in event_id else None
    visible = desk.visible_streams(caller)
    if found is None or (visible is not None and found.event.stream_id not in visible):
        raise EntryMissing(f"there is no event {event_id[:80]!r}, or it is kept no longer")
    return found


def given_utc(time: datetime | None) -> datetime | None:
    """A time of a query in UTC, if there is one."""
    return None if time is None else as_utc(time)
