"""People's labels of events, and of intervals in which a watch missed something."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

import sqlalchemy as sa

from pipeline.clock import Clock
from pipeline.delivery.database import Database
from pipeline.delivery.tables import LABEL, OUTBOX
from pipeline.errors import ConfigError
from pipeline.types import Event

EventLabel = Literal["true", "false", "fixture"]
"""Of an event: it was right, it was wrong, or something that stays there sets it off and is to be ignored."""
LabelKind = Literal["true", "false", "fixture", "missed"]
KINDS: tuple[LabelKind, ...] = get_args(LabelKind)
MAX_NOTE = 2000
"""Longest note, in characters."""
LONGEST_S = 7 * 86_400.0
"""Longest interval that can have been missed, in seconds."""


@dataclass(frozen=True, slots=True)
class Label:
    """A person's label of a watch on a stream: of one event, or, where the watch missed something, of an interval
    (UTC).

    `by` said it `at` a time; `withdrawn_by` took it back.
    """

    id: int
    event_id: str | None
    stream: str
    watch: str
    kind: LabelKind
    start: datetime
    end: datetime
    note: str
    by: str
    at: datetime
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None


@dataclass(frozen=True, slots=True)
class LabelFilter:
    """A filter of labels; a field that is None admits all. Withdrawn labels are included only with `all_`."""

    streams: frozenset[str] | None = None
    watch: str | None = None
    kind: str | None = None
    event_id: str | None = None
    all_: bool = False


class LabelBook:
    """The labels of a database. Methods block and may raise StoreUnavailable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def mark(self, event: Event, kind: EventLabel | None, note: str, by: str) -> None:
        """Say of an event of a watch whether it was right; None takes back what was said. Raises ConfigError."""
        if event.watch_id is None and kind is not None:
            raise ConfigError(f"the event {event.id} is {event.type}, of no watch; expected one of a watch")
        with self._database.writing() as connection:
            now = self._clock.now().isoformat()
            standing = (LABEL.c.event_id == event.id) & LABEL.c.withdrawn_at.is_(None)
            connection.execute(sa.update(LABEL).where(standing).values(withdrawn_at=now, withdrawn_by=by))
            connection.execute(sa.update(OUTBOX).where(OUTBOX.c.event_id == event.id).values(label=kind))
            if kind is not None:
                start, end = _interval_of(event)
                connection.execute(
                    sa.insert(LABEL).values(
                        event_id=event.id, stream_id=event.stream_id, watch_id=event.watch_id, kind=kind,
                        start_utc=start, end_utc=end, note=_note(note), by=by, at=now,
                    )
                )  # fmt: skip

    def missed(self, stream: str, watch: str, start: datetime, end: datetime, note: str, by: str) -> Label:
        """Say that a watch missed something in `[start, end)` (UTC). Raises ConfigError for no interval."""
        seconds, now = (end - start).total_seconds(), self._clock.now()
        if not 0 < seconds <= LONGEST_S:
            raise ConfigError(
                f"to: the interval of {seconds:g} s ends at {end.isoformat()}; expected an end behind its start"
                f" {start.isoformat()}, at most {LONGEST_S / 86_400:g} days"
            )
        if start > now:
            raise ConfigError(f"from: {start.isoformat()} lies in the future; it is {now.isoformat()}")
        with self._database.writing() as connection:
            made = connection.execute(
                sa.insert(LABEL).values(
                    stream_id=stream, watch_id=watch, kind="missed", start_utc=start.isoformat(),
                    end_utc=end.isoformat(), note=_note(note), by=by, at=now.isoformat(),
                )
            )  # fmt: skip
            assert made.inserted_primary_key is not None
            (number,) = made.inserted_primary_key
        return Label(number, None, stream, watch, "missed", start, end, note, by, now)

    def withdraw(self, number: int, by: str) -> None:
        """Take a label back; that of an event is taken off it too. What was withdrawn before stays as it is."""
        with self._database.writing() as connection:
            row = connection.execute(sa.select(LABEL).where(LABEL.c.id == number)).one_or_none()
            if row is None or row.withdrawn_at is not None:
                return
            change = {"withdrawn_at": self._clock.now().isoformat(), "withdrawn_by": by}
            connection.execute(sa.update(LABEL).where(LABEL.c.id == number).values(change))
            if row.event_id is not None:
                connection.execute(sa.update(OUTBOX).where(OUTBOX.c.event_id == row.event_id).values(label=None))

    def find(self, wanted: LabelFilter = LabelFilter(), limit: int = 100, before: int | None = None) -> list[Label]:
        """The newest `limit` labels of a filter, newest first; those before a known one where asked."""
        query = sa.select(LABEL).where(*_clauses(wanted)).order_by(LABEL.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(LABEL.c.id < before)
        with self._database.reading_once() as connection:
            return [_label_of(row) for row in connection.execute(query).mappings()]

    def notes_of(self, event_ids: Sequence[str]) -> dict[str, list[str]]:
        """The notes of the standing labels of events, by event; those that have none are left out."""
        query = sa.select(LABEL.c.event_id, LABEL.c.note).where(
            LABEL.c.event_id.in_(list(event_ids)), LABEL.c.withdrawn_at.is_(None), LABEL.c.note != ""
        )
        found: dict[str, list[str]] = {}
        with self._database.reading_once() as connection:
            for event_id, note in connection.execute(query):
                found.setdefault(event_id, []).append(note)
        return found

    def one(self, number: int) -> Label | None:
        """A label by its number."""
        with self._database.reading_once() as connection:
            row = connection.execute(sa.select(LABEL).where(LABEL.c.id == number)).mappings().one_or_none()
        return None if row is None else _label_of(row)


def _clauses(wanted: LabelFilter) -> Sequence[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [] if wanted.all_ else [LABEL.c.withdrawn_at.is_(None)]
    if wanted.streams is not None:
        found.append(LABEL.c.stream_id.in_(sorted(wanted.streams)))
    for column, value in ((LABEL.c.watch_id, wanted.watch), (LABEL.c.kind, wanted.kind)):
        if value is not None:
            found.append(column == value)
    if wanted.event_id is not None:
        found.append(LABEL.c.event_id == wanted.event_id)
    return found


def _note(note: str) -> str:
    if len(note) > MAX_NOTE:
        raise ConfigError(f"note: has {len(note)} characters; expected at most {MAX_NOTE}")
    return note


def _interval_of(event: Event) -> tuple[str, str]:
    """When the event's hop was, as UTC text: its picture's time where it has one, else that of the decision."""
    captured = event.data.get("captured_at")
    at = datetime.fromisoformat(captured) if isinstance(captured, str) else event.time
    return at.isoformat(), event.time.isoformat() if event.time > at else at.isoformat()


def _label_of(row: sa.RowMapping) -> Label:
    withdrawn = row["withdrawn_at"]
    return Label(
        row["id"], row["event_id"], row["stream_id"], row["watch_id"], row["kind"],
        datetime.fromisoformat(row["start_utc"]), datetime.fromisoformat(row["end_utc"]), row["note"], row["by"],
        datetime.fromisoformat(row["at"]), datetime.fromisoformat(withdrawn) if withdrawn else None,
        row["withdrawn_by"],
    )  # fmt: skip
