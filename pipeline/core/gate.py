"""The selection of a sink's events: those that pass its filter, and of these no more than its rate limit lets through.
Pure functions.

What is held back is counted, and one summary event for each period tells the sink of it.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from uuid import NAMESPACE_URL, uuid5

from pipeline.core.selectors import TAG, selects
from pipeline.types import Event, Json

HELD_BACK = "sink.held_back"
"""The type of the summary."""
MOST_NAMES = 20
"""Types, streams and watches that a summary counts by name; the rest is counted together."""
OTHERS = "(others)"

TagsOf = Callable[[str], Collection[str] | None]
"""The tags of a stream; None for one that is not known any more."""


@dataclass(frozen=True, slots=True)
class SinkFilter:
    """The events that are for a sink: each condition that is not empty has to hold.

    `types` are patterns such as `watch.*`, `severities` those that an event's data may name, `streams` slugs or
    `tag:TAG`, `watches` slugs. An event without a severity or a watch is none of those that are named.

    An end has the severities of its beginning: `watch.cleared` passes by the one that the watch opened with as well as
    by the one that it was escalated to, and by any where it names none, as those of watches do that were opened before
    the state kept it.
    """

    types: tuple[str, ...] = ()
    severities: frozenset[str] = frozenset()
    streams: frozenset[str] = frozenset()
    watches: frozenset[str] = frozenset()

    def passes(self, event: Event, tags_of: TagsOf) -> bool:
        """True if an event passes the filter."""
        if self.types and not any(fnmatchcase(event.type, pattern) for pattern in self.types):
            return False
        if self.severities and not self.severities.intersection(_severities(event) or self.severities):
            return False
        return self.covers(event.stream_id, event.watch_id, tags_of)

    def covers(self, stream: str, watch: str | None, tags_of: TagsOf) -> bool:
        """True if the filter admits a stream, and a watch on it. A stream that is no longer known may have had a
        selected tag, so a filter by tag admits it: whatever it opened has to be cleared."""
        if self.watches and watch not in self.watches:
            return False
        tags = tags_of(stream) if self.streams else ()
        by_tag = any(name.startswith(TAG) for name in self.streams)
        return by_tag if tags is None and stream not in self.streams else selects(self.streams, stream, tags or ())


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Over any `per_s` seconds of delivery at most `events` events pass."""

    events: int
    per_s: float


@dataclass(frozen=True, slots=True)
class GateRules:
    """The filter and the rate limit of one sink."""

    filter: SinkFilter = SinkFilter()
    limit: RateLimit | None = None

    @property
    def open(self) -> bool:
        """True if everything passes."""
        return self == GateRules()


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The events that a limit has held back since `since_s`: their number, the first and the last of them, and the
    number by name."""

    count: int
    since_s: float
    first_id: str
    last_id: str
    types: Mapping[str, int] = field(default_factory=dict)
    streams: Mapping[str, int] = field(default_factory=dict)
    watches: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GateState:
    """The state of a limit: the times of the events that passed within its period (unix seconds), and the events that
    it holds back. It is stored as text with the deliveries, so that a new process continues from it."""

    passed_s: tuple[float, ...] = ()
    held: HeldBack | None = None

    def to_json(self) -> str:
        """As text."""
        held = self.held
        names = HeldBack.__dataclass_fields__
        return json.dumps(
            {"passed_s": self.passed_s, "held": held and {name: _plain(getattr(held, name)) for name in names}}
        )

    @staticmethod
    def from_json(text: str) -> "GateState":
        """Back from text. Raises ValueError for what is none."""
        try:
            found = json.loads(text)
            held = found["held"]
            passed_s = tuple(float(one) for one in found["passed_s"])
            state = GateState(passed_s, None if held is None else HeldBack(**held))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is no state of a rate limit: {error}") from None
        if not all(map(math.isfinite, passed_s)):
            raise ValueError("the state of a rate limit holds a time that is none")
        return state


@dataclass(frozen=True, slots=True)
class Passage:
    """The outcome for a batch: the events to publish, in order, a summary among them where one is due; the numbers of
    events that were filtered out and held back; and the state from then on."""

    events: tuple[Event, ...]
    filtered: int
    held: int
    state: GateState


def let_through(
    rules: GateRules,
    state: GateState,
    events: Sequence[Event],
    now: datetime,
    sink: str,
    tags_of: TagsOf,
    ending: bool = False,
) -> Passage:
    """Judge the events that are to be delivered now. A summary goes out a period after the first event that was held
    back; with `ending`, or where there is no limit any more, at once. It is not counted itself."""
    now_s = now.timestamp()
    wanted = [event for event in events if is_addressed(event, sink) or rules.filter.passes(event, tags_of)]
    filtered = len(events) - len(wanted)
    state = _as_of(state, rules.limit, now_s)
    out: list[Event] = []
    if state.held and _is_due(state.held, rules.limit, now_s):
        out.append(_summary(state.held, rules.limit, now, sink))
        state = replace(state, held=None)
    if rules.limit is None:
        return Passage((*out, *wanted), filtered, 0, state)
    room = max(rules.limit.events - len(state.passed_s), 0)
    passing, held = wanted[:room], wanted[room:]
    state = GateState((*state.passed_s, *[now_s] * len(passing)), _holding(state.held, held, now_s))
    out += passing
    if ending and state.held:
        out.append(_summary(state.held, rules.limit, now, sink))
        state = replace(state, held=None)
    return Passage(tuple(out), filtered, len(held), state)


def is_addressed(event: Event, sink: str) -> bool:
    """True for an event of an escalated watch that names the sink: it goes there whatever the sink's filter says."""
    return event.watch_id is not None and event.data.get("escalated") is True and event.data.get("sink") == sink


def _severities(event: Event) -> set[str | None]:
    """The severities by which an event passes; empty for an end that passes by any."""
    severity = event.data.get("severity")
    if event.type != "watch.cleared":
        return {severity if isinstance(severity, str) else None}
    return {one for one in (severity, event.data.get("opened_severity")) if isinstance(one, str)}


def _as_of(state: GateState, limit: RateLimit | None, now_s: float) -> GateState:
    """Without what is older than the period. What a clock that was set back shows as later counts as now."""
    if limit is None:
        return replace(state, passed_s=())
    kept = tuple(min(at_s, now_s) for at_s in state.passed_s if at_s > now_s - limit.per_s)
    held = state.held and replace(state.held, since_s=min(state.held.since_s, now_s))
    return GateState(kept, held)


def _is_due(held: HeldBack, limit: RateLimit | None, now_s: float) -> bool:
    return limit is None or now_s >= held.since_s + limit.per_s


def _holding(before: HeldBack | None, events: Sequence[Event], now_s: float) -> HeldBack | None:
    if not events:
        return before
    known = before or HeldBack(0, now_s, events[0].id, "")
    return replace(
        known,
        count=known.count + len(events),
        last_id=events[-1].id,
        types=_counted(known.types, (event.type for event in events)),
        streams=_counted(known.streams, (event.stream_id for event in events)),
        watches=_counted(known.watches, (event.watch_id for event in events if event.watch_id)),
    )


def _counted(before: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    counts = dict(before)
    for name in names:
        key = name if name in counts or len(counts) < MOST_NAMES else OTHERS
        counts[key] = counts.get(key, 0) + 1
    return counts


def _summary(held: HeldBack, limit: RateLimit | None, now: datetime, sink: str) -> Event:
    """The event that tells of what was held back; its id is a function of that."""
    identity = "\n".join(("resadapt held back", sink, held.first_id, held.last_id, str(held.count)))
    data: dict[str, Json] = {
        "sink": sink,
        "count": held.count,
        "since": datetime.fromtimestamp(held.since_s, UTC).isoformat(),
        "types": dict(held.types),
        "streams": dict(held.streams),
        "watches": dict(held.watches),
        "first_id": held.first_id,
        "last_id": held.last_id,
        "reason": f"{held.count} events were held back by the rate limit of the sink {sink}",
    }
    if limit is not None:
        data |= {"limit_events": limit.events, "limit_s": limit.per_s}
    stream = next(iter(held.streams)) if len(held.streams) == 1 else sink
    return Event(str(uuid5(NAMESPACE_URL, identity)), HELD_BACK, stream, now, data)


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value
