"""The outcome of one hop: values that the loop hands to the judge, the metrics and the outbox."""

from dataclasses import dataclass

from allocator_engine.fit import Allocation
from pipeline.core.context import Reason
from pipeline.types import Answers, Event, Hop


@dataclass(frozen=True, slots=True)
class HopReply:
    """The result of asking: the answers, or why there are none, and the vision tokens it spent.

    `relooked` watches were asked a second time.
    """

    answers: Answers
    spent: int
    skipped: str | None = None
    relooked: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One hop: its grant in vision tokens, how that was allocated (`fell_back`: at one fixed scale, after a failure of
    the allocator), what was answered, the seconds that all of it took, why the context restarted, if it did, and the
    vision tokens of all its frames at native size."""

    hop: Hop
    grant: int
    allocation: Allocation
    fell_back: bool
    reply: HopReply
    seconds: float
    reanchored: Reason | None = None
    native: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one hop: the stream's new state and the events it sends out, durable together or not at all.

    `state` is the whole StreamState after this decision as JSON text, which the store does not look into; `resume_s`
    the stream time up to which the stream is decided.
    """

    stream_id: str
    state: str
    events: tuple[Event, ...]
    resume_s: float
