"""The tasks that allocators are compared on: questions with their answers, watches with the times at which they hold.

Nothing here depends on what was shown: every allocator is asked the same, also about what it let pass.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

from allocator_engine.errors import ConfigError
from allocator_engine.evaluate.baselines import CodecActivity
from allocator_engine.train.reward import Form, grade, interval, overlap
from allocator_engine.train.rollout import ClipHop

Family: TypeAlias = Literal["watch_f1", "qa", "grounding", "image"]
"""Events of standing watches; questions about the present and the past; from when to when; single pictures."""

FAMILIES: tuple[Family, ...] = get_args(Family)

ONSET_S = 1.0
"""An event is found if its onset lies within so many seconds of the true one."""


_SLACK_S = 1e-6
_SECONDS = re.compile(r"\d+\.\d")


def parse_seeds(text: str) -> range:
    """The seeds of episodes that `A:B` names, from A up to B without B. Raises ConfigError."""
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ConfigError(f"--seeds is {text!r}; expected A:B with A below B, such as 800000:800200")
    return range(int(first), int(last))


@dataclass(frozen=True, slots=True)
class TaskQuestion:
    """A question that is asked once hop `hop` of the clip has been shown; the Allocator gets it from hop `known_hop`
    on. `split` is a part of its family that is counted apart as well.

    With `timed`, the decimals in its text are seconds of the clip. `hint` tells the MLLM what an answer looks like; the
    Allocator does not get that.
    """

    text: str
    truth: str
    form: Form
    hop: int
    split: str = ""
    timed: bool = False
    hint: str = ""
    known_hop: int = 0

    def at(self, anchor_s: float) -> str:
        """The text on a context whose time text counts from `anchor_s` seconds of the clip. What was before the
        context began is asked of its first frame."""
        text = self.text
        if self.timed:
            text = _SECONDS.sub(lambda time: f"{max(0.0, float(time[0]) - anchor_s):.1f}", text)
        return f"{text} {self.hint}" if self.hint else text

    def grade(self, said: str, anchor_s: float) -> float:
        """The grade of an answer on that context, 0 to 1; for an interval its temporal IoU with the true one."""
        if self.form != "interval":
            return grade(self.form, self.truth, said)
        wanted, found = interval(self.truth), interval(said)
        if wanted is None or found is None:
            return 0.0
        return overlap(wanted, (found[0] + anchor_s, found[1] + anchor_s))


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which a watch's condition holds, in seconds of the clip: perhaps from `since_s`, certainly from
    `certain_s` (None if never for certain), until `until_s`."""

    since_s: float
    certain_s: float | None
    until_s: float


@dataclass(frozen=True, slots=True)
class TaskWatch:
    """A standing question, every time at which its condition holds, the scores at which it opens and clears, and how
    many of how many last answers must say so; `split` as in TaskQuestion."""

    slug: str
    text: str
    spans: tuple[Span, ...]
    split: str = ""
    open_at: float = 0.7
    clear_at: float = 0.3
    confirm: tuple[int, int] = (1, 1)

    @property
    def counted_s(self) -> tuple[float, float]:
        """Seconds of the clip, from and until, in which events count: by their true onset, or that of a false one."""
        return -math.inf, math.inf


@dataclass(frozen=True, slots=True)
class BlockWatch(TaskWatch):
    """A watch whose events count in a block of time alone, so that tasks of one clip share it between them."""

    block_s: tuple[float, float] = (-math.inf, math.inf)

    @property
    def counted_s(self) -> tuple[float, float]:
        """See TaskWatch."""
        return self.block_s


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence of an answer, as the oracle knows it: hop `hop`, at the linear scale `scale` or more."""

    hop: int
    scale: float
    worth: float = 1.0


@dataclass(frozen=True, slots=True)
class Task:
    """One clip, what stands while it is shown, and what is asked.

    `episode` is what is drawn again for intervals: tasks of one episode are not independent. The Allocator gets
    the watches, or else the questions; `reworded` are the watches in words that no training used, where there are
    any. The hops before `shown_hop` are allocated and paid for, and the MLLM is not shown them: its context began anew.
    """

    name: str
    family: Family
    episode: str
    clip: str
    questions: tuple[TaskQuestion, ...] = ()
    watches: tuple[TaskWatch, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    reworded: tuple[str, ...] = ()
    shown_hop: int = 0

    @property
    def standing(self) -> tuple[str, ...]:
        """The queries that the Allocator gets, each once."""
        return self.standing_in(max((one.known_hop for one in self.questions), default=0))

    def standing_in(self, hop: int) -> tuple[str, ...]:
        """Those that it knows of when hop `hop` comes."""
        known = [one.text for one in self.questions if one.known_hop <= hop]
        return tuple(dict.fromkeys([*(one.text for one in self.watches), *known]))


@runtime_checkable
class CodedTasks(Protocol):
    """A TaskSource whose clips were encoded, and that knows how much work they were."""

    def activity(self, clip: str) -> Sequence[Sequence[CodecActivity]]:
        """The encoder's work of each frame of each hop of a clip."""
        ...


class TaskSource(Protocol):
    """Episodes, their tasks and their clips."""

    def __len__(self) -> int: ...

    def tasks(self, index: int) -> tuple[Task, ...]:
        """The tasks of an episode: always the same. Raises ValueError for a clip that cannot be read."""
        ...

    def sampling(self, clip: str) -> tuple[float, float]:
        """Frames of a clip that are sampled per second, and seconds of a hop."""
        ...

    def hops(self, clip: str) -> Sequence[ClipHop]:
        """The hops of a clip of one of its tasks, decoded when they are not at hand."""
        ...


@dataclass(frozen=True, slots=True)
class Events:
    """A watch's events against the truth: found, missed and false ones; seconds from the true onset of each found
    one."""

    found: int
    missed: int
    false: int
    delays_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """The outcome of one task under one allocation: the grade of each question (0 to 1), the events of each watch, and
    wall seconds of the MLLM."""

    grades: tuple[float, ...]
    events: tuple[Events, ...]
    mllm_s: float


def match(
    spans: Sequence[Span], onsets_s: Sequence[float], counted_s: tuple[float, float] = (-math.inf, math.inf)
) -> Events:
    """Pair opened events (by their onset, in seconds of the clip) with the spans of the watch, and count those that lie
    in `[counted_s[0], counted_s[1])`.

    An event may be noticed from ONSET_S before the span until ONSET_S after it is certain. Further onsets while it
    lasts, or while the truth is undecided, count neither way; all others are false.
    """
    left = sorted(onsets_s)
    delays: list[float] = []
    missed = 0
    for span in spans:
        inside = [s for s in left if span.since_s - ONSET_S - _SLACK_S <= s < span.until_s]
        left = [s for s in left if s not in inside]
        if span.certain_s is None or not counted_s[0] <= span.certain_s < counted_s[1]:
            continue
        if inside and inside[0] <= span.certain_s + ONSET_S + _SLACK_S:
            delays.append(inside[0] - span.certain_s)
        else:
            missed += 1
    false = sum(counted_s[0] <= onset_s < counted_s[1] for onset_s in left)
    return Events(len(delays), missed, false, tuple(delays))


@dataclass(frozen=True, slots=True)
class Parts:
    """A figure as a quotient, so that episodes can be drawn again: `top` / `bottom`, of `count` answers or events."""

    top: float = 0.0
    bottom: float = 0.0
    count: int = 0

    def __add__(self, other: "Parts") -> "Parts":
        return Parts(self.top + other.top, self.bottom + other.bottom, self.count + other.count)

    @property
    def value(self) -> float:
        """The quotient; NaN where there is nothing to divide by."""
        return self.top / self.bottom if self.bottom else math.nan


class Matched(Protocol):
    """Events against the truth, counted."""

    @property
    def found(self) -> int: ...

    @property
    def missed(self) -> int: ...

    @property
    def false(self) -> int: ...


def f1(matched: Iterable[Matched]) -> Parts:
    """F1 = 2 found / (2 found + missed + false) of all these events together."""
    total = Parts()
    for one in matched:
        wrong = one.missed + one.false
        total += Parts(2 * one.found, 2 * one.found + wrong, one.found + one.missed)
    return total


def parts(task: Task, outcome: TaskOutcome, split: str | None = None) -> Parts:
    """The figure of a task, or of a split of it: the mean grade, and of watches the F1 of their events."""
    watched = zip(task.watches, outcome.events, strict=True)
    total = f1(events for watch, events in watched if split in (None, watch.split))
    for question, right in zip(task.questions, outcome.grades, strict=True):
        if split in (None, question.split):
            total += Parts(right, 1, 1)
    return total
