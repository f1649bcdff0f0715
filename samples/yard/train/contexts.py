"""Contexts of every length and shape, cut from episodes that were looked at, with questions about them.

While a context grows, its watches are asked with the wording and as often as they stand on a stream: mostly the answer
is no, and scores that are to mean something have to know that. Other questions are drawn so that their answers are
about even.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from samples.yard.facts import FrameFacts
from samples.yard.grammar import KINDS, Question, ask
from samples.yard.segments import told
from samples.yard.train.episodes import Looked, recall
from samples.yard.train.notes import Truths, notes, truths
from samples.yard.train.packing import Asked, Packed, Packer
from samples.yard.truth import height, newest, now
from samples.yard.watches import Watch, watches_for

NOW_KINDS = tuple(kind for kind in KINDS if kind == "unknown" or kind.endswith("_now"))
"""What can be said of the newest moment: taught before questions about the past."""

_LATER_KINDS = tuple(kind for kind in KINDS if kind not in NOW_KINDS)

WORK = 4500.0
"""What a step costs, about, in tokens of a short context (see `work`)."""

WATCHES = 8
_PAIRS_PER_TOKEN = 575  # pairs of attention that cost as much as one token's other arithmetic, measured
_MOST_TOKENS, _UNBOUNDED = 1000, 0.1  # vision tokens of a context, but for a few that are as long as they come
_ASKED_WATCHES, _ASKED_NOW, _ASKED_LATER, _ASKED_LAST = 4, 4, 2, 10
_ASKED_PRESENT, _BEFORE, _WHOLE = 28, 2, 0.35
_DROPPING = 0.3  # part of the contexts of which frames are dropped
_CACHED_FILES = 64


@dataclass(frozen=True, slots=True)
class Lesson:
    """At most `segments` per context, and whether the past is asked about."""

    segments: int
    past: bool


@dataclass(frozen=True, slots=True)
class Remembered:
    """An episode: its segments, what held in each, and the watches that stand on it."""

    looked: tuple[Looked, ...]
    held: Truths
    watches: tuple[Watch, ...]


def lesson(done: float) -> Lesson:
    """What is taught when this part of the training is over: short contexts and the present first."""
    if done < 0.2:
        return Lesson(3, past=False)
    if done < 0.5:
        return Lesson(12, past=True)
    return Lesson(64, past=True)


@lru_cache(maxsize=_CACHED_FILES)
def _remembered(file: Path) -> Remembered:
    looked = tuple(recall(file))
    frames = [frame for one in looked for frame in one.facts]
    watches = watches_for(frames, np.random.default_rng(len(looked)), WATCHES)
    return Remembered(looked, np.stack([truths(one.facts) for one in looked]), watches)


def _drawn(files: Sequence[Path], rng: np.random.Generator) -> Remembered:
    return _remembered(files[int(rng.integers(len(files)))])


def cut(looked: Sequence[Looked], most: int, rng: np.random.Generator) -> list[int]:
    """Which segments a context holds: a run of at most `most`, of which some may be dropped. Half of the contexts are
    as long as they may be."""
    count = len(looked)
    most = min(most, count)
    length = most if rng.random() < 0.5 else max(1, round(float(np.exp(rng.uniform(0, np.log(most + 0.5))))))
    last = int(rng.integers(length, count + 1))
    chosen = list(range(last - length, last))
    if rng.random() < _DROPPING:
        part = rng.uniform(0, 0.7)
        chosen = [one for one in chosen if rng.random() >= part or one == chosen[-1]]
    if rng.random() >= _UNBOUNDED:
        after = np.cumsum([len(looked[one].vision) for one in reversed(chosen)])
        chosen = chosen[-max(1, int((after <= _MOST_TOKENS).sum())) :]
    return chosen


def work(packed: Packed) -> float:
    """What it costs to learn from a context: attention takes more than all else as soon as it is long."""
    shown, asked = len(packed.context_ids), len(packed.ids)
    return shown + asked + shown * (shown / 2 + asked) / _PAIRS_PER_TOKEN


def lesson_batch(
    files: Sequence[Path], packer: Packer, done: float, rng: np.random.Generator, most: float = WORK
) -> list[Packed]:
    """Contexts with questions that together cost about `most`."""
    taught = lesson(done)
    batch: list[Packed] = []
    while sum(map(work, batch)) < most:
        episode = _drawn(files, rng)
        if (packed := packed_context(episode, packer, taught, rng)) is not None:
            batch.append(packed)
    return batch


def packed_context(episode: Remembered, packer: Packer, taught: Lesson, rng: np.random.Generator) -> Packed | None:
    """One context of an episode; None where nothing can be asked about it."""
    chosen = cut(episode.looked, taught.segments, rng)
    looked = [episode.looked[index] for index in chosen]
    frames = told([one.facts for one in looked], looked[0].pts_s[0])
    ends = np.cumsum([len(one.facts) for one in looked])
    moments = sorted({len(looked), *rng.integers(1, len(looked) + 1, 2 + len(looked) // 8).tolist()})
    asked: list[Asked] = []
    for after in moments:
        shown = frames[: ends[after - 1]]
        standing = [episode.watches[index] for index in rng.choice(WATCHES, _ASKED_WATCHES, replace=False)]
        questions = [*watched(standing, shown), *ask(shown, rng, kinds=NOW_KINDS, count=_ASKED_NOW)]
        if taught.past and after > 1:
            count = _ASKED_LAST if after == len(looked) else _ASKED_LATER
            questions += ask(shown, rng, kinds=_LATER_KINDS, count=count)
        asked += [Asked(after, question) for question in questions]
    times_s = [float(frames[end - 1].time_s) for end in ends]
    return packer.pack(looked, asked, notes(episode.held[chosen], times_s)) if asked else None


def present_batch(files: Sequence[Path], packer: Packer, rng: np.random.Generator) -> list[Packed]:
    """Many questions about few segments, and in a part of the batches one context as in the last lesson."""
    batch: list[Packed] = []
    if rng.random() < _WHOLE:
        episode = _drawn(files, rng)
        if (packed := packed_context(episode, packer, lesson(1.0), rng)) is not None:
            batch.append(packed)
    while not batch or sum(map(work, batch)) < WORK:
        batch.append(packed_present(_drawn(files, rng), packer, rng))
    return batch


def packed_present(episode: Remembered, packer: Packer, rng: np.random.Generator) -> Packed:
    """The newest second of a short context, asked about in all kinds of ways. What is shown larger is shown more often:
    of a few cells there is little to learn."""
    size = np.array([len(one.vision) for one in episode.looked]) ** 0.5
    last = int(rng.choice(len(size), p=size / size.sum()))
    chosen = list(range(max(0, last - int(rng.integers(0, _BEFORE + 1))), last + 1))
    looked = [episode.looked[index] for index in chosen]
    frames = told([one.facts for one in looked], looked[0].pts_s[0])
    questions = [*watched(episode.watches, frames), *ask(frames, rng, kinds=NOW_KINDS, count=_ASKED_PRESENT)]
    ends = np.cumsum([len(one.facts) for one in looked])
    times_s = [float(frames[end - 1].time_s) for end in ends]
    asked = [Asked(len(looked), question) for question in questions]
    return packer.pack(looked, asked, notes(episode.held[chosen], times_s))


def watched(watches: Sequence[Watch], frames: Sequence[FrameFacts]) -> list[Question]:
    """The watches as they are asked on a stream, where the truth of the newest second is certain."""
    found = []
    for watch in watches:
        if (value := now(watch.condition, frames)) is not None:
            pixels = height(watch.condition, newest(frames))
            found.append(Question("standing", "watch", watch.text, "yes" if value else "no", pixels))
    return found
