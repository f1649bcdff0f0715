"""Contexts of every length and shape, cut from episodes that were looked at, with questions about them.

While a context grows, its watches are asked with the wording and as often as they stand on a stream: mostly the answer
is no, and scores that are to mean something have to know that. All other questions are drawn so that what is rare is
asked about as often as what is common, and answers are about even.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samples.yard.questions.grammar import KINDS, Question, ask, ask_if
from samples.yard.questions.proposals import plates
from samples.yard.questions.truth import Seen, height, newest, now
from samples.yard.questions.watches import YardWatch, plate_watch, watches_for
from samples.yard.train.episodes import Looked, recall
from samples.yard.train.notes import CONDITIONS, Truths, notes, truths
from samples.yard.train.packing import Packed, Packer, PlacedQuestion
from samples.yard.train.plated import plates_of
from samples.yard.train.pointing import AskedContext, cells_of, points
from samples.yard.world.facts import FrameFacts
from samples.yard.world.segments import told

NOW_KINDS = tuple(kind for kind in KINDS if kind == "unknown" or kind.endswith("_now"))
"""What can be said of the newest moment: taught before questions about the past."""

_LATER_KINDS = tuple(kind for kind in KINDS if kind not in NOW_KINDS)

WORK = 4500.0
"""What a step costs, about, in tokens of a short context (see `work`)."""

WATCHES = 8
_PAIRS_PER_TOKEN = 575  # pairs of attention that cost as much as one token's other arithmetic, measured
_MOST_TOKENS, _UNBOUNDED = 1000, 0.1  # vision tokens of a context, but for a few that are as long as they come
_ASKED_WATCHES, _ASKED_NOW, _ASKED_LATER, _ASKED_LAST = 3, 2, 3, 12
_ASKED_PRESENT, _BEFORE = 12, 2
_EVEN, _EVEN_PRESENT = (2, 2), (7, 9)  # conditions that hold, and that do not
_INTERVALS = 4  # asked when all has been shown: they teach where in the past something lies
_THINNED, _CELLS_SHOWN = 0.3, 10
_LONG, _LONG_THINNED = 0.35, 0.75  # part of the contexts that are long where both kinds are mixed; of those, thinned
_PLATED = 0.3  # part of the contexts that show plates alone, where an episode has some
_NEAR_MISSES, _TEXTS, _READS = 3, 4, 3  # questions about plates; the near misses are of each
_DROPPING = 0.3  # part of the contexts of which frames are dropped
_CACHED_FILES = 3000
_LEAST_SHARE, _SHARES_FROM = 0.004, 120  # of the segments of so many episodes


@dataclass(frozen=True, slots=True)
class Lesson:
    """At most `segments` per context; in the part `thinned` of the contexts each picture shows some of its cells only:
    much shorter, and as true."""

    segments: int
    thinned: float


@dataclass(frozen=True, slots=True)
class Remembered:
    """An episode: its segments, what held in each, and the watches that stand on it."""

    looked: tuple[Looked, ...]
    held: Truths
    watches: tuple[YardWatch, ...]


AS_SERVED = Lesson(64, 0.0)
"""Contexts as the product shows them."""

_AS_LEARNED = Lesson(64, _LONG_THINNED)


@lru_cache(maxsize=_CACHED_FILES)
def remembered(file: Path) -> Remembered:
    """The contents of a file, read once."""
    looked = tuple(recall(file))
    frames = [frame for one in looked for frame in one.facts]
    watches = watches_for(frames, np.random.default_rng(len(looked)), WATCHES)
    return Remembered(looked, np.stack([truths(one.facts) for one in looked]), watches)


def _thinned(looked: Sequence[Looked], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The vision tokens that are shown: those with something in them and some others, any of which knows what all of
    the picture shows."""
    shown = []
    for one in looked:
        kept = rng.permutation(len(one.vision)) < _CELLS_SHOWN
        kept[
            [cell for frame in one.facts for thing in frame.visible for cell in cells_of(thing, one.rows, one.columns)]
        ] = True
        shown.append(kept)
    return np.concatenate(shown)


def cut(looked: Sequence[Looked], most: int, rng: np.random.Generator, thin: bool = False) -> list[int]:
    """The segments of a context: a run of at most `most`, of which some may be dropped. Half of the contexts are
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
        tokens = [len(looked[one].vision) for one in reversed(chosen)]
        after = np.cumsum(np.minimum(tokens, 2 * _CELLS_SHOWN) if thin else tokens)
        chosen = chosen[-max(1, int((after <= _MOST_TOKENS).sum())) :]
    return chosen


def work(packed: Packed) -> float:
    """The cost of learning from a context: attention takes more than all else as soon as it is long."""
    shown, asked = len(packed.context_ids), len(packed.ids)
    return shown + asked + shown * (shown / 2 + asked) / _PAIRS_PER_TOKEN


def lesson_batch(
    files: Sequence[Path], packer: Packer, taught: Lesson, rng: np.random.Generator, most: float = WORK
) -> list[Packed]:
    """Contexts with questions that together cost about `most`."""
    return _filled(files, rng, most, lambda episode, shares: packed_context(episode, packer, taught, shares, rng))


def present_batch(files: Sequence[Path], packer: Packer, rng: np.random.Generator) -> list[Packed]:
    """Many questions about the newest second of short contexts."""
    return _filled(files, rng, WORK, lambda episode, shares: packed_present(episode, packer, shares, rng), packer)


def mixed_batch(files: Sequence[Path], packer: Packer, rng: np.random.Generator) -> list[Packed]:
    """Contexts of every length, asked about all that they show, among short ones that are asked about the present: so
    neither is forgotten while the other is learned."""

    def packed(episode: Remembered, shares: NDArray[np.float64]) -> Packed | None:
        if rng.random() >= _LONG:
            return packed_present(episode, packer, shares, rng)
        return packed_context(episode, packer, _AS_LEARNED, shares, rng)

    return _filled(files, rng, WORK, packed, packer)


def _filled(
    files: Sequence[Path],
    rng: np.random.Generator,
    most: float,
    packed: Callable[[Remembered, NDArray[np.float64]], Packed | None],
    plated: Packer | None = None,
) -> list[Packed]:
    """Results of `packed` for episodes drawn from the files, None left out, until they cost `most` together. `packed`
    receives how often each of CONDITIONS holds. With `plated`, some contexts are an episode's pictures with plates,
    packed by that."""
    shares = _shares(tuple(files[:_SHARES_FROM]))
    batch: list[Packed] = []
    while sum(map(work, batch)) < most:
        file = files[int(rng.integers(len(files)))]
        if plated and rng.random() < _PLATED and plates_of(file).exists():
            batch.append(packed_plates(remembered(plates_of(file)), plated, rng))
        elif (found := packed(remembered(file), shares)) is not None:
            batch.append(found)
    return batch


def packed_context(
    episode: Remembered, packer: Packer, taught: Lesson, shares: NDArray[np.float64], rng: np.random.Generator
) -> Packed | None:
    """One context of an episode; None where nothing can be asked about it. `shares`: see `packed_present`."""
    thin = bool(rng.random() < taught.thinned)
    chosen = cut(episode.looked, taught.segments, rng, thin)
    looked = [episode.looked[index] for index in chosen]
    frames = told([one.facts for one in looked], looked[0].pts_s[0])
    ends = np.cumsum([len(one.facts) for one in looked])
    moments = sorted({len(looked), *rng.integers(1, len(looked) + 1, 2 + len(looked) // 8).tolist()})
    asked: list[PlacedQuestion] = []
    for after in moments:
        shown = frames[: ends[after - 1]]
        standing = [episode.watches[index] for index in rng.choice(WATCHES, _ASKED_WATCHES, replace=False)]
        questions = [*watched(standing, shown), *ask(shown, rng, kinds=NOW_KINDS, count=_ASKED_NOW)]
        questions += _evenly(episode.held[chosen[after - 1]], shown, shares, _EVEN, rng)
        if after > 1:
            count = _ASKED_LAST if after == len(looked) else _ASKED_LATER
            questions += ask(shown, rng, kinds=_LATER_KINDS, count=count)
            questions += ask(shown, rng, kinds=("interval",), count=_INTERVALS if after == len(looked) else 1)
        past = AskedContext(looked[:after], episode.held[chosen[:after]], shown)
        asked += [PlacedQuestion(after, question, tuple(points(question, past))) for question in questions]
    times_s = [float(frames[end - 1].time_s) for end in ends]
    if not asked:
        return None
    shown_cells = _thinned(looked, rng) if thin else None
    return packer.pack(looked, asked, notes(episode.held[chosen], times_s), shown_cells)


def packed_present(
    episode: Remembered, packer: Packer, shares: NDArray[np.float64], rng: np.random.Generator
) -> Packed:
    """The newest second of a short context, asked about in all kinds of ways. What shows something rare, or is shown
    larger, is shown more often. `shares` says of each of CONDITIONS how often it holds."""
    true = episode.held == 1
    size = np.array([len(one.vision) for one in episode.looked]) ** 0.5
    chance = size * (true / shares).sum(axis=1) ** 0.5
    last = int(rng.choice(len(chance), p=chance / chance.sum()))
    chosen = list(range(max(0, last - int(rng.integers(0, _BEFORE + 1))), last + 1))
    looked = [episode.looked[index] for index in chosen]
    frames = told([one.facts for one in looked], looked[0].pts_s[0])
    questions = [*watched(episode.watches, frames), *ask(frames, rng, kinds=NOW_KINDS, count=_ASKED_PRESENT)]
    questions += _evenly(episode.held[last], frames, shares, _EVEN_PRESENT, rng)
    ends = np.cumsum([len(one.facts) for one in looked])
    times_s = [float(frames[end - 1].time_s) for end in ends]
    past = AskedContext(looked, episode.held[chosen], frames)
    asked = [PlacedQuestion(len(looked), question, tuple(points(question, past))) for question in questions]
    shown = _thinned(looked, rng) if rng.random() < _THINNED else None
    return packer.pack(looked, asked, notes(episode.held[chosen], times_s), shown)


def packed_plates(episode: Remembered, packer: Packer, rng: np.random.Generator) -> Packed:
    """A few of an episode's pictures with plates in a row, and questions about the plates of the newest."""
    last = int(rng.integers(len(episode.looked)))
    first = max(0, last - int(rng.integers(0, _BEFORE + 1)))
    looked = episode.looked[first : last + 1]
    frames = told([one.facts for one in looked], looked[0].pts_s[0])
    past = AskedContext(looked, episode.held[first : last + 1], frames)
    asked = [
        PlacedQuestion(len(looked), question, tuple(points(question, past))) for question in _of_plates(frames, rng)
    ]
    return packer.pack(looked, asked)


def _of_plates(frames: Sequence[FrameFacts], rng: np.random.Generator) -> list[Question]:
    """Only of plates: the facts of these pictures tell of nothing else. Those that are there are asked for twice."""
    proposed = [condition for _ in range(_NEAR_MISSES) for condition in plates(newest(frames), rng)]
    texts = [condition.plate for condition in proposed if isinstance(condition, Seen) and condition.plate]
    there = [text for text in texts if now(plate_watch(text).condition, frames)]
    questions = watched([plate_watch(text) for text in [*dict.fromkeys(there), *dict.fromkeys(texts)]], frames)
    questions += ask(frames, rng, kinds=("plate_text_now",), count=_TEXTS)
    for _ in range(_READS):
        questions += ask(frames, rng, kinds=("plate_read_now",))
    return questions + ask(frames, rng, kinds=("plate_any_now",))


def _evenly(
    held: Truths,
    frames: Sequence[FrameFacts],
    shares: NDArray[np.float64],
    counts: tuple[int, int],
    rng: np.random.Generator,
) -> list[Question]:
    """At most `counts` of what holds and of what does not: the less usual that is, the more likely it is asked."""
    questions: list[Question] = []
    for state, usual, count in ((1, shares, counts[0]), (0, 1 - shares, counts[1])):
        chance = np.where(held == state, 1 / usual, 0.0)
        drawn = rng.choice(len(held), min(count, int((chance > 0).sum())), replace=False, p=chance / chance.sum())
        asked = (ask_if(CONDITIONS[index], frames, rng) for index in drawn)
        questions += [question for question in asked if question is not None]
    return questions


@lru_cache(maxsize=1)
def _shares(files: tuple[Path, ...]) -> NDArray[np.float64]:
    """In which part of the segments of episodes each of CONDITIONS holds, at least _LEAST_SHARE and at most the rest:
    float64 `[CONDITIONS]`."""
    held = np.concatenate([remembered(file).held for file in files])
    return np.asarray((held == 1).mean(axis=0).clip(_LEAST_SHARE, 1 - _LEAST_SHARE))


def watched(watches: Sequence[YardWatch], frames: Sequence[FrameFacts]) -> list[Question]:
    """The watches as they are asked on a stream, where the truth of the newest second is certain."""
    found = []
    for watch in watches:
        if (value := now(watch.condition, frames)) is not None:
            pixels = height(watch.condition, newest(frames))
            found.append(Question("standing", "watch", watch.text, "yes" if value else "no", pixels))
    return found
