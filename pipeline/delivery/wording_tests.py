"""Results of tests of watches' wordings, as text, the newest of each watch for some time."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from pipeline.clock import Clock
from pipeline.delivery.database import Database
from pipeline.delivery.tables import META

MOST_TESTS = 20
"""Most results kept of a watch; the oldest goes for another."""
TESTS_DAYS = 90
"""How long one is kept."""
_KEY = "wording_tests:"


@dataclass(frozen=True, slots=True)
class StoredWordingTest:
    """A result: `content` is JSON, which who keeps it understands; `by` kept it `at` a time (UTC). Another one on
    the same `subject` takes its place."""

    subject: str
    content: str
    by: str
    at: datetime


class WordingTestBook:
    """The results of a database, a row of META for each watch. Methods block and may raise StoreUnavailable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = _upsert_lock(database)

    def keep(self, watch: str, subject: str, content: str, by: str) -> None:
        """Keep a result, and forget the watches of whose results all are too old. Several processes may keep at once:
        each waits for those who keep one of the same watch, and for nobody else."""
        now = self._clock.now()
        self._forget_old(_KEY + watch, now)
        made, here = StoredWordingTest(subject, content, by, now), META.c.key == _KEY + watch
        with self._database.writing() as connection:
            before = _fresh(connection.execute(self._lock, {"key": _KEY + watch, "value": "[]"}).scalar_one(), now)
            kept = [made, *(one for one in before if one.subject != subject)][:MOST_TESTS]
            connection.execute(sa.update(META).where(here).values(value=_text(kept)))

    def of(self, watch: str) -> Sequence[StoredWordingTest]:
        """The results of a watch that are not too old, newest first."""
        with self._database.reading_once() as connection:
            value = connection.scalar(sa.select(META.c.value).where(META.c.key == _KEY + watch))
        return list(_fresh(value, self._clock.now())) if value else []

    def _forget_old(self, kept: str, now: datetime) -> None:
        """Delete the rows, but the one that is `kept`, in which all is too old and to which nobody adds now. In a
        transaction of its own and by the order of their keys, so that nobody who keeps waits for another in a circle.
        """
        others = sa.select(META).where(META.c.key.startswith(_KEY, autoescape=True), META.c.key != kept)
        with self._database.reading_once() as connection:
            rows = connection.execute(others.order_by(META.c.key)).all()
        if old := [row for row in rows if not any(_fresh(row.value, now))]:
            with self._database.writing() as connection:
                for row in old:
                    connection.execute(sa.delete(META).where(META.c.key == row.key, META.c.value == row.value))


def _upsert_lock(database: Database) -> sa.Executable:
    """A row as it is now, or the one that is given where there is none, which is this transaction's until its end."""
    insert = database.insert(META)
    same = {"value": META.c.value}
    return insert.on_conflict_do_update(index_elements=["key"], set_=same).returning(META.c.value)


def _fresh(value: str, now: datetime) -> Iterator[StoredWordingTest]:
    for subject, content, by, at in json.loads(value):
        time = datetime.fromisoformat(at)
        if now - time <= timedelta(days=TESTS_DAYS):
            yield StoredWordingTest(subject, content, by, time)


def _text(tests: Sequence[StoredWordingTest]) -> str:
    return json.dumps([[one.subject, one.content, one.by, one.at.isoformat()] for one in tests], ensure_ascii=False)
