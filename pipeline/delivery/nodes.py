"""The nodes of a fleet in the store: what each offers, whether it lives, and which streams are placed on it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Literal

import sqlalchemy as sa

from pipeline.clock import Clock
from pipeline.delivery import ownership
from pipeline.delivery.database import Database
from pipeline.delivery.tables import FLEET_NODE, FLEET_PLACE, OWNER_LEASE, STREAM_OWNER, portions

HEAD = "_head"
"""Under this name, which no stream can have, the one who places streams owns the fleet, as a stream is owned."""

_LEAD = sa.select(STREAM_OWNER.c.token).where(STREAM_OWNER.c.stream_id == HEAD)

Wanted = Literal["active", "cordoned", "drained"]


@dataclass(frozen=True, slots=True)
class NodeOffer:
    """A node as it presents itself. `holder` is the process that runs its streams, another with each start; `capacity`
    is in cores; `most_streams` None for no bound."""

    name: str
    holder: str
    version: str
    capacity: float
    most_streams: int | None = None
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StoredNode:
    """A node as the store has it: `live` while its lease runs, which ends at `until_s` (seconds since 1970 by the
    database's clock; None: it has none), `wanted` what people said, `skew_s` by how much its clock is ahead of the
    database's."""

    offer: NodeOffer
    live: bool
    wanted: Wanted
    joined_at: datetime
    skew_s: float
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class SignOfLife:
    """The answer to a sign of life: the database's time (seconds since 1970), the streams placed on the node, and
    whether another process has become this node."""

    now_s: float
    streams: frozenset[str]
    replaced: bool


class NodeBook:
    """The nodes of a database. Methods block and may raise StoreUnavailable. Times of leases are the database's."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._nodes = _nodes_of(database.engine.dialect.name)

    def join(self, offer: NodeOffer, lease_s: float, report: str = "{}") -> None:
        """Enter a node, or another process in the place of the one that was this node; without a lease only for people
        to see it. What people wanted stays."""
        row = {
            "holder": offer.holder,
            "version": offer.version,
            "capacity": offer.capacity,
            "most_streams": offer.most_streams,
            "tags": json.dumps(sorted(offer.tags)),
            "joined_at": self._clock.now().isoformat(),
            "skew_s": 0.0,
            "report": report,
        }
        insert = self._database.insert(FLEET_NODE).values(name=offer.name, wanted="active", **row)
        with self._database.beside() as connection:
            if lease_s:
                ownership.renew(connection, offer.holder, lease_s)
            connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=row))

    def sign(self, name: str, holder: str, lease_s: float, skew_s: float, report: str | None = None) -> SignOfLife:
        """Give a sign of life; with a `report` on how its streams are."""
        mine = (FLEET_NODE.c.name == name) & (FLEET_NODE.c.holder == holder)
        values: dict[str, object] = {"skew_s": round(skew_s, 3)} | ({"report": report} if report is not None else {})
        streams = sa.select(FLEET_PLACE.c.stream_id).where(FLEET_PLACE.c.node == name)
        with self._database.beside() as connection:
            now_s = ownership.renew(connection, holder, lease_s)
            replaced = connection.execute(sa.update(FLEET_NODE).where(mine).values(**values)).rowcount == 0
            return SignOfLife(now_s, frozenset(() if replaced else connection.scalars(streams)), replaced)

    def renew(self, holder: str, lease_s: float, lead: int | None = None) -> bool:
        """Hold what a process holds for `lease_s` seconds more. False if another one has become the head since the
        token `lead` was given."""
        with self._database.beside() as connection:
            ownership.renew(connection, holder, lease_s)
            return lead is None or connection.scalar(_LEAD) == lead

    def lead_on(self, holder: str, lease_s: float, lead: int) -> list[StoredNode] | None:
        """`renew` and `nodes` in one transaction, for the head: None where another one has become it."""
        with self._database.beside() as connection:
            ownership.renew(connection, holder, lease_s)
            rows = connection.execute(self._nodes).mappings().all()
            token = rows[0]["lead"] if rows else connection.scalar(_LEAD)
            return [_node(row) for row in rows] if token == lead else None

    def leave(self, holder: str) -> None:
        """A process ends: others may take at once what it has not let go of."""
        with self._database.beside() as connection:
            ownership.end_lease(connection, holder)

    def nodes(self) -> list[StoredNode]:
        """All nodes, by name."""
        with self._database.reading_once() as connection:
            return [_node(row) for row in connection.execute(self._nodes).mappings()]

    def reports(self) -> dict[str, str]:
        """The newest report of each node."""
        with self._database.reading_once() as connection:
            rows = connection.execute(sa.select(FLEET_NODE.c.name, FLEET_NODE.c.report))
            return {row.name: row.report for row in rows}

    def places(self) -> dict[str, str]:
        """The node of each stream that has one."""
        with self._database.reading_once() as connection:
            return {row.stream_id: row.node for row in connection.execute(sa.select(FLEET_PLACE))}

    def holders(self) -> dict[str, str]:
        """The holder of each stream that a living process holds."""
        with self._database.reading() as connection:
            live = ownership.live_holders(connection)
            held = ownership.holders_of(connection)
        return {slug: holder for slug, holder in held.items() if holder in live}

    def place(self, places: Mapping[str, str], removed: Iterable[str], token: int) -> None:
        """Place streams on nodes, and forget the places of others. Raises StreamTaken if another one heads the fleet
        now: then nothing has changed."""
        insert = self._database.insert(FLEET_PLACE)
        save = insert.on_conflict_do_update(index_elements=["stream_id"], set_={"node": insert.excluded["node"]})
        gone = sorted(removed)
        with self._database.beside() as connection:
            ownership.check_streams(connection, [(HEAD, token)])
            if places:
                connection.execute(save, [{"stream_id": slug, "node": node} for slug, node in sorted(places.items())])
            for part in portions(gone):
                connection.execute(sa.delete(FLEET_PLACE).where(FLEET_PLACE.c.stream_id.in_(part)))

    def lead(self, holder: str, lease_s: float) -> int:
        """Become the head of the fleet: the token that proves it. Raises StreamTaken while another one is."""
        with self._database.beside() as connection:
            ownership.renew(connection, holder, lease_s)
            return ownership.take_stream(connection, HEAD, holder, force=False)

    def close(self) -> None:
        """Close the connections that were opened after the store was closed."""
        self._database.engine.dispose()

    def want(self, name: str, wanted: Wanted) -> bool:
        """Note what people want of a node; False if there is no such node."""
        query = sa.update(FLEET_NODE).where(FLEET_NODE.c.name == name).values(wanted=wanted)
        with self._database.beside() as connection:
            return connection.execute(query).rowcount > 0

    def forget(self, name: str) -> None:
        """Forget a node that is gone for good."""
        with self._database.beside() as connection:
            connection.execute(sa.delete(FLEET_NODE).where(FLEET_NODE.c.name == name))


@cache
def _nodes_of(dialect: str) -> sa.Select[tuple[object, ...]]:
    """All nodes but their reports, whether each lives, and the token of their head. Made once: a head asks it again and
    again."""
    live = OWNER_LEASE.c.until_s > ownership.now_s(dialect)
    columns = [column for column in FLEET_NODE.c if column.name != "report"]
    return (
        sa.select(
            *columns,
            sa.func.coalesce(live, sa.false()).label("live"),
            OWNER_LEASE.c.until_s,
            _LEAD.scalar_subquery().label("lead"),
        )
        .select_from(FLEET_NODE.outerjoin(OWNER_LEASE, OWNER_LEASE.c.holder == FLEET_NODE.c.holder))
        .order_by(FLEET_NODE.c.name)
    )


def _node(row: sa.RowMapping) -> StoredNode:
    tags = frozenset(map(str, json.loads(row["tags"])))
    offer = NodeOffer(row["name"], row["holder"], row["version"], row["capacity"], row["most_streams"], tags)
    joined_at = datetime.fromisoformat(row["joined_at"])
    return StoredNode(offer, bool(row["live"]), row["wanted"], joined_at, row["skew_s"], row["until_s"])
