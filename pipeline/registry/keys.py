"""Keys of the API: who may do what, on which streams, until when. Only their hashes are kept."""

import hashlib
import json
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from pipeline.clock import Clock
from pipeline.config.entries import require_slug
from pipeline.delivery.database import Database
from pipeline.delivery.tables import API_KEY, EDIT
from pipeline.errors import ConfigError
from pipeline.registry.entry import EntryMissing, EntryPresent

Role = Literal["viewer", "analyst", "operator", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may: look; watches and labels; streams and sinks; keys."""

PREFIX = "rsk"
MAX_KEYS = 1000
KEPT_S = 30.0
"""How long a key that was verified is trusted without hashing again, if it is not revoked meanwhile."""
_KEPT_KEYS = 1024
_NOTE_USE_S = 60.0

_GIVEN = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43,128}})")

# A key is 32 random bytes, which no guessing finds: the hash only has to keep a stolen store from being of use.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_NOBODY = _hasher.hash(secrets.token_urlsafe(32))


@dataclass(frozen=True, slots=True)
class Key:
    """A key, without what proves it. `tags` are those of the streams it is for, none of them: all. Times are UTC."""

    id: str
    name: str
    role: Role
    tags: frozenset[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def stands(self, now: datetime) -> bool:
        """True if it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Keys:
    """The keys in a database. Methods block; they may be called from many threads."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._verified: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._noted: dict[str, datetime] = {}

    def create(
        self,
        name: str,
        role: Role,
        tags: Iterable[str] = (),
        expires_at: datetime | None = None,
        by: str = "local",
        given: str | None = None,
    ) -> tuple[Key, str]:
        """A new key, and the text that proves it, which is shown this once; a text that is `given` proves it, if it has
        the form of one. Raises ConfigError and EntryPresent."""
        now = self._clock.now()
        identity, secret = _parts(given) if given is not None else (secrets.token_hex(6), secrets.token_urlsafe(32))
        require_slug(name)
        if role not in ROLES:
            raise ConfigError(f"role: {role!r} is none; expected one of {', '.join(ROLES)}")
        if expires_at is not None and expires_at <= now:
            raise ConfigError(f"expires_at: {expires_at.isoformat()} is past; expected a time to come")
        tags = frozenset(require_slug(tag) for tag in tags)
        key = Key(identity, name, role, tags, now, by, expires_at)
        with self._database.writing() as connection:
            present = [_key(row) for row in connection.execute(sa.select(API_KEY))]
            if any(other.name == name and other.stands(now) for other in present):
                raise EntryPresent(f"there is a key {name!r} already; revoke it first, or choose another name")
            if any(other.id == key.id for other in present):
                raise EntryPresent("there was a key with the id of the given one already; make another one")
            if len(present) >= MAX_KEYS:
                raise ConfigError(f"there are {MAX_KEYS} keys, the most there may be; revoked ones count")
            connection.execute(sa.insert(API_KEY).values(hash=_hasher.hash(secret), **_row(key)))
            self._note(connection, key, by, "created")
        return key, f"{PREFIX}_{key.id}_{secret}"

    def all(self) -> list[Key]:
        """All keys, revoked and expired ones too, by name."""
        with self._database.reading_once() as connection:
            return [_key(row) for row in connection.execute(sa.select(API_KEY).order_by(API_KEY.c.name))]

    def of(self, identity: str) -> Key | None:
        """The key of an id, if it stands."""
        with self._database.reading_once() as connection:
            row = connection.execute(sa.select(API_KEY).where(API_KEY.c.id == identity)).one_or_none()
        key = None if row is None else _key(row)
        return key if key is not None and key.stands(self._clock.now()) else None

    def any_stands(self) -> bool:
        """True if at least one key can be used."""
        now = self._clock.now()
        return any(key.stands(now) for key in self.all())

    def revoke(self, name: str, by: str = "local") -> Key:
        """Make the keys of a name worthless at once. Raises EntryMissing."""
        now = self._clock.now()
        with self._database.writing() as connection:
            query = sa.select(API_KEY).where((API_KEY.c.name == name) & API_KEY.c.revoked_at.is_(None))
            rows = connection.execute(query).all()
            if not rows:
                raise EntryMissing(f"there is no key {name!r} that could be revoked")
            for row in rows:
                change = sa.update(API_KEY).where(API_KEY.c.id == row.id).values(revoked_at=now.isoformat())
                connection.execute(change)
                self._note(connection, _key(row), by, "revoked")
        with self._lock:
            self._verified.clear()
        return _key(rows[0])

    def verify(self, text: str) -> Key | None:
        """The key that `text` proves, if it stands. Takes as long for one that is unknown as for one that is wrong."""
        key, now = self._proven(text), self._clock.now()
        if key is None or not key.stands(now):
            return None
        self._note_use(key, now)
        return key

    def knows(self, text: str) -> bool:
        """True if `text` proves a key, whether that stands or has been revoked."""
        return self._proven(text) is not None

    def _proven(self, text: str) -> Key | None:
        prefix, _, rest = text.partition("_")
        identity, _, secret = rest.partition("_")
        with self._database.reading_once() as connection:
            row = connection.execute(sa.select(API_KEY).where(API_KEY.c.id == identity)).one_or_none()
        known = row is not None and prefix == PREFIX
        proven = self._proves(row.hash if row is not None and known else _NOBODY, identity, secret)
        return _key(row) if row is not None and known and proven else None

    def _proves(self, stored: str, identity: str, secret: str) -> bool:
        digest = hashlib.blake2b(f"{identity}_{secret}_{stored}".encode(errors="replace"), digest_size=32).digest()
        now_s = self._clock.monotonic_s()
        with self._lock:
            seen = self._verified.get(digest)
            if seen and now_s - seen[1] < KEPT_S:
                return True
        try:
            _hasher.verify(stored, secret)
        except (VerifyMismatchError, VerificationError, InvalidHashError, UnicodeEncodeError):
            return False
        with self._lock:
            self._verified[digest] = identity, now_s
            while len(self._verified) > _KEPT_KEYS:
                self._verified.popitem(last=False)
        return True

    def _note_use(self, key: Key, now: datetime) -> None:
        noted = self._noted.get(key.id)
        if noted and now - noted < timedelta(seconds=_NOTE_USE_S):
            return
        self._noted[key.id] = now
        with self._database.writing() as connection:
            connection.execute(sa.update(API_KEY).where(API_KEY.c.id == key.id).values(last_used_at=now.isoformat()))

    def _note(self, connection: sa.Connection, key: Key, by: str, what: str) -> None:
        """Into the history, where edits are."""
        spec = json.dumps({"name": key.name, "role": key.role, "tags": sorted(key.tags)})
        before, after = (None, spec) if what == "created" else (spec, None)
        values = {"kind": "key", "slug": key.id, "revision": 1, "actor": by, "before": before, "after": after}
        connection.execute(sa.insert(EDIT).values(at=self._clock.now().isoformat(), **values))


def _parts(given: str) -> tuple[str, str]:
    """The id and the secret of a key that somebody made elsewhere. Raises ConfigError, which does not show it."""
    found = _GIVEN.fullmatch(given)
    if found is None:
        raise ConfigError(
            f"the given key has not the form of one; expected {PREFIX}_ID_SECRET with 12 hexadecimal digits and 43 to"
            " 128 random letters, digits, - or _"
        )
    return found[1], found[2]


def _row(key: Key) -> dict[str, str | None]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "tags": json.dumps(sorted(key.tags)),
        "created_at": key.created_at.isoformat(),
        "created_by": key.created_by,
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
    }


def _key(row: sa.Row[tuple[object, ...]]) -> Key:
    return Key(
        row.id,
        row.name,
        row.role,
        frozenset(json.loads(row.tags)),
        datetime.fromisoformat(row.created_at),
        row.created_by,
        _time(row.expires_at),
        _time(row.last_used_at),
        _time(row.revoked_at),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
