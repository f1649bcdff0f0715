"""What one stream carries from hop to hop."""

from dataclasses import dataclass

from pipeline.context import Context
from pipeline.hops import HopRules
from pipeline.ladder import Ladder
from pipeline.state import Counts, StreamState
from pipeline.understanding import Understanding
from pipeline.warming import Warming


@dataclass(slots=True)
class StreamRun:
    """One stream under way; the loop is the only writer. `relook_tokens` is the most that a second
    look at a hop may cost, 0 for none."""

    stream_id: str
    hop_rules: HopRules
    context: Context
    state: StreamState = StreamState()
    counts: Counts = Counts()
    decided_s: float = 0.0
    relook_tokens: int = 0
    understanding: Understanding = Understanding()
    warming: Warming = Warming()
    ladder: Ladder = Ladder()

    @property
    def stretch(self) -> int:
        """How many hops' lengths the next hop spans."""
        return self.ladder.stretch
