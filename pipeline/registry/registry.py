"""The registry in the store: entries, edited all or none, with the history of who changed what."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from pipeline.clock import Clock
from pipeline.delivery.database import Database
from pipeline.delivery.tables import EDIT, ENTRY
from pipeline.errors import ConfigError
from pipeline.registry.entry import (
    FILE_OWNER,
    Change,
    Edit,
    EntryMissing,
    EntryOwned,
    EntryPresent,
    Kind,
    RegistryEntry,
    RevisionConflict,
    Spec,
)

MAX_ENTRIES = 10_000
"""Most entries of a kind; another is refused."""
MAX_SPEC_BYTES = 64 * 1024
"""Largest spec, as JSON; a larger one is refused."""
KEEP_EDITS = 20_000
"""How many edits the history holds; the oldest go first."""

_EDITING_LOCK = 7_275_118


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All entries as they were after the edit `generation`, by kind and slug."""

    generation: int = 0
    entries: Mapping[tuple[str, str], RegistryEntry] = field(default_factory=dict)

    def of(self, kind: Kind) -> dict[str, RegistryEntry]:
        """The entries of a kind, in the order of slugs."""
        return {slug: entry for (of, slug), entry in sorted(self.entries.items()) if of == kind}

    def get(self, kind: Kind, slug: str) -> RegistryEntry:
        """Raises EntryMissing, naming what there is."""
        entry = self.entries.get((kind, slug))
        if entry is None:
            raise EntryMissing(f"there is no {kind} {slug!r}; {_known(kind, list(self.of(kind)))}")
        return entry


class Registry:
    """Desired state, in a database that other processes may edit too.

    Methods block and may raise StoreUnavailable; they may be called from many threads. `on_edit` is called after each
    edit made here, in the thread that made it.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self._clock = clock
        self._refreshing = threading.Lock()
        self._snapshot = Snapshot()
        self.on_edit: Callable[[], None] = lambda: None

    def snapshot(self) -> Snapshot:
        """The entries as they are now. Only what changed since the last call is read."""
        with self._refreshing, self.database.reading() as connection:
            known = self._snapshot
            oldest, newest = connection.execute(sa.select(sa.func.min(EDIT.c.seq), sa.func.max(EDIT.c.seq))).one()
            if newest is None or newest == known.generation:
                return known
            entries = {} if oldest > known.generation + 1 else dict(known.entries)
            query = sa.select(ENTRY)
            if entries:
                changed = sa.select(EDIT.c.kind, EDIT.c.slug).where(EDIT.c.seq > known.generation).distinct()
                for kind, slug in connection.execute(changed):
                    entries.pop((kind, slug), None)
                recent = sa.exists().where(
                    EDIT.c.seq > known.generation, EDIT.c.kind == ENTRY.c.kind, EDIT.c.slug == ENTRY.c.slug
                )
                query = query.where(recent)
            for row in connection.execute(query):
                entries[row.kind, row.slug] = _entry(row)
            self._snapshot = Snapshot(newest, entries)
            return self._snapshot

    def edit(self, changes: Sequence[Change], actor: str) -> list[RegistryEntry | None]:
        """Make all changes or none; the entries after them, None for those removed.

        What is so already stays at its revision. Raises EntryMissing, EntryPresent, EntryOwned, RevisionConflict, and
        ConfigError where a bound is exceeded.
        """
        now = self._clock.now()
        with self.database.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_EDITING_LOCK)))
            after = [self._change(connection, change, actor, now) for change in changes]
            _bound_history(connection)
        self.on_edit()
        return after

    def edits(
        self, limit: int = 100, before_seq: int | None = None, kind: Kind | None = None, slug: str | None = None
    ) -> list[Edit]:
        """The newest edits, newest first: those before a known one, of a kind or of an entry, where asked."""
        query = sa.select(EDIT).order_by(EDIT.c.seq.desc()).limit(limit)
        for column, value in ((EDIT.c.kind, kind), (EDIT.c.slug, slug)):
            query = query if value is None else query.where(column == value)
        if before_seq is not None:
            query = query.where(EDIT.c.seq < before_seq)
        with self.database.reading_once() as connection:
            return [_edit(row) for row in connection.execute(query)]

    def _change(self, connection: sa.Connection, change: Change, actor: str, now: datetime) -> RegistryEntry | None:
        here = (ENTRY.c.kind == change.kind) & (ENTRY.c.slug == change.slug)
        row = connection.execute(sa.select(ENTRY).where(here)).one_or_none()
        present = None if row is None else _entry(row)
        _allow(change, present)
        if change.spec is None:
            if present is None:
                raise EntryMissing(f"there is no {change.kind} {change.slug!r}")
            connection.execute(sa.delete(ENTRY).where(here))
            _note(connection, change, present, present.revision + 1, actor, now)
            return None
        if present and _dump(present.spec) == _dump(change.spec) and present.owner == change.owner:
            return present
        _bound(connection, change, present)
        revision = _next_revision(connection, change, present)
        values = {
            "revision": revision,
            "owner": change.owner,
            "spec": _dump(change.spec),
            "updated_at": now.isoformat(),
        }
        if present:
            connection.execute(sa.update(ENTRY).where(here).values(**values))
        else:
            named = {"kind": change.kind, "slug": change.slug, "created_at": now.isoformat()}
            connection.execute(sa.insert(ENTRY).values(**named, **values))
        _note(connection, change, present, revision, actor, now)
        created_at = present.created_at if present else now
        return RegistryEntry(change.kind, change.slug, revision, change.owner, change.spec, created_at, now)


def _allow(change: Change, present: RegistryEntry | None) -> None:
    """Raise what stands against a change of an entry as it is."""
    name = f"{change.kind} {change.slug!r}"
    if present and present.file and present.owner != change.owner and not change.owner.startswith(FILE_OWNER):
        raise EntryOwned(f"the {name} is written in {present.file}; change it there, then reload (SIGHUP)")
    if change.expected == "any":
        return
    if change.expected == "absent":
        if present:
            raise EntryPresent(f"there is a {name} already; choose another slug, or edit that one")
        return
    if present is None:
        raise EntryMissing(f"there is no {name} any more")
    if present.revision != change.expected:
        raise RevisionConflict(
            f"the {name} is at revision {present.revision} now, and this change was made for {change.expected};"
            " read it again and repeat what is still wanted"
        )


def _bound(connection: sa.Connection, change: Change, present: RegistryEntry | None) -> None:
    if (size := len(_dump(change.spec).encode())) > MAX_SPEC_BYTES:
        raise ConfigError(f"the {change.kind} {change.slug!r} takes {size} bytes; expected at most {MAX_SPEC_BYTES}")
    of_kind = sa.select(sa.func.count()).select_from(ENTRY).where(ENTRY.c.kind == change.kind)
    if present is None and connection.scalars(of_kind).one() >= MAX_ENTRIES:
        raise ConfigError(f"there are {MAX_ENTRIES} entries of the kind {change.kind}, the most there may be")


def _next_revision(connection: sa.Connection, change: Change, present: RegistryEntry | None) -> int:
    """One more than the entry ever had, so that an entry that comes back is never taken for the one that went."""
    query = sa.select(sa.func.max(EDIT.c.revision)).where(EDIT.c.kind == change.kind, EDIT.c.slug == change.slug)
    return max(connection.scalar(query) or 0, present.revision if present else 0) + 1


def _note(
    connection: sa.Connection, change: Change, present: RegistryEntry | None, revision: int, actor: str, now: datetime
) -> None:
    before = None if present is None else _dump(present.spec)
    after = None if change.spec is None else _dump(change.spec)
    values = {"kind": change.kind, "slug": change.slug, "revision": revision, "at": now.isoformat(), "actor": actor}
    connection.execute(sa.insert(EDIT).values(**values, before=before, after=after))


def _bound_history(connection: sa.Connection) -> None:
    newest = connection.scalar(sa.select(sa.func.max(EDIT.c.seq)))
    if newest and newest > KEEP_EDITS:
        connection.execute(sa.delete(EDIT).where(EDIT.c.seq <= newest - KEEP_EDITS))


def _entry(row: sa.Row[tuple[object, ...]]) -> RegistryEntry:
    created_at, updated_at = datetime.fromisoformat(row.created_at), datetime.fromisoformat(row.updated_at)
    return RegistryEntry(row.kind, row.slug, row.revision, row.owner, json.loads(row.spec), created_at, updated_at)


def _edit(row: sa.Row[tuple[object, ...]]) -> Edit:
    before, after = (None if text is None else json.loads(text) for text in (row.before, row.after))
    return Edit(row.seq, row.kind, row.slug, row.revision, datetime.fromisoformat(row.at), row.actor, before, after)


def _dump(spec: Spec | None) -> str:
    """As canonical JSON: what is equal reads equal."""
    return json.dumps(spec, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _known(kind: str, slugs: Sequence[str]) -> str:
    if not slugs:
        return f"there is no {kind} at all"
    more = f" and {len(slugs) - 10} more" if len(slugs) > 10 else ""
    return f"there are {', '.join(slugs[:10])}{more}"
