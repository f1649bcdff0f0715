"""Routes of people's labels of events and of missed intervals: list, export, add, withdraw."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from pipeline.api.auth import Caller
from pipeline.api.desk import Desk
from pipeline.api.entries import AtDesk, Limit, Viewer
from pipeline.api.events import Analyst, Name, SeqCursor
from pipeline.api.problems import RESPONSES
from pipeline.api.views import Page
from pipeline.clock import as_utc
from pipeline.config.values import Slug
from pipeline.delivery.history import EventFilter, History
from pipeline.delivery.labels import MAX_NOTE, Label, LabelBook, LabelFilter, LabelKind
from pipeline.lab.truths import MOST_EVENTS, times_of
from pipeline.registry.entry import EntryMissing

router = APIRouter(prefix="/v1", tags=["labels"], responses=RESPONSES)

MOST_EXPORTED = 100_000
"""Rows of one export, the newest."""


class LabelView(BaseModel):
    """A person's label of a watch on a stream: of an event, or (`missed`) of an interval, UTC. `by` gave it `at` a
    time; `withdrawn_by` withdrew it."""

    id: int
    event: str | None
    stream: str
    watch: str
    kind: LabelKind
    start: datetime
    end: datetime
    note: str
    by: str
    at: datetime
    withdrawn_at: datetime | None
    withdrawn_by: str | None


class MissedBody(BaseModel):
    """An interval, UTC where it has no zone, in which a watch on a stream should have been open."""

    model_config = ConfigDict(extra="forbid")
    stream: Slug
    watch: Slug
    start: datetime
    end: datetime
    note: Annotated[str, Field(max_length=MAX_NOTE)] = ""


@router.get("/labels", response_model=Page[LabelView], operation_id="list_labels")
def list_labels(
    caller: Viewer,
    desk: AtDesk,
    limit: Limit = 100,
    cursor: SeqCursor = None,
    stream: Name = None,
    watch: Name = None,
    kind: LabelKind | None = None,
    event: Annotated[str | None, Query(max_length=80)] = None,
    withdrawn: bool = False,
) -> Page[LabelView]:
    """Newest first; those that were taken back only with `withdrawn`."""
    wanted = LabelFilter(_streams(stream, caller, desk), watch, kind, event, withdrawn)
    found = _labels(desk).find(wanted, limit + 1, cursor)
    items = [label_view(one) for one in found[:limit]]
    return Page(items=items, next=str(items[-1].id) if len(found) > limit else None)


@router.get(
    "/labels.csv", response_class=Response, operation_id="export_labels",
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "the labels"}},
)  # fmt: skip
def export_labels(caller: Viewer, desk: AtDesk, stream: Name = None, watch: Name = None) -> Response:
    """Those that stand, oldest first, as CSV: stream, watch, kind, start, end, event, note, by, at, and from when until
    when what a label is about lasted: from the onset of its event to its clear."""
    wanted = LabelFilter(_streams(stream, caller, desk), watch)
    text = export_of(desk.reconciler.history(), _labels(desk).find(wanted, MOST_EXPORTED)[::-1])
    return Response(text, media_type="text/csv; charset=utf-8")


@router.post("/labels", status_code=201, response_model=LabelView, operation_id="label_missed")
def label_missed(body: MissedBody, caller: Analyst, desk: AtDesk) -> LabelView:
    """Say that a watch missed something."""
    look = desk.look(caller)
    look.entry("stream", body.stream)
    look.entry("watch", body.watch)
    labels = _labels(desk)
    return label_view(
        labels.missed(body.stream, body.watch, as_utc(body.start), as_utc(body.end), body.note, caller.name)
    )


@router.delete("/labels/{number}", status_code=204, operation_id="withdraw_label")
def withdraw_label(number: Annotated[int, Path(ge=1, lt=2**62)], caller: Analyst, desk: AtDesk) -> None:
    """Take a label back. It stays in the list of those that were, with who did it."""
    label = _labels(desk).one(number)
    visible = desk.visible_streams(caller)
    if label is None or (visible is not None and label.stream not in visible):
        raise EntryMissing(f"there is no label {number}")
    _labels(desk).withdraw(number, caller.name)


COLUMNS = ("stream", "watch", "kind", "start", "end", "event", "note", "by", "at", "from", "until")


def export_of(history: History, labels: Sequence[Label]) -> str:
    """Labels as CSV with a header; a text that a spreadsheet would take for a formula gets an apostrophe."""
    spans: dict[int, tuple[str, str]] = {}
    for watch in dict.fromkeys(one.watch for one in labels):
        mine = [one for one in labels if one.watch == watch]
        events = history.events(EventFilter(frozenset(one.stream for one in mine), watch), MOST_EVENTS)[::-1]
        for one, (start, end) in zip(mine, times_of(mine, events), strict=True):
            spans[one.id] = _utc(start), _utc(end)
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in labels:
        writer.writerow(
            (one.stream, one.watch, one.kind, one.start.isoformat(), one.end.isoformat(), one.event_id or "",
             _harmless(one.note), _harmless(one.by), one.at.isoformat(), *spans[one.id])
        )  # fmt: skip
    return made.getvalue()


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def label_view(label: Label) -> LabelView:
    """A label as the API shows it."""
    return LabelView(
        id=label.id, event=label.event_id, stream=label.stream, watch=label.watch, kind=label.kind, start=label.start,
        end=label.end, note=label.note, by=label.by, at=label.at, withdrawn_at=label.withdrawn_at,
        withdrawn_by=label.withdrawn_by,
    )  # fmt: skip


def _labels(desk: Desk) -> LabelBook:
    return LabelBook(desk.registry.database, desk.clock)


def _streams(stream: str | None, caller: Caller, desk: Desk) -> frozenset[str] | None:
    visible = desk.visible_streams(caller)
    if stream is None:
        return visible
    return frozenset({stream}) & (visible if visible is not None else {stream})


def _harmless(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
