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

    def keep(self, watch: str, subject: str, content: str, by: str) -> None:
        """Keep a result, and forget what is too old, of any watch."""
        now = self._clock.now()
        made = StoredWordingTest(subject, content, by, now)
        with self._database.writing() as connection:
            others = connection.execute(sa.select(META).where(META.c.key.startswith(_KEY, autoescape=True))).all()
            kept = {row.key: list(_fresh(row.value, now)) for row in others}
            before = [one for one in kept.get(_KEY + watch, ()) if one.subject != subject]
            kept[_KEY + watch] = [made, *before][:MOST_TESTS]
            for key, tests in kept.items():
                connection.execute(sa.delete(META).where(META.c.key == key))
                if tests:
                    connection.execute(sa.insert(META).values(key=key, value=_text(tests)))

    def of(self, watch: str) -> Sequence[StoredWordingTest]:
        """The results of a watch that are not too old, newest first."""
        with self._database.reading() as connection:
            value = connection.scalar(sa.select(META.c.value).where(META.c.key == _KEY + watch))
        return list(_fresh(value, self._clock.now())) if value else []


def _fresh(value: str, now: datetime) -> Iterator[StoredWordingTest]:
    for subject, content, by, at in json.loads(value):
        time = datetime.fromisoformat(at)
        if now - time <= timedelta(days=TESTS_DAYS):
            yield StoredWordingTest(subject, content, by, time)


def _text(tests: Sequence[StoredWordingTest]) -> str:
    return json.dumps([[one.subject, one.content, one.by, one.at.isoformat()] for one in tests], ensure_ascii=False)
