"""The state of a stream: what it remembers across hops, connections and restarts, and what one run carries along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime

from pydantic import TypeAdapter

from pipeline.core.context import Context
from pipeline.core.health import AlarmChange, Checkup, HealthState, end_alarms
from pipeline.core.hops import HopRules
from pipeline.core.judge import WatchState, event_id
from pipeline.core.ladder import Ladder
from pipeline.core.relook import PictureRing
from pipeline.core.watches import Understanding, Warming
from pipeline.types import Answer, Crop, Event, Json, WatchQuery

GONE_KEPT = 64
"""Watches that no longer stand of which a stream remembers how many events they have sent."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals of one run of a stream.

    `granted`, `spent` and `encoded` are vision tokens; what a hop was granted and did not spend went back and was
    granted again; `native` are those of all sampled frames at native size, `allocated` as they
    were shown. `prefilled` prompt tokens were computed,
    `cached` ones found. `lost` frames were overwritten unread, `kept` ones were shown to the MLLM; `skipped` hops were
    not asked about, `relooked` answers got a second look.
    """

    hops: int = 0
    frames: int = 0
    lost: int = 0
    kept: int = 0
    native: int = 0
    allocated: int = 0
    granted: int = 0
    spent: int = 0
    encoded: int = 0
    prefilled: int = 0
    cached: int = 0
    answers: int = 0
    unknown: int = 0
    relooked: int = 0
    skipped: int = 0
    fallbacks: int = 0
    events: int = 0

    def add(self, **more: int) -> "Counts":
        """These totals plus `more`."""
        return replace(self, **{name: getattr(self, name) + count for name, count in more.items()})

    def as_json(self) -> dict[str, Json]:
        """Name to number."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class StreamState:
    """The durable state of a stream: its watches by `WatchQuery.key`, and how many stream events it has sent ever.

    `lineage` is given once, when a store first meets the stream, and goes into the ids of its events. Of watches that
    are gone the newest GONE_KEPT are remembered; `forgotten` is the largest count of events of any other, from which
    the counts of watches that come new go on, so that an id never repeats.
    """

    watches: dict[str, WatchState] = field(default_factory=dict)
    transitions: int = 0
    lineage: str = ""
    health: HealthState = field(default_factory=HealthState)
    forgotten: int = 0

    def meeting(self, queries: Sequence[WatchQuery]) -> dict[str, WatchState]:
        """The states of the watches, those of `queries` that have none included."""
        new = [query.key for query in queries if query.key not in self.watches]
        return self.watches | dict.fromkeys(new, WatchState(transitions=self.forgotten)) if new else self.watches

    def keeping(self, watches: Mapping[str, WatchState], standing: Sequence[WatchQuery] = ()) -> "StreamState":
        """The state with these watches, of which those that are gone, and have nothing but a count left, are bounded:
        the ones that were met first are forgotten."""
        stand = {query.key for query in standing}
        left = [(key, state) for key, state in watches.items() if key not in stand]
        gone = [key for key, state in left if state == WatchState(transitions=state.transitions)]
        dropped = gone[: max(len(gone) - GONE_KEPT, 0)]
        forgotten = max([self.forgotten, *(watches[key].transitions for key in dropped)])
        kept = {key: state for key, state in watches.items() if key not in dropped}
        return replace(self, watches=kept, forgotten=forgotten)

    def stream_event(
        self, stream_id: str, kind: str, at: datetime, data: dict[str, Json]
    ) -> tuple["StreamState", Event]:
        """The stream's next own event (`stream.attached`, `stream.lost`, ...) and the state after it."""
        n = self.transitions + 1
        event = Event(event_id(self.lineage, stream_id, "", "", kind, n), kind, stream_id, at, {"n": n} | data)
        return replace(self, transitions=n), event

    def found(
        self, stream_id: str, findings: Sequence[AlarmChange], at: datetime, stream_s: float
    ) -> tuple["StreamState", tuple[Event, ...]]:
        """The events of what was found out about its health, and the state after them."""
        state, events = self, []
        for finding in findings:
            data = {"stream_s": stream_s, **finding.data}
            state, event = state.stream_event(stream_id, finding.kind, at, data)
            events.append(replace(event, watch_id=finding.watch_id))
        return state, tuple(events)

    def well(
        self, stream_id: str, at: datetime, stream_s: float, reason: str
    ) -> tuple["StreamState", tuple[Event, ...]]:
        """The state without alarms about a stream that nobody looks at any more, and the events of their ends."""
        health, findings = end_alarms(self.health, stream_s, reason, self.health.on)
        return replace(self, health=HealthState(of=health.of)).found(stream_id, findings, at, stream_s)

    def to_json(self) -> str:
        """As text for the store, without what is as it was at the beginning."""
        return _STATE.dump_json(self, exclude_defaults=True).decode()

    @classmethod
    def from_json(cls, text: str) -> "StreamState":
        """Back from the store. Raises ValueError (pydantic) for text that is no state."""
        return _STATE.validate_json(text)


_STATE = TypeAdapter(StreamState)


@dataclass(slots=True)
class StreamRun:
    """One stream under way, from `began_s` stream seconds on; the loop is the only writer. `ring` keeps the pictures
    for a second look, `answers` are the newest of the watches that stand; without a `checkup` nobody judges its
    health. The context shows `crop` of the pictures, all of them if that is None. Tokens may be saved up for
    `burst_hops` of its hops at native size; if that is 0, as its account says."""

    stream_id: str
    hop_rules: HopRules
    context: Context
    state: StreamState = StreamState()
    counts: Counts = Counts()
    decided_s: float = 0.0
    began_s: float = 0.0
    ring: PictureRing = PictureRing()
    understanding: Understanding = Understanding()
    warming: Warming = Warming()
    ladder: Ladder = Ladder()
    answers: tuple[Answer, ...] = ()
    checkup: Checkup | None = None
    burst_hops: float = 0.0
    crop: Crop | None = None

    def remember(self, answers: Sequence[Answer]) -> None:
        """Keep these as the newest answers of their watches; those of watches that stand no more go."""
        stand = self.warming.watch_ids
        newest = {one.watch_id: one for one in (*self.answers, *answers) if one.watch_id in stand}
        self.answers = tuple(newest.values())

    @property
    def stretch(self) -> int:
        """The number of hops' lengths the next hop spans."""
        return self.ladder.stretch
