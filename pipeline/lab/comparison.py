"""A comparison of allocators, composed: tasks by name, examiners, what was found before, and what figures hang on."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from allocator_engine.digests import sha256_of
from allocator_engine.evaluate.frontier import Frontier, frontier
from allocator_engine.evaluate.records import Records
from allocator_engine.evaluate.run import LEARNED, OFFLINE, Equal, Evaluation, OnProgress, Spending
from allocator_engine.evaluate.tasks import Family, TaskOutcome, TaskSource
from allocator_engine.manifest import mark_of
from allocator_engine.train.data import read_rows
from pipeline.build import weight_files
from pipeline.config.mllm import DetectorConfig, MLLMConfig
from pipeline.errors import ConfigError
from pipeline.lab.crew import ExaminerPool
from pipeline.lab.digests import of_parts
from pipeline.lab.examiner import Setup
from pipeline.lab.real_tasks import VERSION, RealTasks
from pipeline.lab.video_tasks import VideoTasks
from pipeline.lab.yard import WATCHES, YARDS, tasks_version, yard_tasks
from pipeline.redact import redact_mllm

REAL = "real"
"""The name of tasks that are made of labelled recordings."""

ANSWERS_VERSION = "d4913b349dd5"
"""Version of asking and grading (prompts, contexts, the loop, rewards, matching): raised when the same allocated
pictures would get other grades. Golden outcomes are kept with the tests."""

SPENDING_VERSION = "429e23e28bb5"
"""Version of spending (what allocators are given, and what `fit` makes of it): raised when the same episode would get
another allocation. Golden allocations are kept with the tests."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison: tasks (of YARDS, REAL of the labelled recordings in `footage`, or a video-QA file), the yard's
    seeds, seconds of an episode and watches that stand together, the allocators and their shares of the native tokens,
    what is equal for all, and the MLLM. The allocators `learned...` are those of `engine`; each engine of `against` is
    one more, by its name, and so is each of `by_clip`, which has another engine for every clip, and the paper's
    allocator, by its checkpoint. `quiet_s` seconds in which nothing happens pass before each episode of the yard."""

    tasks: str
    seeds: range
    seconds: float
    budgets: tuple[float, ...]
    allocators: tuple[str, ...]
    families: tuple[Family, ...]
    engine: Path | None
    mllm: MLLMConfig
    watches: int = WATCHES
    equal: Equal = "tokens"
    against: Mapping[str, Path] = field(default_factory=dict)
    footage: Path | None = None
    quiet_s: float = 0.0
    by_clip: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    paper: Path | None = None

    def source(self) -> Callable[[], TaskSource]:
        """A function that opens the tasks, in any process."""
        if self.tasks in YARDS:
            return yard_tasks(self.tasks, self.seeds, self.seconds, self.families, self.watches, self.quiet_s)
        if self.footage is not None:
            return partial(RealTasks, self.footage, self.families, isinstance(self.mllm, DetectorConfig))
        return partial(VideoTasks, Path(self.tasks), self.families)

    def hashes(self) -> dict[str, str]:
        """Versions and hashes that the figures were measured on: the tasks, the MLLM, the engine, and the code that
        shows and allocates."""
        tasks = of_parts(self._of_tasks())
        if self.tasks in YARDS:
            tasks = tasks_version()
        use = self.mllm.use
        weights = weight_files(self.mllm)
        named = redact_mllm(use)  # a password could be guessed from its hash
        engines = {"engine": self.engine, **self.against} if self.engine else self.against
        return {
            "tasks": tasks,
            "mllm": of_parts([named, *weights]),
            "answers": ANSWERS_VERSION,
            "spending": self._spending(named),
            **{name: mark_of(engine) for name, engine in engines.items()},
            **{
                name: of_parts(f"{clip} {mark_of(one)}" for clip, one in sorted(files.items()))
                for name, files in self.by_clip.items()
            },
            **({OFFLINE: of_parts([sha256_of(self.paper)])} if self.paper else {}),
        }

    def _of_tasks(self) -> Iterator[str | Path]:
        if self.footage is not None:
            yield from (REAL, VERSION)
            yield from _of_footage(self.footage)
        elif self.tasks not in YARDS:
            yield from _of_file(Path(self.tasks))

    def _spending(self, mllm: str) -> str:
        """Spendings hang on the MLLM's grid too; those of the yard's own bear the version alone."""
        least = self.mllm.min_tokens_per_segment
        return SPENDING_VERSION if (mllm, least) == ("yard", 2) else of_parts([mllm, str(least), SPENDING_VERSION])


def compare(
    comparison: Comparison, kept: Path | None, jobs: int, on_progress: OnProgress
) -> tuple[Frontier, dict[str, str]]:
    """The frontier, and the hashes of what it was measured on, in `jobs` processes. What is found out goes into the
    folder `kept`, and what is there is not found out again.

    Raises ConfigError and EngineMismatch for what cannot be opened, and ConnectionError where the MLLM does not answer:
    the same call goes on where it was.
    """
    source = comparison.source()
    count = len(source())
    hashes = comparison.hashes()
    spent, asked = kept_files(hashes)
    spendings = Records(Spending, kept / spent if kept else None)
    outcomes = Records(TaskOutcome, kept / asked if kept else None)
    marks = {name: hashes["engine"] for name in LEARNED if "engine" in hashes}
    added = (*comparison.against, *comparison.by_clip, *((OFFLINE,) if comparison.paper else ()))
    marks |= {name: hashes[name] for name in added}
    own = {"learned": comparison.engine} if comparison.engine else {}
    engines = {**own, **comparison.against}
    with ExaminerPool(Setup(source, comparison.mllm, engines, comparison.by_clip, comparison.paper), jobs) as crew:
        episodes = []
        for tasks in crew.tasks(range(count)):
            episodes.append(tasks)
            on_progress("reading the tasks", len(episodes), count)
        if not any(episodes):
            raise ConfigError(
                f"{comparison.tasks} has no tasks of {', '.join(comparison.families)} in these episodes; take more"
            )
        evaluation = Evaluation(episodes, crew, spendings, outcomes, on_progress, marks, comparison.equal)
        named = tuple(dict.fromkeys((*comparison.allocators, *added)))
        cells = evaluation.cells(named, comparison.budgets)
    return frontier(cells), hashes


def kept_files(hashes: Mapping[str, str]) -> tuple[str, str]:
    """Names of the files that keep what was spent, and what was answered, under these hashes."""
    spent, asked = (of_parts([hashes["tasks"], *map(hashes.get, on)]) for on in (("spending",), ("mllm", "answers")))
    return f"spent-{spent}.jsonl", f"asked-{asked}.jsonl"


def _of_footage(folder: Path) -> Iterator[str | Path]:
    """The labels of a folder, and its recordings by name and size."""
    yield from sorted((folder / "real" / "labels").glob("*"))
    for place in ("clips", "real/clips"):
        for file in sorted((folder / place).glob("*")):
            yield f"{file.name} {file.stat().st_size}"


def _of_file(file: Path) -> Iterator[str | Path]:
    """A video-QA file, and its videos by name and size."""
    yield file
    for video in dict.fromkeys(row.video for row in read_rows(file)):
        yield f"{video.name} {video.stat().st_size}"
