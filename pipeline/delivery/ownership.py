"""Ownership, judged by fencing tokens: numbers that grow with each taking, and that every commit checks in its own
transaction. An owner that was overtaken while it was away commits nothing more, whatever it believes to hold.

Two things have owners. A store has one where a process wants it for itself; the members of a fleet share it, and are
overtaken together. A stream has one in any case: the process that decides on it.
"""

from collections.abc import Iterable, Mapping
from functools import cache

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pipeline.delivery.prepared import Prepared
from pipeline.delivery.tables import META, OWNER_LEASE, STREAM_OWNER, portions
from pipeline.errors import NotOwner, StreamTaken

_KEY = "owner"
_HELD = sa.select(META.c.value).where(META.c.key == _KEY)
_HELD_STILL = Prepared(_HELD.with_for_update(read=True))
_TOKEN = sa.select(STREAM_OWNER.c.stream_id, STREAM_OWNER.c.token, STREAM_OWNER.c.holder).with_for_update(read=True)
_ONE = Prepared(_TOKEN.where(STREAM_OWNER.c.stream_id == sa.bindparam("id")))
_TOKENS = _TOKEN.where(STREAM_OWNER.c.stream_id.in_(sa.bindparam("ids", expanding=True)))
"""Made once: every commit asks them; a commit of one stream, which is the usual one, in the cheapest way."""


def now_s(dialect: str) -> sa.ColumnElement[float]:
    """The database's clock in seconds since 1970: the one by which leases run, whatever its clients' clocks show."""
    if dialect == "sqlite":
        return (sa.func.julianday("now") - 2440587.5) * 86_400.0
    return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)


def take(connection: sa.Connection) -> int:
    """Become the owner of a store, within a transaction that writes: the new token. Every older one is void once it
    commits."""
    token = int(str(connection.execute(_made(connection).with_for_update()).scalar_one())) + 1
    connection.execute(sa.update(META).where(META.c.key == _KEY).values(value=str(token)))
    return token


def join(connection: sa.Connection) -> int:
    """Become one of those who share a store: the token that stands, which is void once somebody takes the store."""
    return int(str(connection.execute(_made(connection)).scalar_one()))


def check(connection: sa.Connection, token: int, name: str) -> None:
    """Raise NotOwner if the token of store `name` is another one now. Whoever wants to take the store waits for the end
    of this transaction."""
    row = _HELD_STILL.run(connection).one_or_none()
    held = row and row.value
    if str(held) != str(token):
        raise NotOwner(
            f"the store {name} belongs to another process now (owner {held or 'unknown'}, this one is {token}); nothing"
            " more is decided here"
        )


def take_stream(connection: sa.Connection, stream_id: str, holder: str, force: bool) -> int:
    """Become the owner of a stream, within a transaction that writes: the new token. Waits for commits of the owner
    before. Raises StreamTaken where that one holds it by a lease that has not run out, unless by `force`."""
    row = {"stream_id": stream_id, "token": 0, "holder": ""}
    connection.execute(_insert(connection.dialect.name, STREAM_OWNER).values(row).on_conflict_do_nothing())
    here = STREAM_OWNER.c.stream_id == stream_id
    found = connection.execute(sa.select(STREAM_OWNER).where(here).with_for_update()).one()
    if not force and found.holder not in ("", holder):
        live = sa.select(OWNER_LEASE.c.holder).where(OWNER_LEASE.c.holder == found.holder, _is_live(connection))
        if connection.scalar(live) is not None:
            raise StreamTaken(f"the stream {stream_id} is decided on by {found.holder}", (stream_id,))
    connection.execute(sa.update(STREAM_OWNER).where(here).values(token=found.token + 1, holder=holder))
    return int(found.token) + 1


def let_go(connection: sa.Connection, stream_id: str, token: int) -> None:
    """Let the next one take a stream at once, if it is still held by this token."""
    mine = (STREAM_OWNER.c.stream_id == stream_id) & (STREAM_OWNER.c.token == token)
    connection.execute(sa.update(STREAM_OWNER).where(mine).values(holder=""))


def check_streams(connection: sa.Connection, wanted: Iterable[tuple[str, int]]) -> None:
    """Raise StreamTaken naming every stream whose token is another one now. Whoever wants to take one of the streams
    waits for the end of this transaction."""
    pairs = set(wanted)
    slugs = sorted({slug for slug, _ in pairs})
    found: dict[str, tuple[int, str]] = {}
    for part in portions(slugs):
        alone = len(part) == 1
        rows = _ONE.run(connection, {"id": part[0]}) if alone else connection.execute(_TOKENS, {"ids": part})
        found.update((row.stream_id, (row.token, row.holder)) for row in rows)
    lost = sorted({slug for slug, token in pairs if found.get(slug, (0, ""))[0] != token})
    if lost:
        whose = ", ".join(f"{slug} ({found.get(slug, (0, ''))[1] or 'let go'})" for slug in lost[:10])
        more = f" and {len(lost) - 10} more" if len(lost) > 10 else ""
        raise StreamTaken(f"decided on by another process now: {whose}{more}; nothing is written here", tuple(lost))


def renew(connection: sa.Connection, holder: str, lease_s: float) -> float:
    """Hold what `holder` has for `lease_s` seconds from now on. Returns the database's time (seconds since 1970)."""
    given = {"of": holder, "lease_s": lease_s}
    return float(connection.scalar(_renewal(connection.dialect.name), given)) - lease_s


@cache
def _renewal(dialect: str) -> sa.Executable:
    """Made once for each kind of database: each process of a fleet asks it several times in a lease."""
    until_s = now_s(dialect) + sa.bindparam("lease_s", type_=sa.Double)
    values = _insert(dialect, OWNER_LEASE).values(holder=sa.bindparam("of", type_=sa.Text), until_s=until_s)
    held = {"until_s": values.excluded.until_s}
    return values.on_conflict_do_update(index_elements=["holder"], set_=held).returning(OWNER_LEASE.c.until_s)


def end_lease(connection: sa.Connection, holder: str) -> None:
    """Hold nothing any more: others may take all of it at once."""
    connection.execute(sa.delete(OWNER_LEASE).where(OWNER_LEASE.c.holder == holder))


def live_holders(connection: sa.Connection) -> frozenset[str]:
    """Those whose lease has not run out."""
    return frozenset(connection.scalars(sa.select(OWNER_LEASE.c.holder).where(_is_live(connection))))


def holders_of(connection: sa.Connection) -> Mapping[str, str]:
    """The holder of each stream that has one."""
    query = sa.select(STREAM_OWNER.c.stream_id, STREAM_OWNER.c.holder).where(STREAM_OWNER.c.holder != "")
    return {row.stream_id: row.holder for row in connection.execute(query)}


def _is_live(connection: sa.Connection) -> sa.ColumnElement[bool]:
    return OWNER_LEASE.c.until_s > now_s(connection.dialect.name)


def _insert(dialect: str, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def _made(connection: sa.Connection) -> sa.Select[tuple[str]]:
    connection.execute(_insert(connection.dialect.name, META).values(key=_KEY, value="0").on_conflict_do_nothing())
    return _HELD
