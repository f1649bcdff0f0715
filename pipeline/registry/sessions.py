"""Sessions: a browser proves a key once and is known by a token from then on. Only digests of tokens are kept."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from pipeline.clock import Clock
from pipeline.delivery.database import Database
from pipeline.delivery.tables import API_SESSION
from pipeline.registry.keys import Key, Keys

SESSION_S = 12 * 3600
"""How long a session lasts, if its key does not end before."""
MAX_SESSIONS = 10_000
"""Most sessions that are kept; the oldest end first."""


@dataclass(frozen=True, slots=True)
class Session:
    """A key that a browser has proved, until when (UTC)."""

    key: Key
    expires_at: datetime


class Sessions:
    """The sessions in a database. Methods block; they may be called from many threads."""

    def __init__(self, database: Database, keys: Keys, clock: Clock) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock

    def open(self, key: Key) -> tuple[Session, str]:
        """A new session of a key that was proved, and the token that the browser sends from now on."""
        now, token = self._clock.now(), secrets.token_urlsafe(32)
        ends = now + timedelta(seconds=SESSION_S)
        expires_at = min(ends, key.expires_at) if key.expires_at else ends
        row = {"digest": _digest(token), "key_id": key.id, "created_at": now.isoformat()}
        with self._database.writing() as connection:
            connection.execute(sa.delete(API_SESSION).where(API_SESSION.c.expires_at <= now.isoformat()))
            newest = sa.select(API_SESSION.c.digest).order_by(API_SESSION.c.created_at.desc()).limit(MAX_SESSIONS - 1)
            connection.execute(sa.delete(API_SESSION).where(API_SESSION.c.digest.not_in(newest)))
            connection.execute(sa.insert(API_SESSION).values(expires_at=expires_at.isoformat(), **row))
        return Session(key, expires_at), token

    def of(self, token: str) -> Session | None:
        """The session of a token, if it and its key stand."""
        query = sa.select(API_SESSION).where(API_SESSION.c.digest == _digest(token))
        with self._database.reading_once() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or datetime.fromisoformat(row.expires_at) <= self._clock.now():
            return None
        key = self._keys.of(row.key_id)
        return None if key is None else Session(key, datetime.fromisoformat(row.expires_at))

    def close(self, token: str) -> None:
        """End a session, if there is one."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(API_SESSION).where(API_SESSION.c.digest == _digest(token)))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
