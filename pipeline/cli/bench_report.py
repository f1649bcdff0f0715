"""Measurements of `resadapt bench mllm` and their report: the plan, costs, savings, ratios and a table."""

from dataclasses import asdict, dataclass

from rich.table import Table

from pipeline.core.context import ContextRules, horizon_s
from pipeline.errors import ConfigError
from pipeline.types import Json

MOST_HOPS = 8
"""Hops counted at most: of every family so many fit between the mean length of a context and the longest."""
CHUNK_S = 10
"""Seconds of a peer's chunk."""
SHARES = (1.0, 0.1)
"""Parts of the native tokens at which everything is measured."""


def rules_of(family: str) -> ContextRules:
    """The context rules of a model family where nothing is configured; pictures here never fill them."""
    return ContextRules(*horizon_s(family), max_tokens=1_000_000)


def full_s(rules: ContextRules) -> int:
    """Whole seconds in a context when hops are counted: the mean of what the rules allow."""
    return int((rules.keep_s + rules.max_s) / 2)


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """The extent of a measurement: streams asking at once, numbers of watches, hops of a second counted once the
    context has filled, seconds of the comparison with a sliding window, and the native (height, width) of the pictures
    in px."""

    streams: int = 1
    watches: tuple[int, ...] = (1, 16)
    hops: int = 4
    sliding_s: int = 180
    size: tuple[int, int] = (256, 448)

    def __post_init__(self) -> None:
        if not self.watches or min(self.streams, self.hops, *self.watches) < 1:
            raise ConfigError(f"--streams, --hops and --watches must be at least 1; got {self}")
        if self.sliding_s < 1:
            raise ConfigError(f"--sliding is {self.sliding_s}; expected at least 1 second")
        if self.hops > MOST_HOPS:
            raise ConfigError(f"--hops is {self.hops}; expected at most {MOST_HOPS}, before a context restarts")


@dataclass(frozen=True, slots=True)
class AskCost:
    """Vision tokens encoded, prompt tokens computed and found in a cache, all per hop and stream; wall seconds of a hop
    of all streams, and answers per second of them."""

    way: str
    share: float
    watches: int
    encoded: float
    prefilled: float
    cached: float
    p50_s: float
    p95_s: float
    answers_per_s: float


@dataclass(frozen=True, slots=True)
class Saving:
    """Prompt tokens computed over the same seconds by a context that is appended to and by one that slides, and how
    often the former re-anchored. Of answers there, with what was kept and without: how many were compared, the largest
    difference of a score, and how many verdicts differ."""

    appended: int
    slid: int
    restarts: int
    compared: int
    worst_difference: float
    verdicts_differ: int

    @property
    def saved(self) -> float:
        """Part of the sliding window's prefill that appending saves."""
        return 1 - self.appended / self.slid


@dataclass(frozen=True, slots=True)
class MLLMReport:
    """All of it."""

    mllm: str
    plan: BenchPlan
    costs: tuple[AskCost, ...]
    saving: Saving

    def cost(self, way: str, share: float, watches: int) -> AskCost:
        """One line of the table."""
        return next(one for one in self.costs if (one.way, one.share, one.watches) == (way, share, watches))

    def ratios(self, share: float) -> dict[str, float]:
        """The last number of watches against the first, and against naive asking."""
        first, last = self.plan.watches[0], self.plan.watches[-1]
        few, many = (self.cost("ours", share, watches) for watches in (first, last))
        naive, video = self.cost("naive", share, last), self.cost("video", SHARES[0], last)
        return {
            "encoded_ratio": many.encoded / few.encoded,
            "prefill_vs_naive": many.prefilled / naive.prefilled,
            "wall_vs_naive": many.p50_s / naive.p50_s,
            "prefill_vs_video": many.prefilled / video.prefilled,
            "encoded_vs_video": many.encoded / video.encoded,
            "wall_vs_video": many.p50_s / video.p50_s,
            "prefill_per_further_watch": (many.prefilled - few.prefilled) / max(1, last - first),
        }

    def as_json(self) -> dict[str, Json]:
        """The ratios at native size, and everything else below them."""
        return {
            "mllm": self.mllm,
            **self.ratios(SHARES[0]),
            "sliding_saved": self.saving.saved,
            "at_share": {f"{share:g}": self.ratios(share) for share in SHARES},
            "sliding": {**asdict(self.saving), "share": SHARES[-1]},
            "costs": [asdict(cost) for cost in self.costs],
            "plan": asdict(self.plan),
        }


def table(report: MLLMReport) -> Table:
    """The report for people."""
    found = Table(
        "way", "share", "watches", "encoded", "prefilled", "cached", "p50 ms", "p95 ms", "answers/s", box=None
    )
    found.title = f"{report.mllm}: tokens per hop and stream, {report.plan.streams} streams"
    for cost in report.costs:
        tokens = (f"{count:.0f}" for count in (cost.encoded, cost.prefilled, cost.cached))
        times = (f"{seconds * 1000:.0f}" for seconds in (cost.p50_s, cost.p95_s))
        row = (cost.way, f"{cost.share:g}", str(cost.watches), *tokens, *times, f"{cost.answers_per_s:.1f}")
        found.add_row(*row)
    return found
