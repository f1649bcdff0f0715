"""Contexts of every length and shape, cut from episodes that were looked at, with questions about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from samples.yard.grammar import KINDS, Question, ask
from samples.yard.segments import told
from samples.yard.train.episodes import Looked, recall
from samples.yard.train.packing import Packed, Packer

QUESTIONS = 24
"""Questions behind each context."""

FIRST_LESSONS = tuple(kind for kind in KINDS if kind == "unknown" or kind.endswith("_now"))
"""What can be said of the newest moment: taught before questions about the past."""

_MOST_TOKENS = 1300
"""Vision tokens of a context, but for a few that are as long as they come."""

_UNBOUNDED = 0.06
_DROPPING = 0.35  # part of the contexts of which frames are dropped
_CACHED_FILES = 96


@dataclass(frozen=True, slots=True)
class Lesson:
    """At most `segments` per context, and the kinds of questions asked."""

    segments: int
    kinds: tuple[str, ...]


def lesson(done: float) -> Lesson:
    """What is taught when this part of the training is over: short contexts and the present first."""
    if done < 0.25:
        return Lesson(3, FIRST_LESSONS)
    if done < 0.5:
        return Lesson(10, KINDS)
    return Lesson(64, KINDS)


@lru_cache(maxsize=_CACHED_FILES)
def _remembered(file: Path) -> list[Looked]:
    return recall(file)


def cut(looked: Sequence[Looked], most: int, rng: np.random.Generator) -> list[Looked]:
    """A run of at most `most` segments, some of them dropped, within the bound on tokens."""
    length = max(1, round(float(np.exp(rng.uniform(0, np.log(min(most, len(looked)) + 0.5))))))
    last = int(rng.integers(length, len(looked) + 1))
    chosen = list(looked[last - length : last])
    if rng.random() < _DROPPING:
        kept = rng.random(len(chosen)) >= rng.uniform(0, 0.7)
        kept[-1] = True  # the newest moment is what the questions are about
        chosen = [one for one, stays in zip(chosen, kept, strict=True) if stays]
    bounded = rng.random() >= _UNBOUNDED
    while bounded and len(chosen) > 1 and sum(one.rows * one.columns for one in chosen) > _MOST_TOKENS:
        chosen = chosen[len(chosen) // 3 or 1 :]
    return chosen


def asked(looked: Sequence[Looked], rng: np.random.Generator, kinds: Sequence[str], count: int) -> list[Question]:
    """Questions about a context, in its own time."""
    anchor_s = looked[0].pts_s[0]
    return ask(told([one.facts for one in looked], anchor_s), rng, kinds=kinds, count=count)


def lesson_batch(
    files: Sequence[Path], packer: Packer, done: float, contexts: int, rng: np.random.Generator
) -> list[Packed]:
    """Contexts with questions, drawn from the files of one step."""
    taught = lesson(done)
    batch: list[Packed] = []
    for index in rng.integers(0, len(files), contexts):
        context = cut(_remembered(files[index]), taught.segments, rng)
        if questions := asked(context, rng, taught.kinds, QUESTIONS):
            batch.append(packer.pack(context, questions))
    return batch
