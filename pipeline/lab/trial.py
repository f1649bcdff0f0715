"""One clip under an allocator: without the MLLM, for what is spent, and with it, for what is answered.

The first is the loop's own grant and allocation, without rendering; no allocator can tell the difference. The second
is the loop itself, with allocations that are given. Every grant comes from the ledger.
"""

from collections.abc import Mapping, Sequence

from allocator_engine.evaluate.equal import ClipBudget
from allocator_engine.evaluate.tasks import Task, TaskOutcome, match
from allocator_engine.fit import Allocation
from pipeline.allocators.base import Allocator
from pipeline.clock import Clock
from pipeline.core.context import Context
from pipeline.core.hops import HopRules
from pipeline.core.state import StreamRun
from pipeline.errors import AllocationFailed, ConfigError
from pipeline.lab.exam import HOPS, STREAM, CountingWatches, Journal, TrialRuntime, ledger, play, seconds_of, whole
from pipeline.lab.patience import patiently
from pipeline.loop import Runtime, allocate, grant_tokens
from pipeline.mllm.base import MLLM
from pipeline.mllm.null import NullMLLM
from pipeline.types import Answers, Hop, WatchQuery

MOST_WORDS = 24
"""Most tokens of an answer in words."""


async def spend(
    hops: Sequence[Hop],
    standing: Sequence[Sequence[WatchQuery]],
    allocator: Allocator,
    pocket: ClipBudget,
    runtime: TrialRuntime,
) -> tuple[tuple[Allocation, ...], float]:
    """An allocator's allocations of a clip, and the wall seconds they took: each hop's grant and allocation as in the
    loop, all of it spent, nothing shown. `standing` are the queries that stand in each hop; tokens are saved for those
    of the last one from the beginning.

    Raises AllocationFailed where a fixed scale had to stand in: figures would be reported for the wrong allocator.
    """
    mllm = NullMLLM(grid=runtime.rules.grid)
    product = Runtime(
        runtime.clock, CountingWatches(()), ledger(hops, pocket, runtime.clock), allocator, runtime.rules, mllm,
        Journal(), runtime.metrics,
    )  # fmt: skip
    run = StreamRun(STREAM, HOPS, whole(STREAM, seconds_of(hops)))
    allocations, taken_s = [], 0.0
    for hop, queries in zip(hops, standing, strict=True):
        grant = grant_tokens(run, hop, standing[-1], product)
        began_s = runtime.clock.monotonic_s()
        allocation, fell_back = await allocate(hop, queries, grant, product)
        if fell_back:
            raise AllocationFailed(
                f"the allocator {allocator.name} failed on the hop at {hop.start_s:g} s, and a fixed scale in its place"
                " would be reported as its own; `resadapt-allocator check` says what is wrong with its engine"
            )
        taken_s += runtime.clock.monotonic_s() - began_s
        product.budget.settle(STREAM, allocation.tokens)
        allocations.append(allocation)
    allocator.forget(STREAM)
    return tuple(allocations), taken_s


async def show(
    hops: Sequence[Hop],
    allocations: Sequence[Allocation],
    tasks: Sequence[Task],
    pocket: ClipBudget,
    mllm: MLLM,
    runtime: TrialRuntime,
    cut: HopRules = HOPS,
) -> tuple[TaskOutcome, ...]:
    """Show a clip, which was cut by `cut`, at the given sizes and ask what the tasks ask; their outcomes, in order.
    What was allocated before the tasks' `shown_hop` has left the context.

    Raises MLLMUnavailable where the MLLM did not answer, and ConfigError for a clip that does not fit into it.
    """
    first = tasks[0].shown_hop
    hops, allocations = hops[first:], allocations[first:]
    exam = _TaskExam(mllm, tasks, runtime.clock)
    given = GivenAllocations({hop.start_s: allocation for hop, allocation in zip(hops, allocations, strict=True)})
    played = await play(hops, cut, exam, given, pocket, mllm, runtime, pocket.full or first > 0)
    if played.run.counts.fallbacks or played.run.context.epoch:
        raise ConfigError(
            f"the clip of {tasks[0].name} does not fit into {mllm.info.name}: its context restarted, or the grant was"
            " cut; take a shorter clip, or a larger mllm.max_prompt_tokens"
        )
    assert played.run.counts.spent == sum(allocation.tokens for allocation in allocations)
    onsets_s = played.journal.onsets_s()
    return tuple(exam.outcome(task, onsets_s) for task in tasks)


class GivenAllocations:
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


class _TaskExam:
    """The tasks of a clip: their watches, and their questions, each when its hop has been shown."""

    def __init__(self, mllm: MLLM, tasks: Sequence[Task], clock: Clock) -> None:
        self._mllm, self._tasks, self._clock = mllm, tasks, clock
        watches = [watch for task in tasks for watch in task.watches]
        queries = [WatchQuery(one.slug, one.text, one.open_at, one.clear_at, one.confirm) for one in watches]
        self.watches = list({query.id: query for query in queries}.values())
        self._grades = {task.name: [0.0] * len(task.questions) for task in tasks}
        self._seconds = dict.fromkeys(self._grades, 0.0)

    async def examine(self, number: int, context: Context, answers: Answers) -> None:
        """See Exam."""
        for task in self._tasks:
            if task.watches:
                self._seconds[task.name] += answers.usage.seconds - answers.usage.queued_s
            await self._question(task, number, context)

    async def _question(self, task: Task, number: int, context: Context) -> None:
        due = [place for place, question in enumerate(task.questions) if question.hop == number]
        if not due:
            return
        began_s, anchor_s = self._clock.monotonic_s(), context.anchor_s
        texts = [task.questions[place].at(anchor_s) for place in due]
        said = await patiently(lambda: self._mllm.say(context, texts, MOST_WORDS), self._clock)
        self._seconds[task.name] += self._clock.monotonic_s() - began_s
        for place, text in zip(due, said, strict=True):
            self._grades[task.name][place] = task.questions[place].grade(text, anchor_s)

    def outcome(self, task: Task, onsets_s: Mapping[str, Sequence[float]]) -> TaskOutcome:
        """The outcome of a task. A question before which nothing was shown is answered wrongly."""
        events = tuple(match(watch.spans, onsets_s.get(watch.slug, ()), watch.counted_s) for watch in task.watches)
        return TaskOutcome(tuple(self._grades[task.name]), events, self._seconds[task.name])
