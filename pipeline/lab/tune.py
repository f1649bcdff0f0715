"""Thresholds, confirmation, duration and cooldown of a watch, searched for on its kept answers by what people's labels
say. Nobody is asked; the same pure rules judge. What is expected of a proposal comes from time it was not chosen on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.lab.tune_search import Knobs, ReviewedSeries, SettingsSearch, Trials, f1_of
from pipeline.types import Json, WatchQuery

SLACK_S = 5.0
"""An event is right if it opens within an interval in which it should, or so many seconds off."""
LEAST_TRUTHS = 6
"""Fewest intervals in which it should have been open; with fewer nothing is proposed."""
FOLDS = 5
MARGIN = 0.02
"""Least gain in F1, on time that the settings were not chosen on, for which a proposal is made."""
SURE = 0.95
"""Share of bootstrap draws in which a proposal has to be better."""
_RESAMPLES, _SEED = 2000, 5

Figure = Literal["precision", "recall", "f1"]


@dataclass(frozen=True, slots=True)
class ExpectedFigures:
    """Precision, recall and F1 (0 to 1, None where there is nothing to compute them from) with 95 % bootstrap intervals
    over pieces of time, and the counts that they come from."""

    right: int
    false: int
    missed: int
    repeated: int
    precision: float | None
    recall: float | None
    f1: float | None
    intervals: dict[Figure, tuple[float, float]]

    def as_json(self) -> dict[str, Json]:
        """For programs."""
        return {
            "precision": self.precision, "recall": self.recall, "f1": self.f1,
            "right": self.right, "false": self.false, "missed": self.missed, "repeated": self.repeated,
            "intervals": {name: list(bounds) for name, bounds in self.intervals.items()},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tuning:
    """The result of a search. `proposed` is None where nothing is better by MARGIN, and `reason` says why; `cross` is
    what is expected of a proposal, on time that it was not chosen on."""

    now: Knobs
    current: ExpectedFigures
    proposed: Knobs | None
    cross: ExpectedFigures | None
    gain: float | None
    gain_interval: tuple[float, float] | None
    better_in: float | None
    tried: int
    folds: int
    reason: str

    def as_json(self) -> dict[str, Json]:
        """For programs."""
        return {
            "now": self.now.as_json() | self.current.as_json(),
            "proposed": self.proposed.as_json() if self.proposed else None,
            "changes": self.proposed.changes(self.now) if self.proposed else {},
            "expected": self.cross.as_json() if self.cross else None,
            "gain": {"f1": self.gain, "interval": list(self.gain_interval or ()), "better_in": self.better_in},
            "tried": self.tried,
            "folds": self.folds,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Gain:
    """Difference in F1 between counts of the same pieces of time, its bootstrap interval, and the share of draws in
    which it is above 0."""

    f1: float
    interval: tuple[float, float]
    better_in: float

    @classmethod
    def of(cls, after: NDArray[np.int64], before: NDArray[np.int64], level: float = 0.95) -> "Gain":
        """The gain of `after` over `before`, both `[pieces, 4]`, with an interval of a level."""
        draws = draws_of(len(before))
        gains = f1_of(draws @ after) - f1_of(draws @ before)
        low, high = np.percentile(gains, [50 - 50 * level, 50 + 50 * level]).tolist()
        difference = float(f1_of(after.sum(0)) - f1_of(before.sum(0)))
        return cls(round(difference, 4), (round(low, 4), round(high, 4)), round(float((gains > 0).mean()), 4))

    def as_json(self) -> dict[str, Json]:
        """For programs."""
        return {"f1": self.f1, "interval": list(self.interval), "better_in": self.better_in}


@dataclass(frozen=True, slots=True)
class SettingsFound:
    """A search, and its counts by piece of time (int64 `[pieces, 4]`, see Trials): with the settings that the watch
    has, and with those chosen on other pieces, None without a search."""

    tuning: Tuning
    current: NDArray[np.int64]
    crossed: NDArray[np.int64] | None

    @property
    def expected(self) -> NDArray[np.int64]:
        """The counts of what is proposed, or of what the watch has where nothing is."""
        return self.crossed if self.tuning.proposed and self.crossed is not None else self.current


def tune(query: WatchQuery, material: Sequence[ReviewedSeries], slack_s: float = SLACK_S) -> Tuning:
    """Search for settings with a better F1 than a watch has. Each fold is a run of time; settings chosen on the others
    are judged on it, and that is what is expected."""
    return find_settings(query, material, slack_s).tuning


def find_settings(query: WatchQuery, material: Sequence[ReviewedSeries], slack_s: float = SLACK_S) -> SettingsFound:
    """The same, with its counts."""
    trials = Trials(query, material, slack_s)
    now = Knobs.of(query)
    current = trials.counts(now)
    draws = draws_of(len(current))
    shown = expected(current, draws)
    truths = trials.truths
    if truths < LEAST_TRUTHS:
        few = (
            f"the labels name {truths} times at which it should have been open, of which answers are kept; expected at"
            f" least {LEAST_TRUTHS}: mark events true, and name what was missed"
        )
        return SettingsFound(Tuning(now, shown, None, None, None, None, None, trials.tried, 0, few), current, None)
    folds = trials.folds(min(FOLDS, truths // 2))
    crossed = np.zeros_like(current)
    for fold in range(int(folds.max()) + 1):
        held_out = folds == fold
        chosen = SettingsSearch(trials, now, ~held_out).best()
        crossed[held_out] = trials.counts(chosen)[held_out]
    best = SettingsSearch(trials, now, np.ones(len(folds), bool)).best()
    gain = Gain.of(crossed, current)
    reason = _against(best, now, gain)
    tuning = Tuning(
        now, shown, None if reason else best, expected(crossed, draws), gain.f1, gain.interval, gain.better_in,
        trials.tried, int(folds.max()) + 1, reason,
    )  # fmt: skip
    return SettingsFound(tuning, current, crossed)


def _against(best: Knobs, now: Knobs, gain: Gain) -> str:
    """The reason not to propose settings, empty where there is none."""
    if best == now:
        return "no settings tried are better on all of the labels"
    if gain.f1 < MARGIN:
        return f"on time they were not chosen on, other settings gain {gain.f1:.3f} of F1; expected at least {MARGIN:g}"
    if gain.better_in < SURE:
        return (
            f"other settings gain {gain.f1:.3f} of F1, but only in {gain.better_in:.0%} of the bootstrap draws;"
            f" expected {SURE:.0%}: more labels would tell"
        )
    return ""


def expected(counts: NDArray[np.int64], draws: NDArray[np.float32]) -> ExpectedFigures:
    """The figures of counts by piece, with intervals from draws of the pieces."""
    right, false, missed, repeated = (int(one) for one in counts.sum(0))
    drawn = np.asarray(draws @ counts.astype(np.float32), float)
    figures: dict[Figure, float | None] = {
        "precision": right / (right + false) if right + false else None,
        "recall": right / (right + missed) if right + missed else None,
        "f1": 2 * right / (2 * right + false + missed) if right + false + missed else None,
    }
    below: dict[Figure, NDArray[np.float64]] = {
        "precision": drawn[:, 0] + drawn[:, 1],
        "recall": drawn[:, 0] + drawn[:, 2],
        "f1": drawn[:, 0] + (drawn[:, 1] + drawn[:, 2]) / 2,
    }
    intervals: dict[Figure, tuple[float, float]] = {}
    for name, bottom in below.items():
        some = bottom > 0
        if some.any():
            low, high = np.percentile(drawn[some, 0] / bottom[some], [2.5, 97.5]).tolist()
            intervals[name] = round(low, 4), round(high, 4)
    shown = {name: None if value is None else round(value, 4) for name, value in figures.items()}
    return ExpectedFigures(right, false, missed, repeated, shown["precision"], shown["recall"], shown["f1"], intervals)


def draws_of(pieces: int) -> NDArray[np.float32]:
    """Bootstrap draws of pieces, by how often each comes: `[draws, pieces]`."""
    if not pieces:
        return np.zeros((_RESAMPLES, 0), np.float32)
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(pieces, np.full(pieces, 1 / pieces), _RESAMPLES).astype(np.float32)
