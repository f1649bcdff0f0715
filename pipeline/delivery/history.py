"""Kept history: events and answers, found by filters, pruned by age and size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple, TypeVar

import sqlalchemy as sa
from pydantic_core import from_json

from pipeline.core.outcome import HopRecord
from pipeline.delivery.database import Database
from pipeline.delivery.tables import DELIVERY, EVIDENCE, HOP_ANSWERS, OUTBOX, portions
from pipeline.sinks.cloudevents import dump_json, load_json
from pipeline.types import Event, Json, TraceContext

PRUNED_AT_ONCE = 1024
"""Most rows that one pruning looks at: it holds up a commit for milliseconds, and a clock that jumps ahead for a moment
costs little."""

READ_AT_ONCE = 5000
"""Most records of answers that are held at once while many are read."""

_MIB = 2**20
_EVENT_COLUMNS = (
    OUTBOX.c.seq,
    OUTBOX.c.event_id,
    OUTBOX.c.type,
    OUTBOX.c.stream_id,
    OUTBOX.c.time,
    OUTBOX.c.data,
    OUTBOX.c.watch_id,
    OUTBOX.c.label,
    OUTBOX.c.traceparent,
    OUTBOX.c.tracestate,
)
EVENTS = sa.select(*_EVENT_COLUMNS)
_SETTLED = "age({}.xmin) > age(((pg_snapshot_xmin(pg_current_snapshot())::text)::bigint % 4294967296)::text::xid)"
"""True of rows whose transaction is older than every one under way (PostgreSQL)."""


@dataclass(frozen=True, slots=True)
class Keep:
    """The bounds of kept history: seconds, and bytes of data."""

    events_s: float = 30 * 86_400.0
    events_bytes: int = 256 * _MIB
    answers_s: float = 2 * 86_400.0
    answers_bytes: int = 512 * _MIB


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event and its place in the order of commits, which is the order of decision within a stream; `label` is what
    a person has said of it."""

    seq: int
    event: Event
    label: str | None = None


class StoredAnswers(NamedTuple):
    """The record of one hop, in the form of `HopRecord.as_json`; `time` is UTC of the decision. A tuple, because a day
    has 86,400 of them."""

    seq: int
    stream_id: str
    time: datetime
    record: dict[str, Json]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """A filter of events; a field that is None or empty admits all. `until` is excluded. `streams` None: all."""

    streams: frozenset[str] | None = None
    watch: str | None = None
    types: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    label: str | None = None

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """As conditions on OUTBOX. Times are text of one form, which sorts as they do."""
        found: list[sa.ColumnElement[bool]] = []
        if self.streams is not None:
            found.append(OUTBOX.c.stream_id.in_(sorted(self.streams)))
        if self.watch is not None:
            found.append(OUTBOX.c.watch_id == self.watch)
        if self.types:
            found.append(OUTBOX.c.type.in_(sorted(self.types)))
        if self.since is not None:
            found.append(OUTBOX.c.time >= self.since.isoformat())
        if self.until is not None:
            found.append(OUTBOX.c.time < self.until.isoformat())
        if self.label is not None:
            found.append(OUTBOX.c.label == self.label)
        return found


class _AnswersRecord(NamedTuple):
    seq: int
    stream_id: str
    time: str
    data: str


class History:
    """The events and answers of a database. Methods block and may raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def events(
        self, wanted: EventFilter = EventFilter(), limit: int = 100, before_seq: int | None = None
    ) -> list[StoredEvent]:
        """The newest `limit` events of a filter, newest first; those before a known one where asked."""
        query = EVENTS.where(*wanted.clauses()).order_by(OUTBOX.c.seq.desc()).limit(limit)
        return self._events(query if before_seq is None else query.where(OUTBOX.c.seq < before_seq))

    def events_after(self, seq: int, limit: int, wanted: EventFilter = EventFilter()) -> list[StoredEvent]:
        """The `limit` oldest events behind `seq`, in the order of commits."""
        query = EVENTS.where(OUTBOX.c.seq > seq, *wanted.clauses(), *self._settled(OUTBOX))
        return self._events(query.order_by(OUTBOX.c.seq).limit(limit))

    def event(self, event_id: str) -> StoredEvent | None:
        """The event of an id, if it is still kept."""
        return next(iter(self._events(EVENTS.where(OUTBOX.c.event_id == event_id))), None)

    def count(self, wanted: EventFilter = EventFilter()) -> list[tuple[str, str | None, str, str | None, int]]:
        """Numbers of the events that a filter admits, by stream, watch, type and label."""
        by = OUTBOX.c.stream_id, OUTBOX.c.watch_id, OUTBOX.c.type, OUTBOX.c.label
        query = sa.select(*by, sa.func.count()).where(*wanted.clauses()).group_by(*by)
        with self._database.reading_once() as connection:
            return [(row[0], row[1], row[2], row[3], row[4]) for row in connection.execute(query)]

    def answers(
        self, streams: Sequence[str] | None = None, limit: int = 100, before_seq: int | None = None
    ) -> list[StoredAnswers]:
        """The newest `limit` records, newest first: of some streams, or before a known one, where asked."""
        query = sa.select(HOP_ANSWERS).order_by(HOP_ANSWERS.c.seq.desc()).limit(limit)
        if streams is not None:
            query = query.where(HOP_ANSWERS.c.stream_id.in_(list(streams)))
        return self._answers(query if before_seq is None else query.where(HOP_ANSWERS.c.seq < before_seq))

    def answers_between(self, stream: str, since: datetime, until: datetime, limit: int) -> list[StoredAnswers]:
        """The oldest `limit` records of a stream that were decided in `[since, until)`."""
        times = HOP_ANSWERS.c.time >= since.isoformat(), HOP_ANSWERS.c.time < until.isoformat()
        query = sa.select(HOP_ANSWERS).where(HOP_ANSWERS.c.stream_id == stream, *times)
        return self._answers(query.order_by(HOP_ANSWERS.c.seq).limit(limit))

    def answers_around(self, stream: str, from_s: float, to_s: float, limit: int) -> list[StoredAnswers]:
        """The oldest `limit` records of a stream whose hops end between two of its seconds."""
        seconds = HOP_ANSWERS.c.stream_id == stream, HOP_ANSWERS.c.end_s.between(from_s, to_s)
        return self._answers(sa.select(HOP_ANSWERS).where(*seconds).order_by(HOP_ANSWERS.c.seq).limit(limit))

    def answers_after(self, seq: int, limit: int) -> list[StoredAnswers]:
        """The `limit` oldest records behind `seq`, in the order of commits."""
        query = sa.select(HOP_ANSWERS).where(HOP_ANSWERS.c.seq > seq, *self._settled(HOP_ANSWERS))
        return self._answers(query.order_by(HOP_ANSWERS.c.seq).limit(limit))

    def answers_since(self, since: datetime, streams: Sequence[str] | None = None) -> Iterator[StoredAnswers]:
        """The records of decisions from `since` (UTC) on, in the order of commits: of some streams where asked."""
        wanted = sa.select(HOP_ANSWERS).order_by(HOP_ANSWERS.c.seq).limit(READ_AT_ONCE)
        wanted = wanted.where(HOP_ANSWERS.c.time >= since.isoformat())
        if streams is not None:
            wanted = wanted.where(HOP_ANSWERS.c.stream_id.in_(list(streams)))
        seq = 0
        while found := self._answer_rows(wanted.where(HOP_ANSWERS.c.seq > seq)):
            yield from map(_answers_of, found)
            seq = found[-1].seq

    def last_seqs(self) -> tuple[int, int]:
        """The newest places among events and among answers; 0 where there is none."""
        query = sa.select(
            sa.select(sa.func.max(OUTBOX.c.seq)).scalar_subquery(),
            sa.select(sa.func.max(HOP_ANSWERS.c.seq)).scalar_subquery(),
        )
        with self._database.reading_once() as connection:
            events, answers = connection.execute(query).one()
        return events or 0, answers or 0

    def _settled(self, table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
        """No row before which another one may still be committed, where several processes write: numbers are given
        before commits, and who reads on behind the newest would miss it."""
        return (sa.literal_column(_SETTLED.format(table.name)),) if self._database.shared else ()

    def _events(self, query: sa.Select[tuple[object, ...]]) -> list[StoredEvent]:
        with self._database.reading_once() as connection:
            return [event_of(row) for row in connection.execute(query).mappings()]

    def _answers(self, query: sa.Select[tuple[object, ...]]) -> list[StoredAnswers]:
        return [_answers_of(row) for row in self._answer_rows(query)]

    def _answer_rows(self, query: sa.Select[tuple[object, ...]]) -> list[_AnswersRecord]:
        columns = HOP_ANSWERS.c.seq, HOP_ANSWERS.c.stream_id, HOP_ANSWERS.c.time, HOP_ANSWERS.c.data
        with self._database.reading_once() as connection:
            return list(map(_AnswersRecord._make, connection.execute(query.with_only_columns(*columns))))


def _answers_of(row: _AnswersRecord) -> StoredAnswers:
    # A day is 86,400 records of each stream: pydantic's parser takes half the time of the standard one. They are parsed
    # one by one as they are used: of thousands held at once, the garbage collector would take most of the time.
    seq, stream_id, time, data = row
    return StoredAnswers(seq, stream_id, datetime.fromisoformat(time), from_json(data))


ANSWERS_COLUMNS = ("stream_id", "end_s", "time", "data")
"""Those of HOP_ANSWERS that a row of `answers_row` fills by itself."""


def answers_row(stream_id: str, record: HopRecord, now: datetime) -> dict[str, str | float | int]:
    """A hop's record in the form in which it is written (see `counted`)."""
    data = dump_json(record.as_json())
    return {
        "stream_id": stream_id,
        "end_s": record.end_s,
        "time": now.isoformat(),
        "data": data,
        "own_bytes": len(data),
    }


def event_of(row: sa.RowMapping) -> StoredEvent:
    """An event from a row of EVENTS."""
    time, data = datetime.fromisoformat(row["time"]), _mapping(row["data"])
    parent, state = row["traceparent"], row["tracestate"]
    trace = None if parent is None else TraceContext(parent, state or "")
    event = Event(row["event_id"], row["type"], row["stream_id"], time, data, row["watch_id"], trace)
    return StoredEvent(row["seq"], event, row["label"])


def prune_events(connection: sa.Connection, now: datetime, keep: Keep) -> int:
    """Remove the oldest events that are delivered everywhere and are too old or too many bytes ago, except those whose
    evidence is held. Returns their number."""
    owed = sa.exists().where(DELIVERY.c.seq == OUTBOX.c.seq)
    held = sa.exists().where(EVIDENCE.c.event_id == OUTBOX.c.event_id, EVIDENCE.c.held_by.is_not(None))
    return _prune(connection, OUTBOX, ~owed & ~held, now - timedelta(seconds=keep.events_s), keep.events_bytes)


def prune_answers(connection: sa.Connection, now: datetime, keep: Keep) -> int:
    """Remove answers that are too old or too many bytes ago. Returns their number."""
    return _prune(connection, HOP_ANSWERS, sa.true(), now - timedelta(seconds=keep.answers_s), keep.answers_bytes)


def _prune(
    connection: sa.Connection, table: sa.Table, may_go: sa.ColumnElement[bool], since: datetime, most_bytes: int
) -> int:
    written = written_bytes(connection, table)
    oldest = sa.select(table.c.seq, table.c.time, table.c.written_bytes).where(may_go)
    rows = connection.execute(oldest.order_by(table.c.seq).limit(PRUNED_AT_ONCE)).all()
    earliest = since.isoformat()
    gone = [row.seq for row in rows if row.time < earliest or row.written_bytes <= written - most_bytes]
    for part in portions(gone):
        connection.execute(sa.delete(table).where(table.c.seq.in_(part)))
    return len(gone)


def written_bytes(connection: sa.Connection, table: sa.Table) -> int:
    """Bytes of data ever written into OUTBOX or HOP_ANSWERS, from the newest row."""
    return connection.scalar(_newest(table)) or 0


@cache
def _newest(table: sa.Table) -> sa.Select[tuple[int]]:
    return sa.select(table.c.written_bytes).order_by(table.c.seq.desc()).limit(1)


_Insert = TypeVar("_Insert", bound=sa.Insert)


def counted(insert: _Insert, table: sa.Table) -> _Insert:
    """An insert into OUTBOX or HOP_ANSWERS whose rows say in `own_bytes` how much data they hold themselves."""
    before = sa.func.coalesce(_newest(table).scalar_subquery(), 0)
    return insert.values(written_bytes=before + sa.bindparam("own_bytes", type_=sa.BigInteger))


def _mapping(text: str) -> dict[str, Json]:
    data = load_json(text)
    assert isinstance(data, dict)
    return data
