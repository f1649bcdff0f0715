"""A clip through the main loop before an examiner: its watches stand, and after each hop more may be asked."""

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from allocator_engine.evaluate.equal import ClipBudget
from allocator_engine.fit import FitRules
from allocator_engine.train.rollout import ClipHop
from pipeline.allocators.base import Allocator
from pipeline.clock import Clock
from pipeline.core.budget import Ledger, Rate
from pipeline.core.context import Context, ContextRules, Room
from pipeline.core.hops import HopRules
from pipeline.core.outcome import Decision
from pipeline.core.state import StreamRun
from pipeline.errors import MLLMUnavailable
from pipeline.lab.patience import patiently
from pipeline.loop import Runtime, watch_stream
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLM
from pipeline.mllm.null import NullMLLM
from pipeline.sources.base import Notify, Sampler, SourceCounts, ignore
from pipeline.types import Answers, Frame, Hop, Json, Segment, WatchQuery

HOPS = HopRules(sample_fps=2.0, hop_s=1.0)
"""The rules by which clips are cut if they are not long."""

STREAM = "trial"
"""The id of the stream that a clip is shown as."""

_START = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TrialRuntime:
    """The parts that trials share: the clock, the bounds of a legal allocation, and the metrics, which nobody reads."""

    clock: Clock
    rules: FitRules
    metrics: Metrics


class Exam(Protocol):
    """The watches of a clip, and what is asked beside them."""

    @property
    def watches(self) -> Sequence[WatchQuery]:
        """The queries that stand; without any, the MLLM is not asked hop by hop."""
        ...

    async def examine(self, number: int, context: Context, answers: Answers) -> None:
        """Called once hop `number` (0 for the first) has been shown and its watches answered.

        May ask the MLLM about `context`. Raises MLLMUnavailable where that does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class ShownClip:
    """A clip that has been shown: the stream as it ended, and the decisions."""

    run: StreamRun
    journal: "Journal"


async def play(
    hops: Sequence[Hop],
    cut: HopRules,
    exam: Exam,
    allocator: Allocator,
    pocket: ClipBudget,
    mllm: MLLM,
    runtime: TrialRuntime,
    saved: bool = False,
) -> ShownClip:
    """Show a clip, which was cut by `cut`, from end to end with the tokens of `pocket`, which is full as it begins if
    they were `saved`, else empty.

    Raises MLLMUnavailable where the MLLM did not answer a hop or the exam.
    """
    examined, journal = _ExaminedMLLM(mllm, exam, runtime.clock), Journal()
    product = Runtime(
        runtime.clock, examined.standing, ledger(hops, pocket, runtime.clock, saved), allocator, runtime.rules,
        examined, journal, runtime.metrics,
    )  # fmt: skip
    run = StreamRun(STREAM, cut, whole(STREAM, seconds_of(hops)))
    await watch_stream(run, Recording([frame for hop in hops for frame in hop.frames]), product)
    examined.forget(STREAM)
    if examined.fault:
        raise examined.fault
    return ShownClip(run, journal)


class Recording:
    """A source of frames that are there already."""

    live = False

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames
        self.counts = SourceCounts()

    async def frames(self, sampler: Sampler, notify: Notify = ignore) -> AsyncGenerator[Frame, None]:
        """See Source."""
        for frame in self._frames:
            if sampler.wants(frame.pts_s):
                yield frame

    async def close(self) -> None:
        """See Source."""


class Journal:
    """An outbox that remembers what was decided."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    async def commit(self, decision: Decision) -> None:
        """See Outbox."""
        self.decisions.append(decision)

    def onsets_s(self) -> dict[str, list[float]]:
        """Onsets of the opened events in stream seconds, by watch."""
        found: dict[str, list[float]] = {}
        for event in (event for decision in self.decisions for event in decision.events):
            if event.type == "watch.opened" and event.watch_id is not None:
                found.setdefault(event.watch_id, []).append(float(str(event.data["onset_s"])))
        return found


class CountingWatches:
    """The watches; the loop looks them up once a hop, by which hops are counted."""

    def __init__(self, queries: Sequence[WatchQuery]) -> None:
        self._queries = queries
        self.hop = -1

    def on(self, stream_id: str) -> Sequence[WatchQuery]:
        """See Watches."""
        self.hop += 1
        return self._queries


class _ExaminedMLLM:
    """The MLLM in the loop, with an exam behind every answer.

    Without watches nothing has to be answered in between: the MLLM then reads what was shown when the exam's first
    question comes, and a stand-in reads it hop by hop.
    """

    def __init__(self, mllm: MLLM, exam: Exam, clock: Clock) -> None:
        self._mllm, self._exam, self._clock = mllm, exam, clock
        self._reader: MLLM = mllm if exam.watches else NullMLLM(grid=mllm.info.grid)
        self.standing = CountingWatches(exam.watches or [WatchQuery("", "is it so?")])
        self.info = mllm.info
        self.fault: MLLMUnavailable | None = None

    async def start(self) -> None:
        """See MLLM."""

    async def close(self) -> None:
        """See MLLM."""

    def pending(self, context: Context) -> int:
        """See MLLM."""
        return self._reader.pending(context)

    def room(self, context: Context) -> Room:
        """See MLLM."""
        return self._mllm.room(context)

    def forget(self, stream_id: str) -> None:
        """See MLLM."""
        self._mllm.forget(stream_id)

    async def say(
        self, context: Context, questions: Sequence[str], most: int = 64, schema: Mapping[str, Json] | None = None
    ) -> list[str]:
        """See MLLM."""
        return await self._mllm.say(context, questions, most, schema)

    async def ask(
        self,
        context: Context,
        queries: Sequence[WatchQuery],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> Answers:
        """See MLLM."""
        try:
            answers = await patiently(lambda: self._reader.ask(context, queries, limit, aside), self._clock)
            await self._exam.examine(self.standing.hop, context, answers)
        except MLLMUnavailable as error:
            self.fault = error
            raise
        return answers


def whole(stream_id: str, seconds: float) -> Context:
    """A context that holds a clip of `seconds` from end to end.

    It never restarts, and if it did, nothing of the clip would survive: nothing will be sent twice, so that the ledger
    keeps nothing back for that.
    """
    rules = ContextRules(max_s=seconds + 2.0, keep_s=1.0, max_tokens=sys.maxsize)
    return replace(Context.empty(stream_id, rules), max_s=rules.max_s)


def as_hops(clip: Sequence[ClipHop], stream_id: str = STREAM) -> list[Hop]:
    """A clip's hops as the loop knows them."""
    hops, seq = [], 0
    for one in clip:
        frames = []
        for pts_s, picture in zip(one.pts_s, one.pictures, strict=True):
            frames.append(Frame(pts_s, _START + timedelta(seconds=pts_s), "file", seq, picture))
            seq += 1
        hops.append(Hop(stream_id, one.start_s, one.end_s, tuple(frames)))
    return hops


def ledger(hops: Sequence[Hop], pocket: ClipBudget, clock: Clock, full: bool = False) -> Ledger:
    """The ledger of a clip's tokens, full or empty as it begins."""
    opened = Ledger(clock)
    opened.open(STREAM, Rate(pocket.tokens_per_s, pocket.burst_tokens), hops[0].start_s, full=full)
    return opened


def seconds_of(hops: Sequence[Hop]) -> float:
    """Seconds of a clip."""
    return hops[-1].end_s - hops[0].start_s
