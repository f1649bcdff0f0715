"""What one stream carries from hop to hop."""

from dataclasses import dataclass

from pipeline.context import Context
from pipeline.hops import HopRules
from pipeline.ladder import Ladder
from pipeline.relook import Ring
from pipeline.state import Counts, StreamState
from pipeline.understanding import Understanding
from pipeline.warming import Warming


@dataclass(slots=True)
class StreamRun:
    """One stream under way; the loop is the only writer. `ring` keeps the pictures for a second look."""

    stream_id: str
    hop_rules: HopRules
    context: Context
    state: StreamState = StreamState()
    counts: Counts = Counts()
    decided_s: float = 0.0
    ring: Ring = Ring()
    understanding: Understanding = Understanding()
    warming: Warming = Warming()
    ladder: Ladder = Ladder()

    @property
    def stretch(self) -> int:
        """How many hops' lengths the next hop spans."""
        return self.ladder.stretch
