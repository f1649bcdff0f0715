"""Storage of what must survive a crash: the position of each stream, and the events that still have to go out.

The store is synchronous and may be called from many threads. A method raises StoreUnavailable when the database cannot
do it now (full disk, held lock, lost server); then nothing has changed. It never holds URLs or credentials.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
import structlog

from pipeline.clock import Clock
from pipeline.core.outcome import Decision
from pipeline.delivery import ownership
from pipeline.delivery.database import Database
from pipeline.delivery.database_faults import StoreFull
from pipeline.delivery.history import (
    ANSWERS_COLUMNS,
    EVENTS,
    History,
    Keep,
    StoredEvent,
    answers_row,
    counted,
    event_of,
    prune_answers,
    prune_events,
)
from pipeline.delivery.prepared import Prepared
from pipeline.delivery.tables import DELIVERY, HOP_ANSWERS, META, OUTBOX, STREAM_STATE, portions
from pipeline.errors import StreamTaken
from pipeline.sinks.cloudevents import dump_json
from pipeline.types import Event

log = structlog.get_logger()

PRUNE_EVERY = 256
"""Events and answers written between two prunings of the history."""

_PRUNING_LOCK = 7_275_119
_OWED = (
    EVENTS.join(DELIVERY)
    .where(DELIVERY.c.sink == sa.bindparam("sink"))
    .order_by(DELIVERY.c.seq)
    .limit(sa.bindparam("most"))
)
_SEQS = sa.select(OUTBOX.c.event_id, OUTBOX.c.seq).where(OUTBOX.c.event_id.in_(sa.bindparam("ids", expanding=True)))
_KNOWN = EVENTS.where(OUTBOX.c.event_id.in_(sa.bindparam("ids", expanding=True)))
_SAME = ("type", "stream_id", "watch_id", "data")
"""What an event that is decided again has in common with the first; it may be decided at another time."""
_DELIVERED = sa.delete(DELIVERY).where(
    DELIVERY.c.sink == sa.bindparam("sink"), DELIVERY.c.seq.in_(sa.bindparam("seqs", expanding=True))
)
_NOTE = "sink "
"""How the keys begin under which META remembers something of a sink; the sink's name follows."""

_StateRow = dict[str, str | float]
_EventRow = dict[str, str | int | None]
_AnswersRow = dict[str, str | float | int]


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream's position after its newest committed decision; `resume_s` is stream time, `updated_at` UTC."""

    state: str
    resume_s: float
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Rows:
    """A decision in the form in which it is written, and the fencing token of its stream when it was made (None: none
    is needed)."""

    state: _StateRow
    events: tuple[tuple[str, _EventRow], ...]
    answers: _AnswersRow | None = None
    token: int | None = None

    @property
    def stream_id(self) -> str:
        """The stream that it is about."""
        return str(self.state["stream_id"])


class Store:
    """Stream states, outgoing events and answers in the database at `url`; see Database for what opening it raises.

    Events delivered to every sink, and answers, stay as `history` for as long as `keep` says. `max_bytes` bounds a
    SQLite file: when it, or the disk, is full the answers go first, then the history; after that commits raise
    StoreUnavailable until sinks have taken events. Undelivered events are never dropped. `exclusive` allows one such
    process per database: once another one has taken it, whatever writes raises NotOwner. `holder` names this process
    among several that share the database: a stream is decided on by the one that has taken it, and by nobody else.
    `conflicts` counts the events that were dropped because another one has their id, which must not happen.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        keep: Keep = Keep(),
        max_bytes: int | None = None,
        exclusive: bool = False,
        holder: str | None = None,
    ) -> None:
        self.conflicts = 0
        self.holder = holder
        self._tokens: dict[str, int] = {}
        self._clock = clock
        self.keep = keep
        self._sinks: tuple[str, ...] = ()
        self._unpruned = 0
        self.database = Database(url, max_bytes, exclusive, shared=holder is not None)
        self.history = History(self.database)
        self._save_state = _upsert_state(self.database)
        save_event = self.database.insert(OUTBOX).on_conflict_do_nothing(index_elements=["event_id"])
        self._save_event = counted(save_event, OUTBOX)
        self._save_answers = Prepared(counted(sa.insert(HOP_ANSWERS), HOP_ANSWERS), ANSWERS_COLUMNS)
        self._save_note = _upsert_note(self.database)
        self._save_owed = self.database.insert(DELIVERY).on_conflict_do_nothing()

    def register_sinks(self, names: Sequence[str]) -> None:
        """From now on, every new event is to be delivered to these sinks. Earlier events are not."""
        self._sinks = tuple(names)

    def take(self, stream_id: str) -> None:
        """Become the one who decides on a stream: whoever did so before decides no more. To be called before `load`.

        Raises StreamTaken where another process that shares the database holds it. A process that has the database to
        itself always gets it.
        """
        with self.database.writing() as connection:
            holder = self.holder or "the only process"
            token = ownership.take_stream(connection, stream_id, holder, force=self.holder is None)
        self._tokens[stream_id] = token

    def let_go(self, stream_id: str) -> None:
        """Decide no more on a stream, so that the next one need not wait. Nothing, if it was not taken."""
        token = self._tokens.pop(stream_id, None)
        if token is not None:
            with self.database.writing() as connection:
                ownership.let_go(connection, stream_id, token)

    def owns(self, stream_id: str) -> bool:
        """True if it has taken the stream, as far as it knows."""
        return stream_id in self._tokens

    def owned(self) -> frozenset[str]:
        """The streams it has taken, as far as it knows."""
        return frozenset(self._tokens)

    def load(self, stream_id: str) -> StoredStream | None:
        """The stream as of its newest committed decision, or None for one never seen."""
        query = sa.select(STREAM_STATE).where(STREAM_STATE.c.stream_id == stream_id)
        with self.database.reading_once() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else StoredStream(row.state, row.resume_s, datetime.fromisoformat(row.updated_at))

    def streams(self) -> list[tuple[str, StoredStream]]:
        """All streams ever seen, by slug."""
        with self.database.reading_once() as connection:
            rows = connection.execute(sa.select(STREAM_STATE).order_by(STREAM_STATE.c.stream_id))
            return [
                (row.stream_id, StoredStream(row.state, row.resume_s, datetime.fromisoformat(row.updated_at)))
                for row in rows
            ]

    def rows_of(self, decision: Decision) -> Rows:
        """The rows that `write` takes. Raises ValueError for event data that JSON cannot hold and a time without a
        zone, and StreamTaken where others share the database and this one has not taken the stream."""
        token = self._tokens.get(decision.stream_id)
        if token is None and self.holder is not None:
            raise StreamTaken(f"{self.holder} has not taken the stream {decision.stream_id}", (decision.stream_id,))
        now, record = self._clock.now(), decision.record
        state: _StateRow = {
            "stream_id": decision.stream_id,
            "state": decision.state,
            "resume_s": decision.resume_s,
            "updated_at": now.isoformat(),
        }
        answers = answers_row(decision.stream_id, record, now) if record and self.keep.answers_bytes else None
        return Rows(state, tuple((event.id, _row_of(event)) for event in decision.events), answers, token)

    def commit(self, decisions: Sequence[Decision]) -> int:
        """Make decisions durable together; later ones of a stream replace earlier ones.

        An event whose id is already there is neither written nor delivered again; where that is another event, it is
        logged as an error. Returns how many events are new. Raises ValueError for event data that JSON cannot hold;
        then nothing is written.
        """
        return self.write([self.rows_of(decision) for decision in decisions])

    def write(self, rows: Sequence[Rows]) -> int:
        """`commit` for decisions whose rows were made before. Raises StreamTaken, with nothing written, naming the
        streams on which another process decides now."""
        try:
            return self._write(rows)
        except StoreFull:
            if not self._make_room():
                raise
            return self._write(rows)

    def _write(self, rows: Sequence[Rows]) -> int:
        states = {row.state["stream_id"]: row.state for row in rows}
        events = dict(event for row in rows for event in row.events)
        answers = [row.answers for row in rows if row.answers]
        tokens = [(row.stream_id, row.token) for row in rows if row.token is not None]
        with self.database.writing() as connection:
            if tokens:
                self._check(connection, tokens)
            if states:
                self._save_state.run(connection, *states.values())
            for known in _known(connection, list(events)):
                self._shout_if_changed(known, events.pop(str(known["event_id"])))
            if events:
                self._write_events(connection, events)
            if answers:
                self._save_answers.run(connection, *answers)
            self._prune_now_and_then(connection, len(events) + len(answers))
        return len(events)

    def pending_events(self, sink: str, limit: int) -> list[StoredEvent]:
        """The oldest `limit` events that `sink` still has to get, in the order of commits."""
        with self.database.reading_once() as connection:
            rows = connection.execute(_OWED, {"sink": sink, "most": limit}).mappings()
            return [event_of(row) for row in rows]

    def pending(self, sink: str) -> int:
        """The number of events `sink` still has to get."""
        query = sa.select(sa.func.count()).select_from(DELIVERY).where(DELIVERY.c.sink == sink)
        with self.database.reading_once() as connection:
            return connection.scalars(query).one()

    def delivered(self, sink: str, seqs: Sequence[int], note: str | None = None) -> None:
        """Note that `sink` has these events, or is not to get them; `note` replaces what is remembered of it."""
        with self.database.writing() as connection:
            for part in portions(seqs):
                connection.execute(_DELIVERED, {"sink": sink, "seqs": part})
            if note is not None:
                connection.execute(self._save_note, {"key": _NOTE + sink, "value": note})

    def sink_note(self, sink: str) -> str | None:
        """The note on `sink` that `delivered` stored last, or None."""
        with self.database.reading_once() as connection:
            return connection.scalar(sa.select(META.c.value).where(META.c.key == _NOTE + sink))

    def sinks_owed(self) -> tuple[str, ...]:
        """Names under which events still wait, registered or not."""
        with self.database.reading_once() as connection:
            return tuple(connection.scalars(sa.select(DELIVERY.c.sink).distinct().order_by(DELIVERY.c.sink)))

    def forget_sink(self, sink: str) -> int:
        """Drop what waits for a sink that no configuration names any more. Returns how many events it will not get."""
        with self.database.writing() as connection:
            connection.execute(sa.delete(META).where(META.c.key == _NOTE + sink))
            return connection.execute(sa.delete(DELIVERY).where(DELIVERY.c.sink == sink)).rowcount

    def prune(self, keep: Keep | None = None) -> int:
        """Remove what is kept beyond `keep` from the oldest part of the history. Returns how many events went."""
        with self.database.writing() as connection:
            return self._prune(connection, keep or self.keep)

    def close(self) -> None:
        """Close the database, and let another exclusive process in."""
        self.database.close()

    def _check(self, connection: sa.Connection, tokens: Sequence[tuple[str, int]]) -> None:
        try:
            ownership.check_streams(connection, tokens)
        except StreamTaken as error:
            for slug, token in tokens:
                if slug in error.streams and self._tokens.get(slug) == token:
                    del self._tokens[slug]
            raise

    def _write_events(self, connection: sa.Connection, events: dict[str, _EventRow]) -> None:
        connection.execute(self._save_event, list(events.values()))
        seqs = _seqs_of(connection, list(events)).values() if self._sinks else ()
        if owed := [{"sink": sink, "seq": seq} for sink in self._sinks for seq in seqs]:
            connection.execute(self._save_owed, owed)

    def _shout_if_changed(self, known: sa.RowMapping, again: _EventRow) -> None:
        differing = [name for name in _SAME if known[name] != again[name]]
        if differing:
            self.conflicts += 1
            names = {name: again[name] for name in ("event_id", "stream_id", "watch_id", "type")}
            log.error("event_dropped_whose_id_another_event_has", differing=differing, **names)

    def _prune_now_and_then(self, connection: sa.Connection, more: int) -> None:
        self._unpruned += more
        if self._unpruned >= PRUNE_EVERY and self._may_prune(connection):
            self._prune(connection, self.keep)
            self._unpruned = 0

    def _may_prune(self, connection: sa.Connection) -> bool:
        """True unless another process is at it, for which this one need not wait."""
        if self.database.is_sqlite or not self.database.shared:
            return True
        return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_PRUNING_LOCK))))

    def _prune(self, connection: sa.Connection, keep: Keep) -> int:
        now = self._clock.now()
        prune_answers(connection, now, keep)
        return prune_events(connection, now, keep)

    def _make_room(self) -> bool:
        """Give up some of the history: the oldest answers, or events where there are none. Whether anything went."""
        now, nothing = self._clock.now(), Keep(events_bytes=0, answers_bytes=0)
        with self.database.writing() as connection:
            return bool(prune_answers(connection, now, nothing) or prune_events(connection, now, nothing))


def _upsert_state(database: Database) -> Prepared:
    insert = database.insert(STREAM_STATE)
    changed = {name: insert.excluded[name] for name in ("state", "resume_s", "updated_at")}
    upsert = insert.on_conflict_do_update(index_elements=["stream_id"], set_=changed)
    return Prepared(upsert, ("stream_id", *changed))


def _upsert_note(database: Database) -> sa.Executable:
    insert = database.insert(META)
    return insert.on_conflict_do_update(index_elements=["key"], set_={"value": insert.excluded["value"]})


def _row_of(event: Event) -> _EventRow:
    if event.time.tzinfo is None:
        raise ValueError(f"the time of event {event.id} has no zone: {event.time.isoformat()}; expected UTC")
    data, trace = dump_json(event.data), event.trace
    return {
        "event_id": event.id,
        "stream_id": event.stream_id,
        "watch_id": event.watch_id,
        "type": event.type,
        "time": event.time.isoformat(),
        "data": data,
        "own_bytes": len(data),
        "traceparent": trace.parent if trace else None,
        "tracestate": trace.state if trace else None,
    }


def _known(connection: sa.Connection, ids: Sequence[str]) -> Iterator[sa.RowMapping]:
    """Those events that are there."""
    for part in portions(ids):
        yield from connection.execute(_KNOWN, {"ids": part}).mappings().all()


def _seqs_of(connection: sa.Connection, ids: Sequence[str]) -> dict[str, int]:
    """Sequence numbers of those events that are there, by event id."""
    found: dict[str, int] = {}
    for part in portions(ids):
        found.update((row.event_id, row.seq) for row in connection.execute(_SEQS, {"ids": part}))
    return found
