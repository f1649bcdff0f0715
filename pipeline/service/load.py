"""The load of a process that runs, measured as it goes on: its CPU by streams, and the work of an MLLM inside it."""

from collections.abc import Callable, Mapping

from pipeline.service.costs import MEASURE_S, CostMeter


class LoadMeter:
    """Measures a process. `base` and `cores` are of CostMeter; `mllm_busy` are seconds that the MLLM works a second
    (None: not measured yet)."""

    def __init__(
        self, monotonic_s: Callable[[], float], cpu_s: Callable[[], float], mllm_worked_s: Callable[[], float]
    ) -> None:
        self.cores: Mapping[str, float] = {}
        self.mllm_busy: float | None = None
        self._monotonic_s = monotonic_s
        self._mllm_worked_s = mllm_worked_s
        self._meter = CostMeter(monotonic_s, cpu_s)
        self._began: tuple[float, float] | None = None

    @property
    def base(self) -> float:
        """Cores of the process's own."""
        return self._meter.base

    def note(self, decoded: Mapping[str, int]) -> None:
        """Note the frames decoded for each stream since it was attached. Call it every second or so."""
        self.cores = self._meter.of(decoded)
        now_s = self._monotonic_s()
        if self._began is None:
            self._began = now_s, self._mllm_worked_s()
        elif now_s - self._began[0] >= MEASURE_S:
            worked_s = self._mllm_worked_s()
            self.mllm_busy = max(worked_s - self._began[1], 0.0) / (now_s - self._began[0])
            self._began = now_s, worked_s
