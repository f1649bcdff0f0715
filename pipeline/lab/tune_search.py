"""The search behind `tune`: settings of a watch tried on its kept answers, each once, and the best of them on some of
the time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.lab.kept import KeptSeries, rejudge
from pipeline.lab.truths import Reviewed
from pipeline.rules import Emission
from pipeline.types import Json, WatchQuery

MOST_TRIED = 600
MOST_JUDGED_HOPS = 20_000_000
"""Most settings that are tried, and most of them times hops, which bounds a search to about a minute."""
LEAST_TRIED = 100

CONFIRMS = ((1, 1), (2, 2), (2, 3), (3, 3), (3, 5), (4, 5), (5, 8))
HOLDS_S = (0.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
COOLDOWNS_S = (0.0, 10.0, 30.0, 60.0, 120.0, 300.0)
OPENS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CLEARS = (0.2, 0.4, 0.6, 0.8, 0.95)
"""Shares of `open_at`."""
_QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995)
_ROUNDS = 3
_PLATEAU = 0.002  # of F1: settings so near to the best are as good
_CHANGED = 0.003  # of F1 that a setting other than it is has to gain
_REPEATED = 0.003  # of F1 that one more event in each interval costs
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Knobs:
    """The settings of a watch that are searched for."""

    open_at: float
    clear_at: float
    confirm: tuple[int, int]
    hold_s: float
    cooldown_s: float

    @classmethod
    def of(cls, query: WatchQuery) -> "Knobs":
        """Those of a watch."""
        return cls(query.open_at, query.clear_at, query.confirm, query.rules.hold_s, query.cooldown_s)

    def on(self, query: WatchQuery) -> WatchQuery:
        """A watch with these."""
        return replace(
            query, open_at=self.open_at, clear_at=self.clear_at, confirm=self.confirm, cooldown_s=self.cooldown_s,
            rules=replace(query.rules, hold_s=self.hold_s),
        )  # fmt: skip

    def as_json(self) -> dict[str, Json]:
        """In the words of a site file."""
        return {
            "open_at": self.open_at, "clear_at": self.clear_at, "confirm": list(self.confirm),
            "hold_s": self.hold_s, "cooldown_s": self.cooldown_s,
        }  # fmt: skip

    def changes(self, now: "Knobs") -> dict[str, Json]:
        """The settings that are others than `now`."""
        mine, others = self.as_json(), now.as_json()
        return {name: value for name, value in mine.items() if value != others[name]}


@dataclass(frozen=True, slots=True)
class ReviewedSeries:
    """Kept answers of a watch on a stream, and the truth of that time."""

    series: KeptSeries
    truth: Reviewed


class Trials:
    """Settings tried on kept answers, each once. Time is cut into pieces, about one a label; `counts` are int64
    `[pieces, 4]`: intervals that an event found, false events, intervals missed, and events that came again in one."""

    def __init__(self, query: WatchQuery, material: Sequence[ReviewedSeries], slack_s: float) -> None:
        emit: tuple[Emission, ...] = tuple(dict.fromkeys(("opened", *query.rules.emit)))
        self._query = replace(query, rules=replace(query.rules, emit=emit))
        self.absent = bool(query.rules.absent_s)
        self._parts = [_TriedStream(one, slack_s) for one in material]
        self._tried: dict[Knobs, NDArray[np.int64]] = {}
        hops = sum(len(one.series) for one in material)
        self._most = int(np.clip(MOST_JUDGED_HOPS // max(1, hops), LEAST_TRIED, MOST_TRIED))
        self.truths = sum(len(one.truth.holds) for one in material)
        known = [one.series.score[one.series.mass >= 0.5] for one in material]
        self.scores = np.concatenate(known) if known else np.zeros(0)

    @property
    def tried(self) -> int:
        """Number of settings."""
        return len(self._tried)

    def counts(self, knobs: Knobs) -> NDArray[np.int64]:
        """The counts of settings, by piece."""
        if knobs not in self._tried:
            query = knobs.on(self._query)
            rows = [part.counts(query) for part in self._parts]
            self._tried[knobs] = np.concatenate(rows) if rows else np.zeros((0, 4), np.int64)
        return self._tried[knobs]

    def may(self, knobs: Knobs) -> bool:
        """True if these were tried already, or more may be tried."""
        return knobs in self._tried or len(self._tried) < self._most

    def folds(self, count: int) -> NDArray[np.intp]:
        """The fold of each piece: runs of time with about as many intervals each."""
        truths = np.concatenate([part.truths for part in self._parts])
        before = np.cumsum(truths) - truths
        found: NDArray[np.intp] = np.minimum(before * count // max(1, int(truths.sum())), count - 1)
        return found


class _TriedStream:
    """One stream's answers and truth, cut into pieces half-way between its labels."""

    def __init__(self, one: ReviewedSeries, slack_s: float) -> None:
        truth = one.truth
        self._series, self._truth, self._slack_s = one.series, truth, slack_s
        self._holds = np.array(truth.holds, float).reshape(-1, 2)
        self._ignored = np.array(truth.ignored, float).reshape(-1, 2)
        marks = np.array(sorted((*truth.holds, *truth.wrong, *truth.ignored)), float).reshape(-1, 2)
        ends, starts = marks[:-1, 1], marks[1:, 0]
        self._cuts = np.sort((ends + starts) / 2)
        self._pieces_of_holds = np.searchsorted(self._cuts, self._holds.mean(1))
        self.truths = np.bincount(self._pieces_of_holds, minlength=self._size)

    @property
    def _size(self) -> int:
        return len(self._cuts) + 1

    def counts(self, query: WatchQuery) -> NDArray[np.int64]:
        opened = [one for one in rejudge(self._series, query) if one.kind == "watch.opened"]
        at = np.array([one.at.timestamp() for one in opened])
        since = at - np.array([one.at_s - one.since_s for one in opened])
        inside = (at >= self._truth.since - self._slack_s) & (since <= self._truth.until + self._slack_s)
        at, since = at[inside], since[inside]
        met, right = self._meets(self._holds, since, at)
        false = ~right & ~self._meets(self._ignored, since, at)[1]
        pieces = np.searchsorted(self._cuts, at)
        found = np.unique(met[right])
        right_in = np.bincount(self._pieces_of_holds[found], minlength=self._size)
        repeated = np.bincount(self._pieces_of_holds[met[right]], minlength=self._size) - right_in
        false_in = np.bincount(pieces[false], minlength=self._size)
        return np.stack([right_in, false_in, self.truths - right_in, repeated], 1).astype(np.int64)

    def _meets(
        self, spans: NDArray[np.float64], since: NDArray[np.float64], at: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """The last span that began before each event was sent, and whether the event's opening meets it."""
        if not len(spans):
            return np.zeros(len(at), np.intp), np.zeros(len(at), bool)
        place = np.searchsorted(spans[:, 0] - self._slack_s, at, "right") - 1
        return np.maximum(place, 0), (place >= 0) & (spans[place, 1] + self._slack_s >= since)


class SettingsSearch:
    """Coordinate descent on some pieces of time, from the best of a coarse grid."""

    def __init__(self, trials: Trials, now: Knobs, pieces: NDArray[np.bool_]) -> None:
        self._trials, self._now, self._pieces = trials, now, pieces
        found = np.quantile(trials.scores, _QUANTILES).tolist() if len(trials.scores) else []
        self._opens = sorted({*OPENS, now.open_at, *(one for one in map(_rounded, found) if 0 < one <= 1)})

    def best(self) -> Knobs:
        """The settings with the best F1 on the pieces. Of thresholds as good it takes those in the middle, and what a
        watch has where nothing is better."""
        best = max(self._coarse(), key=self._value)
        for _ in range(_ROUNDS):
            before = best
            best = max((replace(best, confirm=one) for one in (best.confirm, *CONFIRMS)), key=self._value)
            best = self._middle([replace(best, open_at=one) for one in self._opens if one > best.clear_at])
            best = self._middle([replace(best, clear_at=one) for one in self._clears(best)])
            if not self._trials.absent:
                best = max((replace(best, hold_s=one) for one in (best.hold_s, *HOLDS_S)), key=self._value)
            best = max((replace(best, cooldown_s=one) for one in (best.cooldown_s, *COOLDOWNS_S)), key=self._value)
            if best == before:
                break
        return best if self._value(best) > self._value(self._now) else self._now

    def _coarse(self) -> list[Knobs]:
        plain = replace(self._now, hold_s=0.0, cooldown_s=0.0)
        starts = [
            replace(base, open_at=open_at, clear_at=_rounded(open_at * share), confirm=confirm)
            for open_at in self._opens
            for share in CLEARS[1::2]
            for confirm in dict.fromkeys((self._now.confirm, (2, 3)))
            for base in dict.fromkeys((self._now, plain))
            if _rounded(open_at * share) < open_at
        ]
        return [self._now, *starts]

    def _clears(self, best: Knobs) -> list[float]:
        values = {_rounded(best.open_at * share) for share in CLEARS} | {self._now.clear_at, best.clear_at}
        return [one for one in sorted(values) if one < best.open_at]

    def _middle(self, values: Sequence[Knobs]) -> Knobs:
        """The middle one of the values about the best that are as good."""
        worth = [self._value(one) for one in values]
        first = last = int(np.argmax(worth))
        good = worth[first] - _PLATEAU
        while first and worth[first - 1] >= good:
            first -= 1
        while last + 1 < len(values) and worth[last + 1] >= good:
            last += 1
        return values[(first + last) // 2]

    def _value(self, knobs: Knobs) -> float:
        """F1 on the pieces, less what changes and repeated events cost; never for what may not be tried any more."""
        if not self._trials.may(knobs):
            return _NEVER
        counts = self._trials.counts(knobs)[self._pieces].sum(0)
        repeated = counts[3] / max(1, int(counts[0] + counts[2]))
        changed = len(knobs.changes(self._now))
        return float(f1_of(counts)) - _CHANGED * changed - _REPEATED * min(1.0, float(repeated))


def f1_of(counts: NDArray[np.int64] | NDArray[np.float32]) -> NDArray[np.float64]:
    """F1 of counts `[..., 4]`, 0 where there is nothing."""
    right, false, missed = (np.asarray(counts[..., place], float) for place in range(3))
    whole = 2 * right + false + missed
    found: NDArray[np.float64] = 2 * right / np.where(whole > 0, whole, 1.0)
    return found


def _rounded(value: float) -> float:
    """To three digits that count, and 1 at most."""
    return min(1.0, float(f"{value:.3g}"))
