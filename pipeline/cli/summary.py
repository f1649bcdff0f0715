"""The end of `resadapt run`: what each watch was answered, what it cost, what was left unspent, and what to try."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from pipeline.cli.output import ScreenColumn, fitted, plain, share
from pipeline.core.budget import Rate
from pipeline.core.state import StreamRun
from pipeline.core.tally import Tally
from pipeline.types import WatchQuery

NEARLY = 0.95
"""From this share of the native tokens on, all was shown as large as it is."""

_COLUMNS = (
    ScreenColumn("watch"),
    ScreenColumn("asked", 5),
    ScreenColumn("yes", 4),
    ScreenColumn("no", 3),
    ScreenColumn("unknown", 2),
    ScreenColumn("score", 6),
    ScreenColumn("opened", 7),
    ScreenColumn("cleared", 1),
)


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """A stream at the end of a run: its watches in order, their tallies, its budget, and the name of the allocator."""

    run: StreamRun
    watches: Sequence[WatchQuery]
    tallies: Mapping[str, Tally]
    budget: Rate
    allocator: str

    @property
    def allowed(self) -> int:
        """Vision tokens that its budget would have paid for: what was saved up at the start, and the rate since."""
        run, saved = self.run, self.budget.burst_tokens if self.run.began_s == 0 else 0
        return round(saved + self.budget.tokens_per_s * (run.decided_s - run.began_s))

    @property
    def of_native(self) -> float:
        """Vision tokens of frames as they were shown over those of all sampled frames at native size."""
        return self.run.counts.allocated / max(self.run.counts.native, 1)


def report(summary: StreamSummary, console: Console) -> None:
    """Print a stream's table, its cost, and what to try next."""
    rows = [_row(watch, summary.tallies.get(watch.id, Tally())) for watch in summary.watches]
    console.print()
    console.print(fitted(_COLUMNS, rows, console.width))
    for line in (*cost(summary), *advice(summary)):
        console.print(plain(line), markup=False, highlight=False, soft_wrap=not console.is_terminal)


def cost(summary: StreamSummary) -> Iterator[str]:
    """The tokens that the stream's answers cost, in words."""
    counts = summary.run.counts
    yield (
        f"{summary.run.stream_id}: {summary.run.decided_s:.0f} s in {counts.hops} hops, {counts.spent:,} vision tokens"
        f" spent: {share(counts.spent, summary.allowed)} of the {summary.allowed:,} that the budget allowed"
    )
    again = counts.spent - counts.allocated
    yield (
        f"{counts.allocated:,} of them for frames, {share(counts.allocated, counts.native)} of native size"
        + (f"; {again:,} for what was sent again or looked at twice" if again > 0 else "")
    )


def advice(summary: StreamSummary) -> Iterator[str]:
    """Remarks on the answers and what to try next: of the stream, then of each watch that never fired. Pure."""
    counts, unfired = summary.run.counts, list(_unfired(summary))
    if not counts.hops:
        yield "- no hop was decided: nothing was seen"
        return
    if counts.skipped and summary.watches:
        yield (
            f"- {counts.skipped} of {counts.hops} hops were not asked about: nothing was due or shown, or, as warnings"
            " say, the MLLM could not answer; then give it more time (mllm.timeout_s), or less to do"
        )
    if counts.lost:
        yield f"- {counts.lost} frames were lost because answering was late: fewer watches, or a faster MLLM"
    yield from _pixels(summary)
    for watch, tally in unfired:
        yield f"- {watch.id}: {_next_step(watch, tally, summary)}"


def _pixels(summary: StreamSummary) -> Iterator[str]:
    """A remark on frames shown small or not at all, and whether the budget or the allocator is the reason."""
    counts = summary.run.counts
    if summary.of_native >= NEARLY or not counts.native or not summary.watches or counts.lost:
        return
    left = summary.allowed - counts.spent
    per_s = math.ceil(counts.native / max(summary.run.decided_s - summary.run.began_s, 1e-9))
    if left > counts.spent / 10:
        yield (
            f"- {left:,} tokens of the budget were left unspent: the allocator {summary.allocator} found other frames"
            " not worth them; --allocator fixed spends them on every frame"
        )
    else:
        yield f"- the budget is what kept frames small: --rate {per_s} pays for every frame at native size"


def _next_step(watch: WatchQuery, tally: Tally, summary: StreamSummary) -> str:
    """Why a watch that was never open may have stayed shut, and what to try."""
    if not tally.asked:
        return "was never answered"
    if tally.highest is None:
        return "was answered unknown every time: word it another way, or ask another MLLM"
    if tally.highest >= watch.open_at:
        needed, of = watch.confirm
        return (
            f"reached {tally.highest:.2f}, but not in {needed} of {of} answers in a row; try --confirm 1/1, which"
            " opens it at the first"
        )
    lower = math.floor(10 * tally.highest) / 10
    if lower > watch.clear_at:
        return f"reached {tally.highest:.2f} and opens at {watch.open_at:.2f}; try --open-at {lower:.1f}"
    small = "" if summary.of_native >= NEARLY else " at the size that was shown"
    return (
        f"never scored above {tally.highest:.2f}: it did not happen, or the MLLM does not see it{small}; try other"
        " words or another MLLM"
    )


def _unfired(summary: StreamSummary) -> Iterator[tuple[WatchQuery, Tally]]:
    for watch in summary.watches:
        tally = summary.tallies.get(watch.id, Tally())
        if not tally.opened and not tally.cleared and not _stands_open(summary.run, watch):
            yield watch, tally


def _stands_open(run: StreamRun, watch: WatchQuery) -> bool:
    state = run.state.watches.get(watch.key)
    return state is not None and state.is_open


def _row(watch: WatchQuery, tally: Tally) -> tuple[str, ...]:
    low, high = tally.lowest, tally.highest
    score = "-" if low is None or high is None else f"{low:.2f} to {high:.2f}"
    numbers = (tally.asked, tally.yes, tally.no, tally.unknown)
    return (plain(watch.id), *map(str, numbers), score, str(tally.opened), str(tally.cleared))
