"""The oracle: it knows which hops decide what will be asked, and spends on those. An upper line, not an allocator.

For watches, and for questions from when to when, all that the bucket has goes to the hops in which something begins or
ceases. For other questions it is the best schedule of scales that a token bucket allows, by dynamic programming over
the bucket's level; what decides nothing has what nothing better can be done with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from allocator_engine.evaluate.baselines import scaled
from allocator_engine.evaluate.equal import ClipBudget
from allocator_engine.evaluate.tasks import Evidence, Family
from allocator_engine.fit import FitRules

SCALES = (0.0, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
"""Linear scales at which a hop may be shown."""

LEVELS = 2048
"""Steps in which the bucket's level is counted."""

_STEEP = 3
"""Evidence shown at a part of the scale that it needs is worth this power of that part: little, once illegible."""

_SPARE = 1e-3
"""The worth of spending all of a hop's native tokens where nothing better can be done with them."""


@dataclass(frozen=True, slots=True)
class HopCost:
    """A hop as the schedule sees it: when it ends, in seconds, and its frames' native (height, width) in px."""

    end_s: float
    sizes: tuple[tuple[int, int], ...]


def schedule(
    hops: Sequence[HopCost], evidence: Sequence[Evidence], purse: ClipBudget, start_s: float, rules: FitRules
) -> tuple[float, ...]:
    """The scale of each hop that makes the evidence shown worth most, with an empty bucket at `start_s`."""
    unit = purse.burst_tokens / LEVELS
    costs = [np.array([scaled(hop.sizes, scale, rules).tokens for scale in SCALES]) for hop in hops]
    worths = [_worth(index, costs[index], evidence) for index in range(len(hops))]
    # Whole levels of the running total, so that what is rounded off one refill comes with the next.
    filled = [purse.tokens_per_s * (hop.end_s - start_s) / unit for hop in hops]
    refills = [int(filled[0]), *(int(later) - int(earlier) for earlier, later in pairwise(filled))]
    best = np.zeros(LEVELS + 1)
    levels = np.arange(LEVELS + 1)
    choices: list[NDArray[np.int8]] = []
    for index in reversed(range(len(hops))):
        taken = np.ceil(costs[index] / unit - 1e-9).astype(np.int64)
        refill = refills[index + 1] if index + 1 < len(hops) else 0
        left = levels[None, :] - taken[:, None]
        after = np.clip(left + refill, 0, LEVELS)
        values = np.where(left >= 0, worths[index][:, None] + best[after], -np.inf)
        choices.append(values.argmax(0).astype(np.int8))
        best = values.max(0)
    choices.reverse()
    level, scales = min(refills[0], LEVELS), []
    for index, choice in enumerate(choices):
        option = int(choice[level])
        scales.append(SCALES[option])
        level -= int(np.ceil(costs[index][option] / unit - 1e-9))
        level = min(LEVELS, level + (refills[index + 1] if index + 1 < len(hops) else 0))
    return tuple(scales)


def plan(
    family: Family,
    hops: Sequence[HopCost],
    evidence: Sequence[Evidence],
    purse: ClipBudget,
    start_s: float,
    rules: FitRules,
) -> tuple[float, ...]:
    """The scale of each hop for a task of that family."""
    if family in ("watch_f1", "grounding"):
        return on_transitions(len(hops), evidence)
    return schedule(hops, evidence, purse, start_s, rules)


def on_transitions(hops: int, evidence: Sequence[Evidence]) -> tuple[float, ...]:
    """Native in hops with a transition, as far as that is paid for, or nothing."""
    deciding = {one.hop for one in evidence}
    return tuple(float(hop in deciding) for hop in range(hops))


def _worth(hop: int, costs: NDArray[np.int64], evidence: Sequence[Evidence]) -> NDArray[np.float64]:
    """The worth of each scale."""
    shown = np.array(SCALES)
    worth = _SPARE * costs / max(1, int(costs[-1]))
    for one in (one for one in evidence if one.hop == hop):
        worth = worth + one.worth * np.minimum(1.0, shown / max(one.scale, SCALES[1])) ** _STEEP
    return worth
