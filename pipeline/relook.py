"""A second look: which frames of a hop are shown again, larger, to the watches whose answer was in doubt. Pure."""

from allocator_engine.fit import Allocation, FitRules, fit
from pipeline.types import Hop

WORTH = 1.5
"""A second look has to show the same frames with so many times the tokens of the first."""


def closer(hop: Hop, shown: Allocation, tokens: int, rules: FitRules) -> Allocation:
    """The hop's newest frames, as many as share a segment, at the largest size that `tokens` can pay for.

    The questions are about the newest moment, so no other frames matter as much. An empty allocation if that is hardly
    more than `shown`, what the hop was first shown at.
    """
    count = min(rules.frames_per_segment, len(hop.frames))
    newest = range(len(hop.frames) - count, len(hop.frames))
    scales = [1.0 if index in newest else 0.0 for index in range(len(hop.frames))]
    found = fit([frame.size for frame in hop.frames], scales, tokens, rules)
    before = sum(segment.tokens for segment in shown.segments if set(segment.frames) & set(newest))
    return found if found.tokens >= WORTH * max(before, 1) else Allocation()
