"""What asking costs on a backend, and what it would cost without shared, growing prefixes: `resadapt bench mllm`.

The same questions about the same generated pictures are asked in several ways:

    ours      one prefix per stream that only grows; all watches branch from it
    naive     a full prompt of its own per watch and hop
    video     what peers do: a chunk of ten seconds at native size, sent once per watch (told per second)
    sliding   one watch whose window slides by a hop each time, so that no prefix stays valid

Naive asking is the same backend with its caches out of the way: another stream, other content ids.
"""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import cv2
import numpy as np
from rich.table import Table

from allocator_engine.fit import FitRules, fit
from pipeline.clock import Clock
from pipeline.context import Context, ContextRules
from pipeline.errors import ConfigError
from pipeline.mllm.base import MLLM
from pipeline.types import Answers, Json, Segment, WatchQuery

SAMPLE_FPS = 2
RULES = ContextRules(max_s=30.0, keep_s=15.0, max_tokens=1_000_000)
FULL_S = 22
"""Seconds in a context when hops are counted: the mean of what the rules allow."""
CHUNK_S = 10
SHARES = (1.0, 0.1)
"""Parts of the native tokens at which everything is measured."""

_AT_ONCE = 32  # asks under way together: more than any backend here works on, fewer than any queue holds


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: streams asking at once, numbers of watches, hops of a second counted once the context has
    filled, seconds of the comparison with a sliding window, and the native (height, width) of the pictures in px."""

    streams: int = 1
    watches: tuple[int, ...] = (1, 16)
    hops: int = 4
    sliding_s: int = 180
    size: tuple[int, int] = (256, 448)

    def __post_init__(self) -> None:
        if not self.watches or min(self.streams, self.hops, *self.watches) < 1:
            raise ConfigError(f"--streams, --hops and --watches must be at least 1; got {self}")
        if self.hops > RULES.max_s - FULL_S:
            raise ConfigError(
                f"--hops is {self.hops}; expected at most {RULES.max_s - FULL_S:g}, before a context restarts"
            )


@dataclass(frozen=True, slots=True)
class Cost:
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
    """Prompt tokens computed over the same seconds by a context that is appended to and by one that slides; how often
    the former re-anchored; the largest difference of a score between it and a context never seen before, there."""

    appended: int
    slid: int
    restarts: int
    worst_difference: float

    @property
    def saved(self) -> float:
        """Part of the sliding window's prefill that appending saves."""
        return 1 - self.appended / self.slid


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    mllm: str
    plan: Plan
    costs: tuple[Cost, ...]
    saving: Saving

    def cost(self, way: str, share: float, watches: int) -> Cost:
        """One line of the table."""
        return next(one for one in self.costs if (one.way, one.share, one.watches) == (way, share, watches))

    def ratios(self, share: float) -> dict[str, float]:
        """The last number of watches against the first, and against naive asking."""
        first, last = self.plan.watches[0], self.plan.watches[-1]
        few, many = (self.cost("ours", share, watches) for watches in (first, last))
        naive = self.cost("naive", share, last)
        return {
            "encoded_ratio": many.encoded / few.encoded,
            "prefill_vs_naive": many.prefilled / naive.prefilled,
            "wall_vs_naive": many.p50_s / naive.p50_s,
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


class Pictures:
    """Generated frames: a bar moves over a textured ground."""

    def __init__(self, plan: Plan, rules: FitRules) -> None:
        height, width = plan.size
        ground = np.random.default_rng(0).integers(40, 200, (8, 14, 3), np.uint8)
        self._ground = cv2.resize(ground, (width, height), interpolation=cv2.INTER_CUBIC)
        self._rules = rules
        self._native = rules.grid.tokens(*rules.grid.native(height, width))

    def second(self, second: int, share: float) -> list[Segment]:
        """The frames of a second of stream, each at this share of its native tokens."""
        return [self._frame(second * SAMPLE_FPS + index, share) for index in range(SAMPLE_FPS)]

    def _frame(self, index: int, share: float) -> Segment:
        height, width = self._ground.shape[:2]
        pixels = self._ground.copy()
        pixels[height // 3 : height // 2, index * 9 % width :][:, : width // 8] = (220, 30, 40)
        (size,) = fit([(height, width)], [1.0], max(1, round(self._native * share)), self._rules).segments
        small = cv2.resize(pixels, (size.width, size.height), interpolation=cv2.INTER_AREA)
        return Segment(
            (index / SAMPLE_FPS,), np.asarray(small, np.uint8)[None], size.tokens, f"bench:{index}:{small.shape}"
        )


class Bench:
    """Measures one started backend."""

    def __init__(self, mllm: MLLM, clock: Clock, plan: Plan) -> None:
        self._mllm, self._clock, self._plan = mllm, clock, plan
        self._pictures = Pictures(plan, FitRules(mllm.info.grid, min_tokens_per_segment=1))
        self._names = 0

    async def run(self) -> Report:
        """Every way at every share."""
        last = self._plan.watches[-1]
        costs = []
        for share in SHARES:
            costs += [await self._ours(share, watches) for watches in self._plan.watches]
            costs.append(await self._apart("naive", share, last))
        costs.append(await self._apart("video", 1.0, last))
        return Report(self._mllm.info.name, self._plan, tuple(costs), await self._saving(SHARES[-1]))

    async def _ours(self, share: float, watches: int) -> Cost:
        """Contexts that have filled, and then grow by a hop at a time."""
        contexts = [self._context(share, 0, FULL_S) for _ in range(self._plan.streams)]
        queries = questions(watches)
        await asyncio.gather(*(self._mllm.ask(context, queries) for context in contexts))
        hops = []
        for second in range(FULL_S, FULL_S + self._plan.hops):
            contexts = [context.append(self._pictures.second(second, share)) for context in contexts]
            hops.append(await self._timed([(context, queries) for context in contexts]))
        for context in contexts:
            self._mllm.forget(context.stream_id)
        return self._cost("ours", share, watches, hops)

    async def _apart(self, way: str, share: float, watches: int) -> Cost:
        """Each watch of each stream with a context of its own that nobody has seen."""
        seconds = CHUNK_S if way == "video" else FULL_S
        hops = []
        for hop in range(1 if way == "video" else self._plan.hops):
            asked = [
                (self._context(share, hop, seconds), [query])
                for _ in range(self._plan.streams)
                for query in questions(watches)
            ]
            hops.append(await self._timed(asked))
        cost = self._cost(way, share, watches, hops)
        if way != "video":
            return cost
        per_second = {
            name: getattr(cost, name) / CHUNK_S for name in ("encoded", "prefilled", "cached", "p50_s", "p95_s")
        }
        return replace(cost, **per_second)

    async def _saving(self, share: float) -> Saving:
        (query,) = questions(1)
        context = Context.empty(self._name(), RULES)
        appended, slid, restarts, worst = 0, 0, 0, 0.0
        for second in range(self._plan.sliding_s):
            epoch = context.epoch
            context = context.append(self._pictures.second(second, share))
            said = await self._mllm.ask(context, [query])
            window = self._context(share, max(0, second + 1 - FULL_S), min(second + 1, FULL_S))
            alone = await self._mllm.ask(window, [query])
            self._mllm.forget(window.stream_id)
            appended, slid = appended + said.usage.prefilled_tokens, slid + alone.usage.prefilled_tokens
            if context.epoch != epoch:
                restarts += 1
                fresh = await self._mllm.ask(self._unseen(context), [query])
                worst = max(worst, abs(fresh.answers[0].score - said.answers[0].score))
        return Saving(appended, slid, restarts, worst)

    async def _timed(self, asked: Sequence[tuple[Context, Sequence[WatchQuery]]]) -> tuple[float, list[Answers]]:
        """Ask all at once; wall seconds and the answers. What was kept of contexts asked once is dropped."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(context: Context, queries: Sequence[WatchQuery]) -> Answers:
            async with room:
                answers = await self._mllm.ask(context, queries)
                if len(asked) > self._plan.streams:
                    self._mllm.forget(context.stream_id)
                return answers

        began_s = self._clock.monotonic_s()
        answers = await asyncio.gather(*(one(*each) for each in asked))
        return self._clock.monotonic_s() - began_s, answers

    def _cost(self, way: str, share: float, watches: int, hops: Sequence[tuple[float, list[Answers]]]) -> Cost:
        usages = [answers.usage for _, answered in hops for answers in answered]
        per = len(hops) * self._plan.streams
        walls = [seconds for seconds, _ in hops]
        return Cost(
            way,
            share,
            watches,
            sum(usage.encoded_tokens for usage in usages) / per,
            sum(usage.prefilled_tokens for usage in usages) / per,
            sum(usage.cached_tokens for usage in usages) / per,
            statistics.median(walls),
            statistics.quantiles(walls, n=20, method="inclusive")[-1] if len(walls) > 1 else walls[0],
            watches * per / sum(walls),
        )

    def _context(self, share: float, from_s: int, seconds: int) -> Context:
        """A context of a stream and of pictures that nobody has seen."""
        shown = [one for second in range(from_s, from_s + seconds) for one in self._pictures.second(second, share)]
        return self._unseen(Context.empty("", RULES).append(shown))

    def _unseen(self, context: Context) -> Context:
        name = self._name()
        segments = tuple(replace(one, content_id=f"{name}:{one.content_id}") for one in context.segments)
        return replace(context, stream_id=name, segments=segments, max_s=RULES.max_s)

    def _name(self) -> str:
        self._names += 1
        return f"bench-{self._names}"


async def measure(mllm: MLLM, clock: Clock, plan: Plan) -> Report:
    """Start the backend, measure it, close it."""
    try:
        await mllm.start()
        return await Bench(mllm, clock, plan).run()
    finally:
        await mllm.close()


def table(report: Report) -> Table:
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


def questions(count: int) -> list[WatchQuery]:
    """So many different questions."""
    things = ("gate", "van", "person", "dog", "truck", "bag", "fence", "light")
    return [
        WatchQuery(f"watch-{index}", f"Is there a {things[index % len(things)]} at place {index}?")
        for index in range(count)
    ]
