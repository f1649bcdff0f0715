"""Measures the cost of asking on a backend, and the cost without shared, growing prefixes: `resadapt bench mllm`.

The same questions about the same generated pictures are asked in several ways:

    ours      one prefix per stream that only grows; all watches branch from it
    naive     a full prompt of its own per watch and hop
    video     what peers do: a chunk of ten seconds at native size, encoded once per watch (told per second)
    sliding   one watch whose window slides by a hop each time, so that no prefix stays valid

Naive asking is the same backend with its caches out of the way: another stream, other content ids. Where the backend
takes them, all ways show two frames per segment, which is how a video item is cut: a chunk costs as one item would.
"""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from allocator_engine.fit import FitRules, SegmentSize, fit
from allocator_engine.resize import Pixels
from pipeline.cli.bench_report import CHUNK_S, SHARES, AskCost, BenchPlan, MLLMReport, Saving, full_s, rules_of
from pipeline.clock import Clock
from pipeline.core.context import Context
from pipeline.mllm.base import MLLM
from pipeline.sources.synthetic import ArrayPicture
from pipeline.types import Answer, Answers, Segment, WatchQuery

SAMPLE_FPS = 2
PATIENCE_S = 1800.0
"""Least time that an ask is given: asking naively may take longer than any watch would wait."""

_NAIVE_HOPS = 2
"""Naive hops that are measured at most: each is as many prompts as there are watches."""

_COMPARED = 4
"""Questions whose answers are compared with caching and without, at each restart and the hop behind it."""

_AT_ONCE = 32  # asks under way together: more than any backend here works on, fewer than any queue holds


class GeneratedFrames:
    """Generated frames: a bar moves over a textured ground."""

    def __init__(self, plan: BenchPlan, rules: FitRules) -> None:
        assert SAMPLE_FPS % rules.frames_per_segment == 0, rules
        height, width = plan.size
        ground = np.random.default_rng(0).integers(40, 200, (8, 14, 3), np.uint8)
        self._ground = ArrayPicture(ground).render(height, width)
        self._rules = rules
        self._native = rules.grid.tokens(*rules.grid.native(height, width))

    def second(self, second: int, share: float) -> list[Segment]:
        """The segments of a second of stream, each at this share of its native tokens."""
        step = self._rules.frames_per_segment
        first = second * SAMPLE_FPS
        return [self._segment(range(index, index + step), share) for index in range(first, first + SAMPLE_FPS, step)]

    def _segment(self, frames: range, share: float) -> Segment:
        most = max(1, round(self._native * share))
        (size,) = fit([self._ground.shape[:2]] * len(frames), [1.0] * len(frames), most, self._rules).segments
        pixels = np.stack([self._frame(index, size) for index in frames])
        times = tuple(index / SAMPLE_FPS for index in frames)
        return Segment(times, pixels, size.tokens, f"bench:{times}:{pixels.shape}")

    def _frame(self, index: int, size: SegmentSize) -> Pixels:
        height, width = self._ground.shape[:2]
        pixels = self._ground.copy()
        pixels[height // 3 : height // 2, index * 9 % width :][:, : width // 8] = (220, 30, 40)
        return ArrayPicture(pixels).render(size.height, size.width)


class MLLMBench:
    """Measures one started backend."""

    def __init__(self, mllm: MLLM, clock: Clock, plan: BenchPlan) -> None:
        self._mllm, self._clock, self._plan = mllm, clock, plan
        frames = min(mllm.info.grid.temporal_patch, mllm.info.max_frames_per_segment)
        self._pictures = GeneratedFrames(plan, FitRules(mllm.info.grid, frames, min_tokens_per_segment=1))
        self._rules = rules_of(mllm.info.family)
        self._full_s = full_s(self._rules)
        self._names = 0

    async def run(self) -> MLLMReport:
        """Every way at every share."""
        last = self._plan.watches[-1]
        costs = []
        for share in SHARES:
            costs += [await self._ours(share, watches) for watches in self._plan.watches]
            costs.append(await self._apart("naive", share, last))
        costs.append(await self._apart("video", 1.0, last))
        return MLLMReport(self._mllm.info.name, self._plan, tuple(costs), await self._saving(SHARES[-1]))

    async def _ours(self, share: float, watches: int) -> AskCost:
        """Contexts that have filled, and then grow by a hop at a time."""
        contexts = [self._context(share, 0, self._full_s) for _ in range(self._plan.streams)]
        queries = questions(watches)
        await asyncio.gather(*(self._mllm.ask(context, queries) for context in contexts))
        hops = []
        for second in range(self._full_s, self._full_s + self._plan.hops):
            contexts = [context.append(self._pictures.second(second, share)) for context in contexts]
            hops.append(await self._timed([(context, queries) for context in contexts]))
        for context in contexts:
            self._mllm.forget(context.stream_id)
        return self._cost("ours", share, watches, hops)

    async def _apart(self, way: str, share: float, watches: int) -> AskCost:
        """Each watch of each stream with a context of its own that nobody has seen."""
        seconds = CHUNK_S if way == "video" else self._full_s
        hops = []
        for hop in range(1 if way == "video" else min(self._plan.hops, _NAIVE_HOPS)):
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
        context = Context.empty(self._name(), self._rules)
        appended, slid, restarts = 0, 0, 0
        pairs: list[tuple[Answer, Answer]] = []
        for second in range(self._plan.sliding_s):
            epoch = context.epoch
            context = context.append(self._pictures.second(second, share))
            said = await self._mllm.ask(context, [query])
            window = self._context(share, max(0, second + 1 - self._full_s), min(second + 1, self._full_s))
            alone = await self._mllm.ask(window, [query])
            self._mllm.forget(window.stream_id)
            appended, slid = appended + said.usage.prefilled_tokens, slid + alone.usage.prefilled_tokens
            restarts += context.epoch != epoch
            if restarts and len(pairs) < 2 * _COMPARED * restarts:
                pairs += await self._kept_and_fresh(context)
        off = [abs(kept.score - fresh.score) for kept, fresh in pairs]
        differ = sum(kept.verdict != fresh.verdict for kept, fresh in pairs)
        return Saving(appended, slid, restarts, len(pairs), max(off, default=0.0), differ)

    async def _kept_and_fresh(self, context: Context) -> list[tuple[Answer, Answer]]:
        """The same questions on what is kept of a context and on the same context never seen before."""
        queries, unseen = questions(_COMPARED), self._unseen(context)
        kept, fresh = await self._mllm.ask(context, queries), await self._mllm.ask(unseen, queries)
        self._mllm.forget(unseen.stream_id)
        return list(zip(kept.answers, fresh.answers, strict=True))

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

    def _cost(self, way: str, share: float, watches: int, hops: Sequence[tuple[float, list[Answers]]]) -> AskCost:
        usages = [answers.usage for _, answered in hops for answers in answered]
        per = len(hops) * self._plan.streams
        walls = [seconds for seconds, _ in hops]
        return AskCost(
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
        return self._unseen(Context.empty("", self._rules).append(shown))

    def _unseen(self, context: Context) -> Context:
        name = self._name()
        segments = tuple(replace(one, content_id=f"{name}:{one.content_id}") for one in context.segments)
        return replace(context, stream_id=name, segments=segments, max_s=self._rules.max_s)

    def _name(self) -> str:
        self._names += 1
        return f"bench-{self._names}"


async def measure(mllm: MLLM, clock: Clock, plan: BenchPlan) -> MLLMReport:
    """Start the backend, measure it, close it."""
    try:
        await mllm.start()
        return await MLLMBench(mllm, clock, plan).run()
    finally:
        await mllm.close()


def questions(count: int) -> list[WatchQuery]:
    """So many different questions."""
    things = ("gate", "van", "person", "dog", "truck", "bag", "fence", "light")
    return [
        WatchQuery(f"watch-{index}", f"Is there a {things[index % len(things)]} at place {index}?")
        for index in range(count)
    ]
