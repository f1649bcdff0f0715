"""Figures from records: accuracies, F1 of events and calibration, with intervals and the majority class beside them."""

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from allocator_engine.evaluate.tasks import f1
from samples.yard.card.replay import Graded, Record
from samples.yard.questions.matching import WatchScore

T = TypeVar("T")

RESAMPLES = 1000
BINS = 10
_SEED = 4


@dataclass(frozen=True, slots=True)
class ScoredShare:
    """A share (0 to 1), its 95 % interval over episodes, the answers or true events behind it, and the majority class's
    share (for events: that of never opening)."""

    value: float
    lo: float
    hi: float
    n: int
    majority: float

    def text(self) -> str:
        """In per cent, for a table."""
        return f"{100 * self.value:.1f} [{100 * self.lo:.1f}, {100 * self.hi:.1f}] n={self.n}"


def families(records: Sequence[Record]) -> dict[str, ScoredShare]:
    """By family of questions the mean grade; of watches, of all and of the fine and coarse ones, the F1 of events."""
    by_family: dict[str, list[list[Graded]]] = defaultdict(lambda: [[] for _ in records])
    for index, record in enumerate(records):
        for graded in record.graded:
            by_family[graded.family][index].append(graded)
    figures = {name: _figure(answers, _mean, _count, _majority) for name, answers in sorted(by_family.items())}
    kinds: dict[str, Callable[[WatchScore], bool]] = {
        "watches F1": lambda score: True,
        "watches F1, coarse": lambda score: not score.fine,
        "watches F1, fine": lambda score: score.fine,
    }
    for name, chosen in kinds.items():
        scores = [[score for score in record.watches if chosen(score)] for record in records]
        figures[name] = _figure(scores, _f1, lambda found: sum(s.found + s.missed for s in found), lambda found: 0.0)
    # A family of which nothing happened has no figure.
    return {name: figure for name, figure in figures.items() if not math.isnan(figure.value)}


def _figure(
    by_episode: Sequence[Sequence[T]],
    value: Callable[[Sequence[T]], float],
    count: Callable[[Sequence[T]], int],
    majority: Callable[[Sequence[T]], float],
) -> ScoredShare:
    everything = [one for episode in by_episode for one in episode]
    lo, hi = interval(by_episode, value)
    return ScoredShare(value(everything), lo, hi, count(everything), majority(everything))


def interval(by_episode: Sequence[Sequence[T]], value: Callable[[Sequence[T]], float]) -> tuple[float, float]:
    """95 % of the values when episodes are drawn again with replacement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of draws that hold no event at all
        lo, hi = np.nanpercentile(_drawn(by_episode, value), [2.5, 97.5])
    return float(lo), float(hi)


def _drawn(by_episode: Sequence[Sequence[T]], value: Callable[[Sequence[T]], float]) -> list[float]:
    rng = np.random.default_rng(_SEED)
    return [
        value([one for index in rng.integers(0, len(by_episode), len(by_episode)) for one in by_episode[index]])
        for _ in range(RESAMPLES)
    ]


def _f1(scores: Sequence[WatchScore]) -> float:
    return f1(scores).value


def _mean(graded: Sequence[Graded]) -> float:
    return float(np.mean([one.right for one in graded])) if graded else float("nan")


def _count(graded: Sequence[Graded]) -> int:
    return len(graded)


def _majority(graded: Sequence[Graded]) -> float:
    """Accuracy of the most frequent answer of each kind."""
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for one in graded:
        by_kind[one.kind][one.truth] += 1
    return sum(max(counts.values()) for counts in by_kind.values()) / len(graded)


def reliability(scores: Sequence[float], truths: Sequence[bool]) -> list[tuple[float, float, int]]:
    """(mean score, share of true, count) of the answers in each tenth of the scores that holds any."""
    said, true = np.asarray(scores), np.asarray(truths, float)
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    return [
        (float(said[bins == b].mean()), float(true[bins == b].mean()), int((bins == b).sum()))
        for b in range(BINS)
        if (bins == b).any()
    ]


def calibration_error(scores: Sequence[float], truths: Sequence[bool]) -> float:
    """Expected calibration error: mean distance of score and truth over the bins, by their counts."""
    rows = reliability(scores, truths)
    total = sum(count for _, _, count in rows)
    return sum(count * abs(score - true) for score, true, count in rows) / total if total else 0.0
