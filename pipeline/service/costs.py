"""Cost of each stream of a process, measured: its part of the process's CPU time, by the frames decoded for it.

A process costs something without any stream. That is its own, and no stream's: one stream alone would else seem to
cost more than the same among others.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

MEASURE_S = 10.0
"""Length of one measurement."""
IDLE_S = 2.0
"""Least length of one without any stream."""
NEWEST = 0.3
"""Weight of the newest measurement in the cost."""
LEAST = 0.01
"""The least that a stream costs, in cores."""
BASE = 0.015
"""The process's own part, in cores, until it has been measured: about that of an idle node."""
MOST_BASE = 0.1
"""The most that is taken for the process's own: what a costly stream of few frames takes would else count as that."""
APART = 0.25
"""Measurements say something of the base if their frames differ by so much of the larger number."""
KEPT = 16
"""Newest measurements of which the base is estimated."""


@dataclass(frozen=True, slots=True)
class CpuWindow:
    """One measurement of a process: frames a second decoded for all streams, and its cores."""

    frames_per_s: float
    cores: float


@dataclass(frozen=True, slots=True)
class _CpuReading:
    """CPU seconds of the process by a moment of the clock, and the frames decoded for each stream by then."""

    at_s: float
    spent_s: float
    decoded: Mapping[str, int]


class CostMeter:
    """Costs in cores. `cpu_s` is the CPU time of the process, `monotonic_s` the time by the clock; `base` is what the
    process costs without any stream."""

    def __init__(self, monotonic_s: Callable[[], float], cpu_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._cpu_s = cpu_s
        self._began: _CpuReading | None = None
        self._newest: _CpuReading | None = None
        self._frames: Counter[str] = Counter()
        self._windows: deque[CpuWindow] = deque(maxlen=KEPT)
        self._base: float | None = None
        self._costs: dict[str, float] = {}

    @property
    def base(self) -> float:
        """Cores of the process's own, as far as is known by now."""
        return BASE if self._base is None else self._base

    def of(self, decoded: Mapping[str, int]) -> Mapping[str, float]:
        """The costs of streams that are known by now, from the frames decoded for each since it was attached."""
        now = _CpuReading(self._monotonic_s(), self._cpu_s(), dict(decoded))
        began, before = self._began, self._newest
        if began is None or before is None:
            self._begin(now)
        elif bool(began.decoded) != bool(decoded):
            # The first streams have come, or the last ones have gone, since the reading before.
            self._measure(began, before)
            self._begin(now)
        else:
            self._frames += _more(before.decoded, now.decoded)
            if now.at_s - began.at_s >= MEASURE_S:
                self._measure(began, now)
                self._begin(now)
        self._newest = now
        self._costs = {slug: cost for slug, cost in self._costs.items() if slug in decoded}
        return dict(self._costs)

    def _begin(self, now: _CpuReading) -> None:
        self._began, self._frames = now, Counter()

    def _measure(self, began: _CpuReading, ended: _CpuReading) -> None:
        """Measure from one reading to another, if that is long enough. Streams that came meanwhile take their share of
        the cores; theirs is not recorded, for it is that of a part of the time."""
        seconds = ended.at_s - began.at_s
        if seconds < (MEASURE_S if began.decoded else IDLE_S):
            return
        cores, frames = (ended.spent_s - began.spent_s) / seconds, self._frames
        if began.decoded.keys() == ended.decoded.keys():
            self._windows.append(CpuWindow(sum(frames.values()) / seconds, cores))
        if (base := base_of(self._windows)) is not None:
            self._base = _blended(self._base, base)
        for slug, cost in shared_out(cores, self.base, frames).items():
            if slug in began.decoded:
                self._costs[slug] = _blended(self._costs.get(slug), cost)


def base_of(windows: Sequence[CpuWindow]) -> float | None:
    """The cores that a process takes without any frame, at most MOST_BASE: the median of what pairs of measurements
    with different frames say, else of measurements without any. None where there are none of either."""
    found = [
        fewer.cores - fewer.frames_per_s * (more.cores - fewer.cores) / (more.frames_per_s - fewer.frames_per_s)
        for fewer, more in (sorted(pair, key=lambda one: one.frames_per_s) for pair in combinations(windows, 2))
        if more.frames_per_s - fewer.frames_per_s > APART * more.frames_per_s
    ]
    found = found or [one.cores for one in windows if not one.frames_per_s]
    return min(max(median(found), 0.0), MOST_BASE) if found else None


def shared_out(cores: float, base: float, frames: Mapping[str, int]) -> Mapping[str, float]:
    """The cost of each stream: its part, by the frames decoded for it, of the cores that a process took beyond its
    own `base`, and LEAST at least. One for which no frame was decoded has none."""
    whole, spent = sum(frames.values()), max(cores - base, 0.0)
    return {slug: max(spent * count / whole, LEAST) for slug, count in frames.items() if count > 0}


def _more(before: Mapping[str, int], after: Mapping[str, int]) -> Counter[str]:
    """The frames decoded meanwhile: those of a stream that began, or began anew, count from 0."""
    known = {slug: before.get(slug, 0) for slug in after}
    return Counter({slug: count - known[slug] if count >= known[slug] else count for slug, count in after.items()})


def _blended(before: float | None, newest: float) -> float:
    return round(newest if before is None else before + NEWEST * (newest - before), 3)
