"""One episode through the product's own loop, and what came of it against the truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from allocator_engine.evaluate.equal import ClipBudget
from allocator_engine.fit import Allocation, FitRules, fit
from pipeline.allocators.base import Allocator
from pipeline.allocators.fixed import FixedAllocator
from pipeline.allocators.motion import MotionAllocator
from pipeline.clock import SystemClock
from pipeline.core.budget import BURST_S
from pipeline.core.context import Context
from pipeline.errors import ConfigError, MLLMUnavailable
from pipeline.lab.exam import HOPS, TrialRuntime, as_hops, play
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLM
from pipeline.types import Answers, Hop, WatchQuery
from samples.yard.episodes.clips import HOP_S, SAMPLE_FPS, SECONDS, film
from samples.yard.questions.grammar import CARD_FAMILY, KINDS, Question, YardWatch, ask, grade, holds, watches_for
from samples.yard.questions.matching import CLEAR_AT, CONFIRM, OPEN_AT, WatchScore, match
from samples.yard.world.facts import HEIGHT, WIDTH, FrameFacts
from samples.yard.world.segments import told

WATCHES = 8
_MOMENTS = 6  # per episode at which questions about the newest second are asked
_QUESTIONS = 8  # each time
_WORDS = 12  # most tokens of an answer
_LATER = ("ever_", "at_", "times_", "never", "nobody", "before", "first")


@dataclass(frozen=True, slots=True)
class Setting:
    """The way an episode is shown: every frame at one linear scale, or what an allocator makes of a part of the native
    tokens (`budget`, 0 to 1), `frames_per_segment` at a time."""

    name: str
    allocator: str = "fixed"
    scale: float = 1.0
    budget: float | None = None
    frames_per_segment: int = 2


SETTINGS = {
    "native": Setting("native"),
    "quarter": Setting("quarter", scale=0.25),
    "fixed": Setting("fixed", budget=0.1),
    "motion": Setting("motion", "motion", budget=0.1),
}


@dataclass(frozen=True, slots=True)
class Graded:
    """One question, what was said, and how right that is (0 to 1)."""

    family: str
    kind: str
    truth: str
    said: str
    right: float


@dataclass(frozen=True, slots=True)
class Opinion:
    """One answer to a watch whose truth is certain: its score, what was true, whether it was `known` at all."""

    watch: str
    fine: bool
    score: float
    known: bool
    truth: bool


@dataclass(frozen=True, slots=True)
class Record:
    """The record of one episode: vision tokens spent and at native size, wall seconds of the MLLM, and all answers."""

    seed: int
    setting: str
    tokens: int
    native_tokens: int
    mllm_s: float
    graded: tuple[Graded, ...]
    opinions: tuple[Opinion, ...]
    watches: tuple[WatchScore, ...]


class Scaled:
    """Every frame at one linear scale."""

    name = "scaled"

    def __init__(self, rules: FitRules, scale: float) -> None:
        self._rules, self._scale = rules, scale

    async def allocate(self, hop: Hop, queries: Sequence[WatchQuery], grant: int) -> Allocation:
        """See Allocator."""
        return fit([frame.size for frame in hop.frames], [self._scale] * len(hop.frames), grant, self._rules)

    def forget(self, stream_id: str) -> None:
        """See Allocator."""

    async def close(self) -> None:
        """See Allocator."""


class _TruthExam:
    """Every answer to a watch against the truth, and questions that no watch asks: at some moments about the newest
    second, at the end about all. Each meets the very context that the watches met."""

    def __init__(self, mllm: MLLM, facts: Sequence[FrameFacts], seed: int, watches: Sequence[YardWatch]) -> None:
        self._mllm, self._facts, self._watches = mllm, facts, {watch.slug: watch for watch in watches}
        self._rng = np.random.default_rng((seed, 7))
        self._moments = set(self._rng.choice(np.arange(2, int(SECONDS)), _MOMENTS, replace=False).tolist())
        self.watches = [WatchQuery(watch.slug, watch.text, OPEN_AT, CLEAR_AT, CONFIRM) for watch in watches]
        self.graded: list[Graded] = []
        self.opinions: list[Opinion] = []
        self.seconds = 0.0

    async def examine(self, number: int, context: Context, answers: Answers) -> None:
        """See Exam."""
        self.seconds += answers.usage.seconds - answers.usage.queued_s
        shown_s = (number + 1) * HOP_S
        for answer in answers.answers:
            truth = holds(self._watches[answer.watch_id], [f for f in self._facts if f.time_s < shown_s])
            if truth is not None:
                fine = self._watches[answer.watch_id].family == "fine"
                known = answer.verdict != "unknown"
                self.opinions.append(Opinion(answer.watch_id, fine, answer.score, known, truth))
        if number + 1 in self._moments:
            await self._grade(context, _NOW_KINDS, _QUESTIONS)
        if shown_s == SECONDS:
            await self._grade(context, _LATER_KINDS, 2 * _QUESTIONS)
            await self._grade(context, ("interval",), _QUESTIONS)

    async def _grade(self, context: Context, kinds: Sequence[str], count: int) -> None:
        """Ask about what the context holds, in its own time, whatever size it was shown at."""
        by_time = {frame.time_s: frame for frame in self._facts}
        shown = [[by_time[pts_s] for pts_s in segment.pts_s] for segment in context.segments]
        questions = ask(told(shown, context.anchor_s), self._rng, kinds=kinds, count=count)
        said = await self._mllm.say(context, [question.text for question in questions], _WORDS) if questions else []
        self.graded += [_graded(question, answer) for question, answer in zip(questions, said, strict=True)]


_NOW_KINDS = tuple(CARD_FAMILY)
_LATER_KINDS = tuple(kind for kind in KINDS if kind.startswith(_LATER))


def _graded(question: Question, said: str) -> Graded:
    family = CARD_FAMILY.get(question.kind, question.family)
    return Graded(family, question.kind, question.answer, said, grade(question, said))


async def replay(seed: int, setting: Setting, mllm: MLLM) -> Record:
    """Show the episode of a seed as `setting` says and compare what was answered with the truth.

    Rendered and coded at the sampled rate; what 25 frames per second add is seen by the codec only. Raises
    MLLMUnavailable where the MLLM did not answer.
    """
    shown = film(seed, SECONDS)
    facts = [frame for hop in shown.facts for frame in hop]
    watches = watches_for(facts, np.random.default_rng((seed, 8)), WATCHES)
    exam = _TruthExam(mllm, facts, seed, watches)
    rules = FitRules(mllm.info.grid, setting.frames_per_segment)
    native = mllm.info.grid.tokens(HEIGHT, WIDTH)
    pocket = pocket_of(setting, native / setting.frames_per_segment)
    runtime = TrialRuntime(SystemClock(), rules, Metrics())
    played = await play(as_hops(shown.hops), HOPS, exam, _allocator(setting, rules), pocket, mllm, runtime)
    if skipped := played.run.counts.skipped:
        raise MLLMUnavailable(f"{skipped} hops of the episode {seed} were not asked about; it has no record")
    opened = played.journal.onsets_s()
    native_tokens = int(native * SECONDS * SAMPLE_FPS / setting.frames_per_segment)
    return Record(
        seed,
        setting.name,
        played.run.counts.spent,
        native_tokens,
        exam.seconds,
        tuple(exam.graded),
        tuple(exam.opinions),
        tuple(match(watch, facts, opened.get(watch.slug, ())) for watch in watches),
    )


def _allocator(setting: Setting, rules: FitRules) -> Allocator:
    if setting.budget is None:
        return Scaled(rules, setting.scale)
    known: dict[str, Callable[[FitRules], Allocator]] = {"fixed": FixedAllocator, "motion": MotionAllocator}
    if setting.allocator not in known:
        raise ConfigError(f"the allocator is {setting.allocator!r}; expected one of {', '.join(known)}")
    return known[setting.allocator](rules)


def pocket_of(setting: Setting, native_segment_tokens: float) -> ClipBudget:
    """A part of the native tokens per second; without a budget, more than can be spent."""
    if setting.budget is None:
        return ClipBudget(1e9, 10**9)
    rate = setting.budget * native_segment_tokens * SAMPLE_FPS
    return ClipBudget(rate, max(round(BURST_S * rate), round(native_segment_tokens * setting.frames_per_segment)))
