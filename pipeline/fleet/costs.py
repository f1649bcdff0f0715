"""Cost of each stream of a process, measured: its part of the process's CPU time, by the frames decoded for it."""

from collections.abc import Callable, Mapping

MEASURE_S = 10.0
"""Length of one measurement."""
NEWEST = 0.3
"""Weight of the newest measurement in the cost."""
LEAST = 0.01
"""The least that a stream costs, in cores."""


class CostMeter:
    """Costs in cores. `cpu_s` is the CPU time of the process, `monotonic_s` the time by the clock."""

    def __init__(self, monotonic_s: Callable[[], float], cpu_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._cpu_s = cpu_s
        self._began_s: float | None = None
        self._spent_s = 0.0
        self._decoded: Mapping[str, int] = {}
        self._costs: dict[str, float] = {}

    def of(self, decoded: Mapping[str, int]) -> Mapping[str, float]:
        """The costs of streams that are known by now, from the frames decoded for each since it was attached."""
        now_s, spent_s = self._monotonic_s(), self._cpu_s()
        if self._began_s is None or now_s - self._began_s >= MEASURE_S:
            if self._began_s is not None:
                self._measure(decoded, (spent_s - self._spent_s) / (now_s - self._began_s))
            self._began_s, self._spent_s, self._decoded = now_s, spent_s, dict(decoded)
        self._costs = {slug: cost for slug, cost in self._costs.items() if slug in decoded}
        return dict(self._costs)

    def _measure(self, decoded: Mapping[str, int], cores: float) -> None:
        """Share out `cores`, the mean CPU load since the last measurement. Streams that began meanwhile wait for the
        next."""
        more = {slug: count - self._decoded[slug] for slug, count in decoded.items() if slug in self._decoded}
        frames = {slug: count for slug, count in more.items() if count > 0}
        whole = sum(frames.values())
        for slug, count in frames.items():
            cost = max(cores * count / whole, LEAST)
            before = self._costs.get(slug, cost)
            self._costs[slug] = round(before + NEWEST * (cost - before), 3)
