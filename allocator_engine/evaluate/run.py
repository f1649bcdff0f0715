"""An evaluation from end to end: every allocator at every budget, its rate matched, its tasks asked, nothing twice."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias, TypeVar

from allocator_engine.evaluate.equal import TOLERANCE, bracket, diffuse
from allocator_engine.evaluate.records import Records
from allocator_engine.evaluate.tasks import Family, Task, TaskOutcome

T = TypeVar("T")

LEARNED = ("learned", "learned-no-text", "learned-reworded")
"""The learned allocator as it is, without queries, and with watches in words that training never used."""

WITHOUT_TEXT = "gaze"
"""The learned allocator that was trained without queries, and so has an engine of its own."""

OFFLINE = "paper"
"""The paper's allocator, which sees a clip as a whole before it allocates its first frame. It has a checkpoint."""

ALLOCATORS = (*LEARNED, WITHOUT_TEXT, "fixed", "fewer", "recent", "random", "motion", "codec", "video", "oracle")

Equal: TypeAlias = Literal["tokens", "rates"]
"""The terms of a comparison: all spend the same, or all are granted the same."""

_PORTION = 256
"""Dry passes that are made at a time; what they came to is written down before the next ones."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A dry pass: a task of episode number `index`, under an allocator at a share `budget` of the native tokens, the
    rate times STEP**step."""

    index: int
    task: str
    allocator: str
    budget: float
    step: int


@dataclass(frozen=True, slots=True)
class Spending:
    """The outcome of a dry pass: vision tokens spent and at native size, frames, those shown, wall seconds of the
    allocator, seconds of the clip, and a hash of its allocations."""

    tokens: int
    native: int
    frames: int
    shown: int
    allocator_s: float
    clip_s: float
    digest: str


@dataclass(frozen=True, slots=True)
class Show:
    """One pass with the MLLM: the allocations of a dry pass, whose digest is known, and the `tasks` of its clip that
    are asked."""

    dry: Pass
    digest: str
    tasks: tuple[str, ...]


class PassRunner(Protocol):
    """Runs passes, several at a time or one by one."""

    def spend(self, passes: Sequence[Pass]) -> Iterable[Spending]:
        """Dry passes, in order."""
        ...

    def show(self, shows: Sequence[Show]) -> Iterable[tuple[Show, tuple[TaskOutcome, ...]]]:
        """Passes with the MLLM, in the order in which they are done: of each the outcomes of its tasks. Raises
        ConnectionError when the MLLM does not answer; what was found before is kept."""
        ...


@dataclass(frozen=True, slots=True)
class Cell:
    """One allocator at one budget in one family: what was spent on each task, and its outcome; and what is spent
    `unmatched`, at the budget's own rate, whatever rate was taken."""

    allocator: str
    budget: float
    family: Family
    tasks: tuple[Task, ...]
    spendings: tuple[Spending, ...]
    outcomes: tuple[TaskOutcome, ...]
    unmatched: tuple[Spending, ...]

    @property
    def realised(self) -> float:
        """Share of the native tokens that was spent."""
        return share(self.spendings)

    @property
    def at_rate(self) -> float:
        """The same at the budget's own rate."""
        return share(self.unmatched)

    @property
    def reached(self) -> bool:
        """True if that is the budget, within the tolerance."""
        return abs(self.realised - self.budget) <= TOLERANCE * self.budget


OnProgress = Callable[[str, int, int], None]
"""Hears what is being done, and how much of it is done of how much."""


class Evaluation:
    """Cells from tasks: `episodes` are the tasks of each episode, of the families that are wanted.

    At equal tokens the rate of who saves is raised until the budget is spent; at equal rates it is the budget's own.
    `marks` say of allocators what their decisions depend on besides their name, so that records of another are not
    taken for theirs.
    """

    def __init__(
        self,
        episodes: Sequence[Sequence[Task]],
        bench: PassRunner,
        spendings: Records[Spending],
        outcomes: Records[TaskOutcome],
        on_progress: OnProgress = lambda what, done, of: None,
        marks: Mapping[str, str] = MappingProxyType({}),
        equal: Equal = "tokens",
    ) -> None:
        self._bench, self._spendings, self._outcomes, self._on_progress = bench, spendings, outcomes, on_progress
        self._marks, self._equal = marks, equal
        self._tasks = [(index, task) for index, tasks in enumerate(episodes) for task in tasks]
        self._by_name: Mapping[str, Task] = {task.name: task for _, task in self._tasks}

    def cells(self, allocators: Sequence[str], budgets: Sequence[float]) -> list[Cell]:
        """Every cell that has tasks."""
        families = list(dict.fromkeys(task.family for _, task in self._tasks))
        wanted = [(name, budget, family) for budget in budgets for name in allocators for family in families]
        matched: list[list[Pass]] = []
        for done, one in enumerate(wanted, start=1):
            matched.append(self._matched(*one))
            self._on_progress("allocating", done, len(wanted))
        self._show([dry for passes in matched for dry in passes])
        return [self._cell(*one, passes) for one, passes in zip(wanted, matched, strict=True)]

    def _matched(self, allocator: str, budget: float, family: Family) -> list[Pass]:
        """The dry pass of each task, made: at the rates at which all together spend the budget, or at its own rate."""

        def passes(step: int) -> list[Pass]:
            return self._passes(allocator, budget, family, step)

        def tokens(step: int) -> list[int]:
            return [one.tokens for one in self._spent(passes(step))]

        own = self._spent(passes(0))
        if self._equal == "rates":
            return passes(0)
        wanted = [budget * one.native for one in own]
        low, high = bracket(sum(wanted), lambda step: sum(tokens(step)))
        if low == high:
            return passes(low)
        ups = diffuse(tokens(low), tokens(high), wanted)
        return [above if up else below for below, above, up in zip(passes(low), passes(high), ups, strict=True)]

    def _passes(self, allocator: str, budget: float, family: Family, step: int) -> list[Pass]:
        chosen = [(index, task.name) for index, task in self._tasks if task.family == family]
        return [Pass(index, name, allocator, budget, step) for index, name in chosen]

    def _spent(self, passes: Sequence[Pass]) -> list[Spending]:
        """Spendings of these passes; those that are not known yet are run."""
        for portion in _portions([dry for dry in passes if self._name(dry) not in self._spendings]):
            found = self._bench.spend(portion)
            self._spendings.add({self._name(dry): one for dry, one in zip(portion, found, strict=True)})
        return [self._spendings[self._name(dry)] for dry in passes]

    def _name(self, dry: Pass) -> str:
        """Under which the spending of a dry pass is kept."""
        mark = self._marks.get(dry.allocator, "")
        return f"{dry.task} {dry.allocator} {dry.budget:g} {dry.step} {mark}".rstrip()

    def _show(self, passes: Sequence[Pass]) -> None:
        """Ask what is not known yet. Equal allocations of a clip are shown once, whoever made them."""
        shows: dict[tuple[str, str], tuple[Pass, dict[str, None]]] = {}
        for dry in sorted(passes, key=lambda dry: dry.index):
            digest = self._spendings[self._name(dry)].digest
            if _answered(dry.task, digest) not in self._outcomes:
                shows.setdefault((self._by_name[dry.task].clip, digest), (dry, {}))[1][dry.task] = None
        wanted = [Show(dry, digest, tuple(tasks)) for (_, digest), (dry, tasks) in shows.items()]
        for done, (show, outcomes) in enumerate(self._bench.show(wanted), start=1):
            named = zip(show.tasks, outcomes, strict=True)
            self._outcomes.add({_answered(task, show.digest): outcome for task, outcome in named})
            self._on_progress("asking the MLLM", done, len(wanted))

    def _cell(self, allocator: str, budget: float, family: Family, passes: Sequence[Pass]) -> Cell:
        tasks = tuple(self._by_name[dry.task] for dry in passes)
        spendings = tuple(self._spent(passes))
        outcomes = tuple(
            self._outcomes[_answered(task.name, one.digest)] for task, one in zip(tasks, spendings, strict=True)
        )
        unmatched = tuple(self._spent(self._passes(allocator, budget, family, 0)))
        return Cell(allocator, budget, family, tasks, spendings, outcomes, unmatched)


def share(spendings: Sequence[Spending]) -> float:
    """Share of the native tokens that was spent."""
    return sum(one.tokens for one in spendings) / max(1, sum(one.native for one in spendings))


def _answered(task: str, digest: str) -> str:
    """Under which an outcome is kept: it depends on what was shown, and on nothing else of the allocator."""
    return f"{task} {digest}"


def _portions(things: Sequence[T]) -> Iterable[Sequence[T]]:
    for first in range(0, len(things), _PORTION):
        yield things[first : first + _PORTION]
