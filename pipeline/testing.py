"""In-memory stand-ins for every contract, and a clock that is turned by hand: for tests of what people build on them.

Each fits a protocol (see `sources.base`, `allocators.base`, `mllm.base`, `sinks.base`, `loop`), keeps what it was
given, and fails when told to. With them a stream runs through the main loop without camera, model or network:

    clock, outbox = ManualClock(), MemoryOutbox()
    source = ScriptedSource(frame_at(second / 2) for second in range(20))
    await watch_stream(run, source, Runtime(clock, StandingWatches(query), budget, allocator, rules, mllm, outbox, ...))
    assert [event.type for event in outbox.events] == ["watch.opened"]
"""

import asyncio
import heapq
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from allocator_engine.fit import Allocation, FitRules, fit
from allocator_engine.resize import Picture, Pixels
from pipeline.core.context import Context
from pipeline.core.outcome import Decision
from pipeline.mllm.null import NullMLLM, Opinion
from pipeline.sinks.memory import MemorySink as MemorySink
from pipeline.sources.base import Notice, Notify, Sampler, SourceCounts, ignore
from pipeline.sources.synthetic import ArrayPicture as ArrayPicture
from pipeline.types import Answers, Event, Frame, Hop, Segment, WatchQuery

START = datetime(2026, 1, 1, tzinfo=UTC)
"""When manual clocks and made frames begin."""


class ManualClock:
    """A Clock that only `advance` moves; `sleep` returns when it has passed its deadline."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    @property
    def sleepers(self) -> int:
        """Number of tasks that wait for their deadline."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def monotonic_s(self) -> float:
        return self._elapsed_s

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed_s)

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, self._count, future))
        await future

    def wait(self, seconds: float) -> None:
        self._elapsed_s += seconds

    def advance(self, seconds: float) -> None:
        """Move time forward and wake every sleeper whose deadline has come."""
        self._elapsed_s += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed_s:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)


class NotedPicture(ArrayPicture):
    """A picture of an RGB array; `rendered` are the sizes it was asked for, height and width."""

    def __init__(self, rgb: Pixels) -> None:
        super().__init__(rgb)
        self.rendered: list[tuple[int, int]] = []

    def render(self, height: int, width: int) -> Pixels:
        self.rendered.append((height, width))
        return super().render(height, width)


def textured(height: int = 256, width: int = 448, light: int = 0) -> Pixels:
    """A gray picture with texture, the same every time; `light` is added to its values."""
    rng = np.random.default_rng(0)
    ground = np.full((height, width, 3), 90 + light, np.uint8)
    return np.asarray(ground + rng.integers(0, 30, (height, width, 1), np.uint8), np.uint8)


def frame_at(pts_s: float, picture: Picture | None = None) -> Frame:
    """A frame at a stream time in seconds."""
    return Frame(
        pts_s, START + timedelta(seconds=pts_s), "file", round(pts_s * 25), picture or NotedPicture(textured())
    )


class ScriptedSource:
    """A Source that gives prepared frames; an exception among them is raised, and the next call goes on behind it. A
    notice is given to whoever is to know it."""

    def __init__(self, script: Iterable[Frame | Exception | Notice], live: bool = True) -> None:
        self._script = iter(script)
        self.live = live
        self.closed = False
        self.counts = SourceCounts()

    async def frames(self, sampler: Sampler, notify: Notify = ignore) -> AsyncGenerator[Frame, None]:
        for item in self._script:
            await asyncio.sleep(0)
            if self.closed:
                return
            if isinstance(item, Exception):
                raise item
            if isinstance(item, Notice):
                await notify(item)
                continue
            self.counts.decoded += 1
            if sampler.wants(item.pts_s):
                yield item

    async def close(self) -> None:
        self.closed = True


class ScriptedAllocator:
    """An Allocator that asks for one scale of every frame. `asked` are the hops, watches and grants; what stands in
    `failures` is raised first, one for each hop, None for a hop that goes well."""

    def __init__(self, rules: FitRules, scale: float = 1.0, name: str = "scripted") -> None:
        self.name = name
        self.asked: list[tuple[Hop, tuple[WatchQuery, ...], int]] = []
        self.failures: list[Exception | None] = []
        self.forgotten: list[str] = []
        self._rules, self._scale = rules, scale

    async def allocate(self, hop: Hop, queries: Sequence[WatchQuery], grant: int) -> Allocation:
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        self.asked.append((hop, tuple(queries), grant))
        return fit([one.size for one in hop.frames], [self._scale] * len(hop.frames), grant, self._rules)

    def forget(self, stream_id: str) -> None:
        self.forgotten.append(stream_id)

    async def close(self) -> None:
        return


class ScriptedMLLM(NullMLLM):
    """An MLLM that answers by `opinion`, P(yes) of a context and a query. `asked` are the contexts and the ids of
    the watches, `sent` the vision tokens that each ask had to send, `looks` the ids and segments shown aside; what
    stands in `failures` is raised first, one for each ask, None for an ask that goes well."""

    def __init__(self, opinion: Opinion = lambda context, query: 1.0) -> None:
        super().__init__(opinion)
        self.asked: list[tuple[Context, tuple[str, ...]]] = []
        self.sent: list[int] = []
        self.looks: list[tuple[tuple[str, ...], tuple[Segment, ...]]] = []
        self.failures: list[Exception | None] = []

    async def ask(
        self,
        context: Context,
        queries: Sequence[WatchQuery],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> Answers:
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        answers = await super().ask(context, queries, limit, aside)
        ids = tuple(query.id for query in queries)
        if aside:
            self.looks.append((ids, tuple(aside)))
        else:
            self.sent.append(answers.usage.encoded_tokens)
            self.asked.append((context, ids))
        return answers


class MemoryOutbox:
    """A Committer that keeps decisions."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    async def commit(self, decision: Decision) -> None:
        self.decisions.append(decision)

    @property
    def events(self) -> list[Event]:
        """Those of all decisions, in their order."""
        return [event for decision in self.decisions for event in decision.events]


class StandingWatches:
    """Watches that stand on every stream; change `queries` to add and remove."""

    def __init__(self, *queries: WatchQuery) -> None:
        self.queries: tuple[WatchQuery, ...] = queries

    def on(self, stream_id: str) -> Sequence[WatchQuery]:
        return self.queries
