"""Scales and a grant become sizes on the token grid whose sum never exceeds the grant. Integers only.

The learned part proposes, this disposes: whatever scales come in (NaN, negative, huge), the result is legal, on the
grid, never larger than proposed and never dearer than the grant.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from allocator_engine.grid import MAX_ASPECT, Grid, round_half_even

UNIT = 1024
"""Scales are counted in 1/1024, so that everything below is integer arithmetic."""


@dataclass(frozen=True, slots=True)
class FitRules:
    """The bounds of a legal allocation.

    `frames_per_segment` is 1 (each kept frame is an image) or 2 (two consecutive kept frames share one temporal patch
    and its tokens). A segment that cannot have `min_tokens_per_segment` vision tokens is dropped rather than shown
    illegibly, unless its native size has fewer. `max_tokens_per_segment` caps what one segment may ever cost.
    """

    grid: Grid
    frames_per_segment: int = 1
    min_tokens_per_segment: int = 2
    max_tokens_per_segment: int = 16_384

    def __post_init__(self) -> None:
        if self.frames_per_segment not in (1, 2):
            raise ValueError(f"frames_per_segment is {self.frames_per_segment}; expected 1 or 2")
        if not 1 <= self.min_tokens_per_segment <= self.max_tokens_per_segment:
            raise ValueError(
                f"min_tokens_per_segment is {self.min_tokens_per_segment}; expected 1 to max_tokens_per_segment"
                f" ({self.max_tokens_per_segment})"
            )


@dataclass(frozen=True, slots=True)
class SegmentSize:
    """One segment of an allocation: positions of its frames in the hop, size in px on the grid, vision tokens."""

    frames: tuple[int, ...]
    height: int
    width: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """The segments that a hop's grant is spent on, in time order. A frame in no segment is dropped."""

    segments: tuple[SegmentSize, ...] = ()

    @property
    def tokens(self) -> int:
        """Vision tokens of all segments together."""
        return sum(segment.tokens for segment in self.segments)


@dataclass(frozen=True, slots=True)
class _Candidate:
    frames: tuple[int, ...]
    height: int
    width: int
    native: tuple[int, int]  # cells
    scale: int  # in UNITs, 1 to UNIT
    rules: FitRules

    def cells(self, factor: int) -> tuple[int, int]:
        """Rows and columns at `factor`/UNIT of the proposed scale: aspect within one cell, one cell at the least."""
        return _cells(self.height, self.width, self.native, self.scale * factor, self.rules.grid.cell_px)

    def tokens(self, factor: int) -> int:
        rows, columns = self.cells(factor)
        return rows * columns

    @property
    def least(self) -> int:
        """Tokens under which this segment is illegible."""
        return min(self.rules.min_tokens_per_segment, self.native[0] * self.native[1])

    def floor(self) -> int | None:
        """Smallest factor at which the segment is legible, or None if its proposed scale is too small for that."""
        if self.tokens(UNIT) < self.least:
            return None
        return _first(lambda factor: self.tokens(factor) >= self.least)


@lru_cache(8192)  # a hop is fitted by hundreds of these, and hops of a stream are alike
def _cells(height: int, width: int, native: tuple[int, int], scale: int, cell_px: int) -> tuple[int, int]:
    divisor = cell_px * UNIT * UNIT
    rows, columns = (round_half_even(side * scale, divisor) for side in (height, width))
    return min(max(rows, 1), native[0]), min(max(columns, 1), native[1])


def fit(sizes: Sequence[tuple[int, int]], scales: Sequence[float], grant: int, rules: FitRules) -> Allocation:
    """Fit one hop's frames into a grant.

    `sizes` are the frames' native (height, width) in px, in time order; `scales` the linear scale proposed for each,
    1.0 = native (larger means native), 0 or less or NaN = drop. `grant` is in vision tokens.

    Returns an Allocation with `tokens <= grant` for every input. If the proposal costs more than the grant, the
    segments of least scale are dropped until the rest can be legible (the older one on a tie), then all that remain
    shrink by one common factor, and what rounding left over goes back to the largest. Nothing ever grows beyond its
    proposed scale. Raises ValueError if the two sequences differ in length.
    """
    if len(sizes) != len(scales):
        raise ValueError(f"{len(scales)} scales for {len(sizes)} frames; expected one each")
    kept = [
        (candidate, floor)
        for candidate in _candidates(sizes, scales, rules)
        if (floor := candidate.floor()) is not None
    ]
    while kept and sum(candidate.tokens(floor) for candidate, floor in kept) > grant:
        kept.remove(min(kept, key=lambda pair: (pair[0].scale, pair[0].frames)))
    if not kept:
        return Allocation()

    factors = _common_factor(kept, grant)
    _spend_rest(kept, factors, grant)
    cell = rules.grid.cell_px
    return Allocation(
        tuple(
            SegmentSize(candidate.frames, rows * cell, columns * cell, rows * columns)
            for (candidate, _), factor in zip(kept, factors, strict=True)
            for rows, columns in [candidate.cells(factor)]
        )
    )


def _common_factor(kept: list[tuple[_Candidate, int]], grant: int) -> list[int]:
    """The largest factor at which all fit, for each segment; no segment below its own floor."""

    def over(factor: int) -> bool:
        return sum(candidate.tokens(max(floor, factor)) for candidate, floor in kept) > grant

    common = UNIT if not over(UNIT) else _first(over) - 1
    return [max(floor, common) for _, floor in kept]


def _spend_rest(kept: list[tuple[_Candidate, int]], factors: list[int], grant: int) -> None:
    """Give what the common factor left over to single segments, one grid step each, the largest scale first."""
    rest = grant - sum(candidate.tokens(factor) for (candidate, _), factor in zip(kept, factors, strict=True))
    order = sorted(range(len(kept)), key=lambda i: (-kept[i][0].scale, -i))
    for i in order:
        candidate, now = kept[i][0], kept[i][0].tokens(factors[i])
        if rest <= 0 or now == candidate.tokens(UNIT):
            continue
        step = _first(lambda factor: candidate.tokens(factor) > now)  # noqa: B023 - used within this round only
        if candidate.tokens(step) - now <= rest:
            rest -= candidate.tokens(step) - now
            factors[i] = step


def _candidates(sizes: Sequence[tuple[int, int]], scales: Sequence[float], rules: FitRules) -> list[_Candidate]:
    """Form segments of consecutive kept frames of one native size; a pair is proposed at the mean of its scales."""
    groups: list[list[tuple[int, int]]] = []
    for index, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        units = _units(scale)
        if units == 0 or min(size) < 1 or max(size) > MAX_ASPECT * min(size):
            continue
        open_pair = groups and len(groups[-1]) < rules.frames_per_segment and sizes[groups[-1][0][0]] == size
        if open_pair:
            groups[-1].append((index, units))
        else:
            groups.append([(index, units)])
    return [_candidate(group, sizes[group[0][0]], rules) for group in groups]


def _candidate(group: list[tuple[int, int]], size: tuple[int, int], rules: FitRules) -> _Candidate:
    height, width = rules.grid.native(*size)
    rows, columns = height // rules.grid.cell_px, width // rules.grid.cell_px
    mean = max(1, sum(units for _, units in group) // len(group))
    candidate = _Candidate(tuple(index for index, _ in group), height, width, (rows, columns), mean, rules)
    cap = rules.max_tokens_per_segment
    if candidate.tokens(UNIT) <= cap:
        return candidate
    # One segment's cap is met by its scale, before the segments compete for the grant.
    factor = max(_first(lambda f: candidate.tokens(f) > cap) - 1, 1)
    return _Candidate(candidate.frames, height, width, (rows, columns), max(1, mean * factor // UNIT), rules)


def _units(scale: float) -> int:
    if math.isnan(scale) or scale <= 0:
        return 0
    return min(UNIT, round(min(scale, 1.0) * UNIT))


def _first(holds: Callable[[int], bool]) -> int:
    """The smallest factor in 0..UNIT at which a monotone condition holds; UNIT if it is not met before."""
    return bisect_left(range(UNIT), True, key=holds)
