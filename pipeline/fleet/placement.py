"""Placement of streams on nodes: a pure function of what streams cost, what nodes have, and where streams are now."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

OVERLOAD = 1.15
"""A node keeps what it has up to so many times its capacity: measured costs go up and down."""
LEFT = 0.8
"""Of a node that gives streams to such a one so much of the mean load stays at least."""
HUNGRY = 0.5
"""A node takes over streams from others once its load is below this share of the mean: one that has just joined."""

_FULL = "no node has room for it"


@dataclass(frozen=True, slots=True)
class StreamNeed:
    """A stream to be placed: its cost in the units of `NodeRoom.capacity`, and the tag that its node must have."""

    stream: str
    cost: float
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """A node that is there: its capacity, the most streams it may run (None: no bound), its tags; one that does not
    `take` gets no further stream, one that does not `keep` is to be left by those it has."""

    node: str
    capacity: float
    most: int | None = None
    tags: frozenset[str] = frozenset()
    takes: bool = True
    keeps: bool = True


@dataclass(frozen=True, slots=True)
class Placement:
    """The node of each stream, and why the others have none."""

    nodes: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Load:
    """A node under way to its streams. Costs are summed in thousandths, whose sums do not depend on their order."""

    room: NodeRoom
    cost: int = 0
    streams: dict[str, StreamNeed] = field(default_factory=dict)
    capacity: float = field(init=False)

    def __post_init__(self) -> None:
        self.capacity = 1000 * self.room.capacity

    @property
    def share(self) -> float:
        return self.share_with(0)

    def share_with(self, thousandths: int) -> float:
        return (self.cost + thousandths) / self.capacity if self.capacity > 0 else float("inf")

    def add(self, need: StreamNeed) -> None:
        self.streams[need.stream] = need
        self.cost += _thousandths(need)

    def remove(self, need: StreamNeed) -> None:
        del self.streams[need.stream]
        self.cost -= _thousandths(need)

    def suits(self, need: StreamNeed) -> bool:
        return need.tag is None or need.tag in self.room.tags

    def has_room(self, need: StreamNeed) -> bool:
        """True if it may take one more. A node without a stream takes any that it suits: else it could go nowhere."""
        if not self.room.takes or (self.room.most is not None and len(self.streams) >= self.room.most):
            return False
        return not self.streams or self.share_with(_thousandths(need)) <= 1.0


def place(needs: Iterable[StreamNeed], rooms: Iterable[NodeRoom], now: Mapping[str, str]) -> Placement:
    """The node of every stream: where it is `now`, if that is still right; else the one with the most room in
    proportion to its capacity.

    Only those streams move whose node is gone, is left, has lost the tag or is overloaded, and those that a node takes
    over which has far less to do than the others. The same wants and the same `now` give the same placement; what comes
    out, put in as `now`, comes out again.
    """
    loads = {room.node: _Load(room) for room in sorted(rooms, key=lambda room: room.node)}
    homeless = _keep(sorted(needs, key=lambda need: (-need.cost, need.stream)), loads, now)
    homeless += _shed(loads.values())
    reasons: dict[str, str] = {}
    for need in sorted(homeless, key=lambda need: (-need.cost, need.stream)):
        if best := _roomiest(loads.values(), need):
            best.add(need)
        else:
            reasons[need.stream] = _refusal(loads.values(), need)
    if not any(reason.startswith(_FULL) for reason in reasons.values()):
        _feed(list(loads.values()))
    return Placement({slug: load.room.node for load in loads.values() for slug in load.streams}, reasons)


def _keep(needs: Sequence[StreamNeed], loads: Mapping[str, _Load], now: Mapping[str, str]) -> list[StreamNeed]:
    """Leave the streams where they are, if that is right. Returns the others."""
    homeless = []
    for need in needs:
        load = loads.get(now.get(need.stream, ""))
        if load and load.room.keeps and load.suits(need):
            load.add(need)
        else:
            homeless.append(need)
    return homeless


def _shed(loads: Iterable[_Load]) -> list[StreamNeed]:
    """Take from overloaded nodes the fewest streams with which they are no longer: the heaviest."""
    shed = []
    for load in loads:
        most = load.room.most
        heaviest = sorted(load.streams.values(), key=lambda need: (need.cost, need.stream))
        too_many = max(len(heaviest) - most, 0) if most is not None else 0
        overloaded = load.share > OVERLOAD
        while len(heaviest) > 1 and (too_many or (overloaded and load.share > 1.0)):
            need = heaviest.pop()
            load.remove(need)
            shed.append(need)
            too_many = max(too_many - 1, 0)
        if too_many and heaviest:  # none at all may run there
            load.remove(heaviest[0])
            shed.append(heaviest[0])
    return shed


def _roomiest(loads: Iterable[_Load], need: StreamNeed) -> _Load | None:
    cost, best, least = _thousandths(need), None, float("inf")
    for load in loads:  # by name: of two that are alike the first is taken
        share = load.share_with(cost)
        if (share < least or best is None) and load.suits(need) and load.has_room(need):
            best, least = load, share
    return best


def _refusal(loads: Iterable[_Load], need: StreamNeed) -> str:
    there = list(loads)
    if not there:
        return "no node is there"
    suiting = [load for load in there if load.suits(need)]
    if not suiting:
        return f"no node has the tag {need.tag!r}"
    if not any(load.room.takes for load in suiting):
        return "no node takes streams: those that suit are cordoned, drained or unfit"
    return f"{_FULL}: it costs {need.cost:.2f}, and the nodes that suit are full"


def _thousandths(need: StreamNeed) -> int:
    return max(round(1000 * need.cost), 1)


def _feed(loads: Sequence[_Load]) -> None:
    """Let nodes that have far less to do than the others take over streams, one by one, up to the mean."""
    takers = [load for load in loads if load.room.takes and load.capacity > 0]
    if len(takers) < 2:
        return
    capacity = sum(load.capacity for load in takers)
    mean = sum(load.cost for load in takers) / capacity
    for taker in sorted(takers, key=lambda load: (load.share, load.room.node)):
        if taker.share >= HUNGRY * mean:
            continue
        donors: dict[str, list[StreamNeed]] = defaultdict(list)
        for load in takers:
            if load is not taker:
                donors[load.room.node] = sorted(load.streams.values(), key=lambda need: (need.cost, need.stream))
        while move := _next_move(taker, takers, donors, mean):
            donor, need = move
            donors[donor.room.node].remove(need)
            donor.remove(need)
            taker.add(need)


def _next_move(
    taker: _Load, loads: Sequence[_Load], donors: Mapping[str, list[StreamNeed]], mean: float
) -> tuple[_Load, StreamNeed] | None:
    """The heaviest stream that the busiest node can give without the one passing the mean, or the other having much
    less than that."""
    lack = mean * taker.capacity - taker.cost
    for donor in sorted(loads, key=lambda load: (-load.share, load.room.node)):
        spare = donor.cost - LEFT * mean * donor.capacity
        if donor is taker or donor.share <= mean:
            continue
        for need in reversed(donors[donor.room.node]):
            if _thousandths(need) <= min(lack, spare) and taker.suits(need) and taker.has_room(need):
                return donor, need
    return None
