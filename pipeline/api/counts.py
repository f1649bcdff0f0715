"""Counts of events by stream, watch, type and label."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from pipeline.api.entries import AtDesk, Viewer
from pipeline.api.events import given_utc
from pipeline.api.problems import RESPONSES
from pipeline.delivery.history import EventFilter

router = APIRouter(prefix="/v1/events", tags=["events"], responses=RESPONSES)


class EventCount(BaseModel):
    """The number of events of one stream, watch, type and label."""

    stream: str
    watch: str | None
    type: str
    label: str | None
    count: int


class EventCounts(BaseModel):
    """The counts of all kinds of which there was one."""

    items: list[EventCount]


@router.get("/counts", response_model=EventCounts, operation_id="count_events")
def count_events(
    caller: Viewer,
    desk: AtDesk,
    since: Annotated[datetime | None, Query(description="Without a zone: UTC.")] = None,
    until: datetime | None = None,
) -> EventCounts:
    """Events of a time, counted."""
    wanted = EventFilter(desk.visible_streams(caller), None, frozenset(), given_utc(since), given_utc(until), None)
    found = desk.reconciler.service.store.history.count(wanted)
    fields = ("stream", "watch", "type", "label", "count")
    return EventCounts(items=[EventCount(**dict(zip(fields, row, strict=True))) for row in found])
