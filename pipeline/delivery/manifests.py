"""Index of the evidence kept of events: manifests, and the files they name, in the store's database."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from pipeline.delivery.database import Database
from pipeline.delivery.tables import EVIDENCE, EVIDENCE_FILE, EVIDENCE_PART, META, OUTBOX

_PORTION = 400
_IDENTITY = "evidence"
"""Key of the store's mark."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the evidence folder: its path below it, the SHA-256 of its bytes in hexadecimal, and how many."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """The manifest of an event's evidence as JSON text, and its files by name. `held_by` is who wants it to stay."""

    event_id: str
    stream_id: str
    watch_id: str
    type: str
    time: datetime
    data: str
    files: dict[str, StoredFile]
    held_by: str | None = None

    @property
    def bytes(self) -> int:
        """Size of all its files in bytes, files shared with other manifests included."""
        return sum({file.path: file.bytes for file in self.files.values()}.values())


class Manifests:
    """The manifests of a database. Methods block and may raise StoreUnavailable. Those that remove return the paths of
    files that no manifest names any more."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._save_file = database.insert(EVIDENCE_FILE).on_conflict_do_nothing(index_elements=["path"])

    def identity(self) -> str:
        """An id that distinguishes this store from any other, whatever its address is."""
        with self._database.writing() as connection:
            known = connection.scalar(sa.select(META.c.value).where(META.c.key == _IDENTITY))
            if known is None:
                known = uuid.uuid4().hex
                connection.execute(sa.insert(META).values(key=_IDENTITY, value=known))
            return str(known)

    def write(self, one: StoredManifest) -> list[str]:
        """Keep a manifest in place of an earlier one of its event, which keeps being held if it was."""
        with self._database.writing() as connection:
            held_by = connection.scalar(sa.select(EVIDENCE.c.held_by).where(EVIDENCE.c.event_id == one.event_id))
            gone = _remove(connection, [one.event_id], keep=frozenset(file.path for file in one.files.values()))
            row = {
                "event_id": one.event_id,
                "stream_id": one.stream_id,
                "watch_id": one.watch_id,
                "type": one.type,
                "time": one.time.isoformat(),
                "held_by": one.held_by or held_by,
                "data": one.data,
            }
            connection.execute(sa.insert(EVIDENCE).values(row))
            if one.files:
                files = {file.path: file for file in one.files.values()}
                rows = [{"path": file.path, "sha256": file.sha256, "bytes": file.bytes} for file in files.values()]
                connection.execute(self._save_file, rows)
                parts = [
                    {"event_id": one.event_id, "name": name, "path": file.path} for name, file in one.files.items()
                ]
                connection.execute(sa.insert(EVIDENCE_PART), parts)
            return gone

    def find(self, event_id: str) -> StoredManifest | None:
        """The manifest of an event's evidence, or None."""
        with self._database.reading() as connection:
            return _manifest(connection, EVIDENCE.c.event_id == event_id)

    def paths_of(self, name: str, event_ids: Sequence[str]) -> dict[str, str]:
        """The path of the file of a name in the evidence of events, by event; those that have none are left out."""
        query = sa.select(EVIDENCE_PART.c.event_id, EVIDENCE_PART.c.path).where(
            EVIDENCE_PART.c.event_id.in_(list(event_ids)), EVIDENCE_PART.c.name == name
        )
        with self._database.reading_once() as connection:
            return {event_id: path for event_id, path in connection.execute(query)}

    def around(self, stream_id: str, at: datetime, within_s: float, limit: int = 8) -> list[StoredManifest]:
        """Manifests of a stream's events decided within so many seconds of a time, in their order."""
        since, until = at - timedelta(seconds=within_s), at + timedelta(seconds=within_s)
        query = sa.select(EVIDENCE.c.event_id).where(
            EVIDENCE.c.stream_id == stream_id, EVIDENCE.c.time.between(since.isoformat(), until.isoformat())
        )
        with self._database.reading() as connection:
            found = connection.scalars(query.order_by(EVIDENCE.c.time).limit(limit)).all()
            return [one for name in found if (one := _manifest(connection, EVIDENCE.c.event_id == name))]

    def hold(self, event_id: str, by: str | None) -> bool:
        """Say who wants the evidence of an event, and the event, to stay; None: nobody any more. False where there is
        none."""
        with self._database.writing() as connection:
            change = sa.update(EVIDENCE).where(EVIDENCE.c.event_id == event_id).values(held_by=by)
            return bool(connection.execute(change).rowcount)

    def total_bytes(self) -> int:
        """Size of all files of evidence in bytes, each counted once."""
        with self._database.reading_once() as connection:
            return int(connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(EVIDENCE_FILE.c.bytes), 0))) or 0)

    def paths(self) -> frozenset[str]:
        """Paths of all files of evidence."""
        with self._database.reading_once() as connection:
            return frozenset(connection.scalars(sa.select(EVIDENCE_FILE.c.path)))

    def unfinished(self, mark: str) -> list[StoredManifest]:
        """Manifests whose text holds `mark`."""
        with self._database.reading() as connection:
            query = sa.select(EVIDENCE.c.event_id).where(EVIDENCE.c.data.contains(mark, autoescape=True))
            found = connection.scalars(query).all()
            return [one for name in found if (one := _manifest(connection, EVIDENCE.c.event_id == name))]

    def remove_orphans(self) -> list[str]:
        """Remove what is kept of events that are kept no longer."""
        gone = ~sa.exists().where(OUTBOX.c.event_id == EVIDENCE.c.event_id)
        return self._remove_where(gone, None)

    def remove_older(self, before: datetime) -> list[str]:
        """Remove what was decided before a time."""
        return self._remove_where(EVIDENCE.c.time < before.isoformat(), None)

    def remove_oldest(self, count: int) -> list[str] | None:
        """Remove the oldest of all; None where nothing may go."""
        with self._database.writing() as connection:
            ids = _oldest(connection, sa.true(), count)
            return _remove(connection, ids) if ids else None

    def remove_beyond(self, stream_id: str, watch_id: str, most: int) -> list[str]:
        """Remove the oldest of a watch on a stream, but for `most`."""
        own = (EVIDENCE.c.stream_id == stream_id) & (EVIDENCE.c.watch_id == watch_id)
        with self._database.reading_once() as connection:
            count = connection.scalar(sa.select(sa.func.count()).select_from(EVIDENCE).where(own)) or 0
        return self._remove_where(own, count - most) if count > most else []

    def _remove_where(self, clause: sa.ColumnElement[bool], count: int | None) -> list[str]:
        with self._database.reading_once() as connection:
            if not _oldest(connection, clause, 1):
                return []
        with self._database.writing() as connection:
            return _remove(connection, _oldest(connection, clause, count))


def _oldest(connection: sa.Connection, clause: sa.ColumnElement[bool], count: int | None) -> list[str]:
    """Events whose evidence nobody holds, oldest first."""
    query = sa.select(EVIDENCE.c.event_id).where(clause, EVIDENCE.c.held_by.is_(None)).order_by(EVIDENCE.c.time)
    return list(connection.scalars(query if count is None else query.limit(count)))


def _remove(connection: sa.Connection, ids: Sequence[str], keep: frozenset[str] = frozenset()) -> list[str]:
    """Remove manifests; returns the paths that none names any more, but for those that are to stay."""
    gone: set[str] = set()
    for start in range(0, len(ids), _PORTION):
        some = ids[start : start + _PORTION]
        parts = EVIDENCE_PART.c.event_id.in_(some)
        gone |= set(connection.scalars(sa.select(EVIDENCE_PART.c.path).where(parts)))
        connection.execute(sa.delete(EVIDENCE_PART).where(parts))
        connection.execute(sa.delete(EVIDENCE).where(EVIDENCE.c.event_id.in_(some)))
    unnamed: list[str] = []
    paths = sorted(gone - keep)
    for start in range(0, len(paths), _PORTION):
        some = paths[start : start + _PORTION]
        named = set(connection.scalars(sa.select(EVIDENCE_PART.c.path).where(EVIDENCE_PART.c.path.in_(some))))
        free = [path for path in some if path not in named]
        connection.execute(sa.delete(EVIDENCE_FILE).where(EVIDENCE_FILE.c.path.in_(free)))
        unnamed += free
    return unnamed


def _manifest(connection: sa.Connection, clause: sa.ColumnElement[bool]) -> StoredManifest | None:
    row = connection.execute(sa.select(EVIDENCE).where(clause)).one_or_none()
    if row is None:
        return None
    query = (
        sa.select(EVIDENCE_PART.c.name, EVIDENCE_FILE)
        .join(EVIDENCE_FILE, EVIDENCE_FILE.c.path == EVIDENCE_PART.c.path)
        .where(EVIDENCE_PART.c.event_id == row.event_id)
        .order_by(EVIDENCE_PART.c.name)
    )
    files = {one.name: StoredFile(one.path, one.sha256, one.bytes) for one in connection.execute(query)}
    time = datetime.fromisoformat(row.time)
    return StoredManifest(row.event_id, row.stream_id, row.watch_id, row.type, time, row.data, files, row.held_by)
