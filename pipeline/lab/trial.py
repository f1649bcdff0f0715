"""One clip through the main loop: without the MLLM, for what an allocator spends, and with it, for what is answered.

The first is the loop's own grant and allocation, without rendering; no allocator can tell the difference. The second
is the loop itself, with allocations that are given. Every grant comes from the ledger.
"""

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from allocator_engine.evaluate.equal import ClipBudget
from allocator_engine.evaluate.tasks import Task, TaskOutcome, match
from allocator_engine.fit import Allocation, FitRules
from allocator_engine.train.rollout import ClipHop
from pipeline.allocators.base import Allocator
from pipeline.clock import Clock
from pipeline.core.budget import Ledger, Rate
from pipeline.core.context import Context, ContextRules, Room
from pipeline.core.hops import HopRules
from pipeline.core.outcome import Decision
from pipeline.core.state import StreamRun
from pipeline.errors import AllocationFailed, ConfigError, MLLMUnavailable
from pipeline.lab.patience import patiently
from pipeline.loop import Runtime, allocate, grant_tokens, watch_stream
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLM
from pipeline.mllm.null import NullMLLM
from pipeline.sources.base import Notify, Sampler, SourceCounts, ignore
from pipeline.types import Answers, Frame, Hop, Json, Segment, WatchQuery

HOPS = HopRules(sample_fps=2.0, hop_s=1.0)
"""How clips are cut if they are not long."""

STREAM = "trial"
"""The id of the stream that a clip is shown as."""

MOST_WORDS = 24
"""Most tokens of an answer in words."""

_START = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TrialRuntime:
    """What trials share: the clock, what a legal allocation looks like, and the metrics, which nobody reads."""

    clock: Clock
    rules: FitRules
    metrics: Metrics


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


async def spend(
    hops: Sequence[Hop],
    standing: Sequence[Sequence[WatchQuery]],
    allocator: Allocator,
    purse: ClipBudget,
    table: TrialRuntime,
) -> tuple[tuple[Allocation, ...], float]:
    """What an allocator makes of a clip, and the wall seconds it took: each hop's grant and allocation as the loop has
    them, all of it spent, nothing shown. `standing` are the queries that stand in each hop; tokens are saved for those
    of the last one from the beginning.

    Raises AllocationFailed where a fixed scale had to stand in: figures would be told of the wrong allocator.
    """
    mllm = NullMLLM(grid=table.rules.grid)
    runtime = Runtime(
        table.clock, _TrialWatches(()), _ledger(hops, purse, table.clock), allocator, table.rules, mllm, Journal(),
        table.metrics,
    )  # fmt: skip
    run = StreamRun(STREAM, HOPS, whole(STREAM, _seconds(hops)))
    allocations, taken_s = [], 0.0
    for hop, queries in zip(hops, standing, strict=True):
        grant = grant_tokens(run, hop, standing[-1], runtime)
        began_s = table.clock.monotonic_s()
        allocation, fell_back = await allocate(hop, queries, grant, runtime)
        if fell_back:
            raise AllocationFailed(
                f"the allocator {allocator.name} failed on the hop at {hop.start_s:g} s, and a fixed scale in its place"
                " would be told as its own; `resadapt-allocator check` says what is wrong with its engine"
            )
        taken_s += table.clock.monotonic_s() - began_s
        runtime.budget.settle(STREAM, allocation.tokens)
        allocations.append(allocation)
    allocator.forget(STREAM)
    return tuple(allocations), taken_s


async def show(
    hops: Sequence[Hop],
    allocations: Sequence[Allocation],
    tasks: Sequence[Task],
    purse: ClipBudget,
    mllm: MLLM,
    table: TrialRuntime,
    rules: HopRules = HOPS,
) -> tuple[TaskOutcome, ...]:
    """Show a clip, which was cut by `rules`, at the given sizes and ask what the tasks ask; their outcomes, in order.

    Raises MLLMUnavailable where the MLLM did not answer, and ConfigError for a clip that does not fit into it.
    """
    exam, journal = _Exam(mllm, tasks, table.clock), Journal()
    given = _Given({hop.start_s: allocation for hop, allocation in zip(hops, allocations, strict=True)})
    runtime = Runtime(
        table.clock, exam.standing, _ledger(hops, purse, table.clock), given, table.rules, exam, journal, table.metrics
    )
    run = StreamRun(STREAM, rules, whole(STREAM, _seconds(hops)))
    await watch_stream(run, Recording([frame for hop in hops for frame in hop.frames]), runtime)
    exam.forget(STREAM)
    if exam.fault:
        raise exam.fault
    if run.counts.fallbacks or run.context.epoch:
        raise ConfigError(
            f"the clip of {tasks[0].name} does not fit into {mllm.info.name}: its context restarted, or the grant was"
            " cut; take a shorter clip, or a larger mllm.max_prompt_tokens"
        )
    assert run.counts.spent == sum(allocation.tokens for allocation in allocations)
    onsets_s = journal.onsets_s()
    return tuple(exam.outcome(task, onsets_s) for task in tasks)


def _ledger(hops: Sequence[Hop], purse: ClipBudget, clock: Clock) -> Ledger:
    ledger = Ledger(clock)
    ledger.open(STREAM, Rate(purse.tokens_per_s, purse.burst_tokens), hops[0].start_s, full=False)
    return ledger


def _seconds(hops: Sequence[Hop]) -> float:
    return hops[-1].end_s - hops[0].start_s


class _TrialWatches:
    """The watches; the loop looks them up once a hop, by which hops are counted."""

    def __init__(self, queries: Sequence[WatchQuery]) -> None:
        self._queries = queries
        self.hop = -1

    def on(self, stream_id: str) -> Sequence[WatchQuery]:
        """See Watches."""
        self.hop += 1
        return self._queries


class _Given:
    """Allocations that were decided before, by the start of their hop."""

    name = "given"

    def __init__(self, allocations: Mapping[float, Allocation]) -> None:
        self._allocations = allocations

    async def allocate(self, hop: Hop, queries: Sequence[WatchQuery], grant: int) -> Allocation:
        """See Allocator."""
        return self._allocations[hop.start_s]

    def forget(self, stream_id: str) -> None:
        """See Allocator."""

    async def close(self) -> None:
        """See Allocator."""


class _Exam:
    """The MLLM, which is also asked the tasks' questions when their hop has been shown.

    Without watches nothing has to be answered in between: the MLLM then reads what was shown when the first question
    comes, and the loop is told that it has read it hop by hop.
    """

    def __init__(self, mllm: MLLM, tasks: Sequence[Task], clock: Clock) -> None:
        watches = [watch for task in tasks for watch in task.watches]
        self._mllm, self._tasks, self._clock = mllm, tasks, clock
        self._reader: MLLM = mllm if watches else NullMLLM(grid=mllm.info.grid)
        standing = [WatchQuery(one.slug, one.text, one.open_at, one.clear_at, one.confirm) for one in watches]
        self.standing = _TrialWatches(standing or [WatchQuery("", "is it so?")])
        self.info = mllm.info
        self.fault: MLLMUnavailable | None = None
        self._grades = {task.name: [0.0] * len(task.questions) for task in tasks}
        self._seconds = dict.fromkeys(self._grades, 0.0)

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
            for task in self._tasks:
                if task.watches:
                    self._seconds[task.name] += answers.usage.seconds - answers.usage.queued_s
                await self._question(task, context)
        except MLLMUnavailable as error:
            self.fault = error
            raise
        return answers

    async def _question(self, task: Task, context: Context) -> None:
        due = [place for place, question in enumerate(task.questions) if question.hop == self.standing.hop]
        if not due:
            return
        began_s, anchor_s = self._clock.monotonic_s(), context.anchor_s
        texts = [task.questions[place].told(anchor_s) for place in due]
        said = await patiently(lambda: self._mllm.say(context, texts, MOST_WORDS), self._clock)
        self._seconds[task.name] += self._clock.monotonic_s() - began_s
        for place, text in zip(due, said, strict=True):
            self._grades[task.name][place] = task.questions[place].grade(text, anchor_s)

    def outcome(self, task: Task, onsets_s: Mapping[str, Sequence[float]]) -> TaskOutcome:
        """What became of a task. A question before which nothing was shown is answered wrongly."""
        events = tuple(match(watch.spans, onsets_s.get(watch.slug, ())) for watch in task.watches)
        return TaskOutcome(tuple(self._grades[task.name]), events, self._seconds[task.name])
