"""The yard in the lab: its episodes as material of a training, and as tasks of a comparison. A door to `samples`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from allocator_engine.evaluate.tasks import Family, TaskSource
from allocator_engine.fit import FitRules
from pipeline.build import YARD
from samples.yard.episodes.tasks import WATCHES, YardTasks
from samples.yard.versions import of_file, version

if TYPE_CHECKING:
    from pipeline.lab.training import Material

YARDS = ("yard", "yard-distracted")
"""Tasks that are made from seeds; any other name is a file's."""

__all__ = ["WATCHES", "YARDS", "tasks_version", "yard", "yard_tasks"]


@contextmanager
def yard(prompts_per_step: int, threads: int, device: str) -> "Iterator[Material]":
    """The rendered yard, whose truth is known, and its own MLLM, asked in `threads` threads. Clips are rendered in a
    process of their own. Raises ConfigError where the weights of that MLLM are missing."""
    from allocator_engine.train.ahead import Ahead  # loads torch, as the others do, which a comparison need not
    from allocator_engine.train.capo import Outside
    from pipeline.lab.training import Material, bucket
    from samples.yard.episodes.answerer import YardAnswerer
    from samples.yard.episodes.cells import SLOTS
    from samples.yard.episodes.clips import YardClips
    from samples.yard.shape import grid

    answerer, clips = YardAnswerer(YARD, device=device), YardClips()
    notes = {"world": version("world"), "grammar": version("grammar"), "truth": version("truth")}
    notes |= {"mllm": of_file(YARD / "model.safetensors"), "mllm_name": "yard"}
    rules = FitRules(grid(), frames_per_segment=2)
    about = f"{clips} {notes} {version('training')}"
    with Ahead(clips, prompts_per_step) as ahead:
        yield Material(Outside(ahead, answerer, bucket, rules, threads, about), notes, slots=SLOTS)


def yard_tasks(
    name: str, seeds: range, seconds: float, families: tuple[Family, ...], watches: int, quiet_s: float
) -> Callable[[], TaskSource]:
    """A function that opens the tasks of one of YARDS, in any process."""
    return partial(YardTasks, seeds, seconds, families, name == "yard-distracted", watches, quiet_s)


def tasks_version() -> str:
    """The version of the yard's tasks, on which kept figures hang."""
    return version("world", "grammar", "truth", "tasks")
