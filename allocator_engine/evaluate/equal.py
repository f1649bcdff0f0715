"""Equal realised tokens: at which rate each allocator spends what it is meant to spend.

Allocators that save tokens and never get to spend them, or whose sizes do not fill the grid, would be compared at less
than the budget. No allocator's decisions depend on answers, so dry passes find the rate at which its total is right.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

STEP = 1.01
"""Rates are multiplied by whole powers of this, so that more episodes seldom ask for another rate."""

MOST = 232
"""Largest power: ten times the rate. Who does not spend the budget then does not want to."""

CLOSE = 0.01
"""A total within this part of the target needs no better rate."""

TOLERANCE = 0.02
"""Points farther than this from their budget are marked."""

_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class ClipBudget:
    """The bucket of a clip: vision tokens per second, and the most that it holds. It starts empty, or `full`."""

    tokens_per_s: float
    burst_tokens: int
    full: bool = False


def purse(native: int, least: int, seconds: float, budget: float, step: int, burst_s: float = 10.0) -> ClipBudget:
    """The bucket of a clip of `native` vision tokens and of `seconds`, at a share `budget` of them, times STEP**step.

    It holds `burst_s` seconds of its rate, but at least `least` tokens.
    """
    rate = _rate(native, seconds, budget, step)
    return ClipBudget(rate, max(round(burst_s * rate), least))


def whole_purse(native: int, seconds: float, budget: float, step: int) -> ClipBudget:
    """A bucket that holds all tokens of such a clip from its beginning."""
    rate = _rate(native, seconds, budget, step)
    return ClipBudget(rate, round(rate * seconds), full=True)


def _rate(native: int, seconds: float, budget: float, step: int) -> float:
    # Buckets count whole micro-tokens: rounded down, a whole budget would miss its last native segment by one of them.
    return (math.ceil(budget * STEP**step * native / seconds * _MICRO) + 0.5) / _MICRO


def bracket(target: float, spend: Callable[[int], float]) -> tuple[int, int]:
    """Two neighbouring steps, the totals of which lie on either side of `target`; twice the same if its total is close,
    or if it is the largest and still too little. `spend` gives the total of a step."""
    low, spent = 0, spend(0)
    if spent >= target * (1 - CLOSE):
        return 0, 0
    high, reached, stride = MOST + 1, math.inf, 1
    while high - low > 1:
        guess = _guess(target, (low, spent), (high, reached), stride)
        now = spend(guess)
        if abs(now - target) <= CLOSE * target:
            return guess, guess
        if now < target:
            low, spent = guess, now
        else:
            high, reached = guess, now
        stride *= 2
        if low == MOST:
            return MOST, MOST
    return low, high


def _guess(target: float, low: tuple[int, float], high: tuple[int, float], stride: int) -> int:
    """The step at which the total is right if it is in proportion to the rate; farther with every guess that is not."""
    needed = math.ceil(math.log(target / low[1], STEP)) if low[1] > 0 else 1
    if math.isinf(high[1]):
        return min(MOST, low[0] + max(needed, stride))
    if stride > 2**6:  # a total that jumps: halve
        return (low[0] + high[0]) // 2
    return min(max(low[0] + needed, low[0] + 1), high[0] - 1)


def diffuse(low: Sequence[int], high: Sequence[int], wanted: Sequence[float]) -> list[bool]:
    """For which episodes the higher of two rates is taken so that the running total stays closest to what is wanted.

    `low` and `high` are the tokens of each episode at either rate. Native frames cost too much for any one rate to be
    right for all episodes; a part of them then has one frame more.
    """
    error, chosen = 0.0, []
    for less, more, want in zip(low, high, wanted, strict=True):
        up = abs(error + more - want) < abs(error + less - want)
        error += (more if up else less) - want
        chosen.append(up)
    return chosen
