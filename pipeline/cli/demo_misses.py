"""Why the demo missed what it missed: late, too brief, shown small, or not recognised by the MLLM."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from allocator_engine.evaluate.tasks import Span
from pipeline.core.outcome import Outcome
from pipeline.types import Event

NEARLY = 0.95
"""From this share of its native tokens on a hop was shown as large as it is."""

_CAUSES = {
    "unasked": "came while the stream was not asked about, because answering was late: this machine is slow or busy",
    "late": "noticed, but more than a second late",
    "brief": "over before two hops in a row could say so, which is what opens these watches",
    "small": "shown at less than native size, because of the budget or the allocator",
    "unrecognised": "shown at native size, and not recognised by the MLLM",
}


class Missed(Protocol):
    """An event that was not found: the stream it was on, when it was to be seen, and whether it was noticed late."""

    @property
    def stream_id(self) -> str: ...
    @property
    def span(self) -> Span: ...
    @property
    def late(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class HopSeen:
    """One hop as shown: stream seconds, vision tokens as allocated and at native size, and whether the MLLM
    answered."""

    stream_id: str
    start_s: float
    end_s: float
    tokens: int
    native: int
    answered: bool


class HopLog:
    """The hops of a service, in the order decided. As long as a demo is."""

    def __init__(self) -> None:
        self.hops: list[HopSeen] = []

    def add(self, outcome: Outcome, _events: Sequence[Event]) -> None:
        """See `loop.Observe`."""
        hop = outcome.hop
        answered = outcome.reply.skipped is None and not hop.lost
        self.hops.append(
            HopSeen(hop.stream_id, hop.start_s, hop.end_s, outcome.allocation.tokens, outcome.native, answered)
        )


def cause(miss: Missed, hops: Sequence[HopSeen], needed: int) -> str:
    """Why one event was missed, a key of the causes. `needed` hops in a row open a watch."""
    inside = [
        hop
        for hop in hops
        if hop.stream_id == miss.stream_id and hop.start_s < miss.span.until_s and hop.end_s > miss.span.since_s
    ]
    if miss.late:
        return "late"
    if not inside or not all(hop.answered for hop in inside):
        return "unasked"
    if len(inside) < needed:
        return "brief"
    if sum(hop.tokens for hop in inside) < NEARLY * sum(hop.native for hop in inside):
        return "small"
    return "unrecognised"


def explained(misses: Sequence[Missed], hops: Sequence[HopSeen], needed: int) -> list[str]:
    """Lines for people with the number of missed events by cause, the most frequent first."""
    counted = Counter(cause(miss, hops, needed) for miss in misses)
    return [f"{count} {_CAUSES[name]}" for name, count in counted.most_common()]
