"""The frontier: figures with paired bootstrap intervals over episodes, as points and as differences of points."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from allocator_engine.evaluate.run import Cell, share
from allocator_engine.evaluate.tasks import FAMILIES, Family, Parts, parts

RESAMPLES = 2000
_SEED = 4
_NATIVE = ("fixed", 1.0)
"""Allocator and budget at which every frame has its native size."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, its 95 % interval over episodes, and the answers or true events behind it."""

    value: float
    lo: float
    hi: float
    n: int


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """One allocator at one budget.

    `realised` is the share of the native tokens that was spent; `missed` are the families in which that is not the
    budget, within the tolerance; `at_rate` is the share that is spent at the budget's own rate. `splits` are by "family
    split"; so, and by family, is `retention`: shares of the figure at native size, if that was compared. What it cost
    is of the clips in which watches stand, if there are any: share of the frames that were `shown`, vision tokens per
    second of the clips, seconds of the MLLM per clip, milliseconds of the allocator per frame. Onset delays are in
    seconds.
    """

    allocator: str
    budget: float
    realised: float
    at_rate: float
    realised_by_family: Mapping[Family, float]
    missed: tuple[Family, ...]
    figures: Mapping[Family, Estimate]
    splits: Mapping[str, Estimate]
    retention: Mapping[str, Estimate]
    shown: float
    tokens_per_s: float
    mllm_s: float
    allocator_ms: float
    onset_p50_s: float | None
    onset_p95_s: float | None

    def as_json(self) -> dict[str, object]:
        """By name; a family without tasks is null."""
        cost = ("shown", "tokens_per_s", "mllm_s", "allocator_ms", "onset_p50_s", "onset_p95_s")
        said: dict[str, object] = {
            "allocator": self.allocator,
            "budget": self.budget,
            "realised": self.realised,
            "at_rate": self.at_rate,
            "reached": not self.missed,
        }
        for family in FAMILIES:
            said[family] = asdict(self.figures[family]) if family in self.figures else None
        said["splits"] = {name: asdict(one) for name, one in self.splits.items()}
        said["retention"] = {name: asdict(one) for name, one in self.retention.items()}
        said["realised_by_family"] = dict(self.realised_by_family)
        return said | {name: getattr(self, name) for name in cost}


@dataclass(frozen=True, slots=True)
class Difference:
    """The advantage of `allocator` over `other` at the same budget (or than native size), episode by episode."""

    budget: float
    family: str
    allocator: str
    other: str
    estimate: Estimate

    def as_json(self) -> dict[str, object]:
        """By name."""
        named = {"budget": self.budget, "family": self.family, "allocator": self.allocator, "other": self.other}
        return named | asdict(self.estimate)


@dataclass(frozen=True, slots=True)
class Frontier:
    """Points in the order of budgets and allocators, and the differences of the first allocator to the others."""

    points: tuple[FrontierPoint, ...]
    differences: tuple[Difference, ...]

    def as_json(self) -> dict[str, object]:
        """The last line of an evaluation."""
        return {
            "points": [point.as_json() for point in self.points],
            "differences": [difference.as_json() for difference in self.differences],
        }


@dataclass(frozen=True, slots=True)
class _FigureByEpisode:
    """A figure by episode: `top` and `bottom` float64 `[episodes]`, and how many answers or events it is of."""

    top: NDArray[np.float64]
    bottom: NDArray[np.float64]
    count: int


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Episodes drawn again: how often each counts, float64 `[resamples, episodes]`. The same draws for every figure,
    which is what makes differences paired."""

    episodes: tuple[str, ...]
    weights: NDArray[np.float64] = field(repr=False)

    @classmethod
    def of(cls, episodes: Sequence[str]) -> "Bootstrap":
        """The draws of these episodes: always the same."""
        count = len(episodes)
        drawn = np.random.default_rng(_SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
        return cls(tuple(episodes), drawn.astype(np.float64))

    def column(self, cells: Sequence[Cell], split: str | None = None) -> _FigureByEpisode:
        """The figure of all tasks of these cells together."""
        by_episode: dict[str, Parts] = dict.fromkeys(self.episodes, Parts())
        for cell in cells:
            for task, outcome in zip(cell.tasks, cell.outcomes, strict=True):
                by_episode[task.episode] += parts(task, outcome, split)
        found = [by_episode[episode] for episode in self.episodes]
        top, bottom = (np.array([getattr(one, name) for one in found], np.float64) for name in ("top", "bottom"))
        return _FigureByEpisode(top, bottom, sum(one.count for one in found))

    def estimate(self, column: _FigureByEpisode, minus: _FigureByEpisode | None = None) -> Estimate | None:
        """The figure, or how much greater it is than another; None where nothing happened that it could be of."""
        value, draws = _quotient(column.top, column.bottom), self._draws(column)
        if minus is not None:
            value, draws = value - _quotient(minus.top, minus.bottom), draws - self._draws(minus)
        if np.isnan(value):
            return None
        lo, hi = np.nanpercentile(draws, [2.5, 97.5])
        return Estimate(float(value), float(lo), float(hi), column.count)

    def ratio(self, column: _FigureByEpisode, to: _FigureByEpisode) -> Estimate | None:
        """The figure as a share of another; None where there is no figure, or that one is 0."""
        figure, whole = _quotient(column.top, column.bottom), _quotient(to.top, to.bottom)
        if np.isnan(figure) or not whole > 0:
            return None
        bottom = self._draws(to)
        draws = self._draws(column) / np.where(bottom > 0, bottom, np.nan)
        lo, hi = np.nanpercentile(draws, [2.5, 97.5])
        return Estimate(figure / whole, float(lo), float(hi), column.count)

    def _draws(self, column: _FigureByEpisode) -> NDArray[np.float64]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of draws that hold no event at all
            return np.asarray((self.weights @ column.top) / (self.weights @ column.bottom), np.float64)


def _quotient(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> float:
    return float(top.sum() / bottom.sum()) if bottom.sum() else float("nan")


def frontier(cells: Sequence[Cell]) -> Frontier:
    """Points and differences of an evaluation's cells."""
    draws = Bootstrap.of(list(dict.fromkeys(task.episode for cell in cells for task in cell.tasks)))
    by_point: dict[tuple[str, float], list[Cell]] = {}
    for cell in cells:
        by_point.setdefault((cell.allocator, cell.budget), []).append(cell)
    natives = by_point.get(_NATIVE, [])
    points = tuple(_point(draws, group, natives) for group in by_point.values())
    return Frontier(points, tuple(_differences(draws, by_point)))


def _point(draws: Bootstrap, cells: Sequence[Cell], natives: Sequence[Cell]) -> FrontierPoint:
    figures, splits, retention = {}, {}, {}
    for cell in cells:
        native = next((one for one in natives if one.family == cell.family), None)
        for label, split in _labels(cell):
            column = draws.column([cell], split)
            if estimate := draws.estimate(column):
                if split is None:
                    figures[cell.family] = estimate
                else:
                    splits[label] = estimate
            if native and (kept := draws.ratio(column, draws.column([native], split))):
                retention[label] = kept
    streams = [cell for cell in cells if cell.family == "watch_f1"] or cells
    spent = [one for cell in streams for one in cell.spendings]
    outcomes = [outcome for cell in streams for outcome in cell.outcomes]
    delays_s = [s for outcome in outcomes for events in outcome.events for s in events.delays_s]
    frames = max(1, sum(one.frames for one in spent))
    return FrontierPoint(
        allocator=cells[0].allocator,
        budget=cells[0].budget,
        realised=share([one for cell in cells for one in cell.spendings]),
        at_rate=share([one for cell in cells for one in cell.unmatched]),
        realised_by_family={cell.family: cell.realised for cell in cells},
        missed=tuple(cell.family for cell in cells if not cell.reached),
        figures=figures,
        splits=splits,
        retention=retention,
        shown=sum(one.shown for one in spent) / frames,
        tokens_per_s=sum(one.tokens for one in spent) / sum(one.clip_s for one in spent),
        mllm_s=sum(outcome.mllm_s for outcome in outcomes) / len(outcomes),
        allocator_ms=1000 * sum(one.allocator_s for one in spent) / frames,
        onset_p50_s=float(np.percentile(delays_s, 50)) if delays_s else None,
        onset_p95_s=float(np.percentile(delays_s, 95)) if delays_s else None,
    )


def _labels(cell: Cell) -> list[tuple[str, str | None]]:
    """A cell's figures by name: the family's, and its splits', where there is more than one."""
    found = {one.split for task in cell.tasks for one in task.questions}
    found |= {one.split for task in cell.tasks for one in task.watches}
    splits = sorted(found - {""}) if len(found - {""}) > 1 else []
    return [(cell.family, None), *((f"{cell.family} {split}", split) for split in splits)]


def _differences(draws: Bootstrap, by_point: Mapping[tuple[str, float], Sequence[Cell]]) -> list[Difference]:
    """The learned allocator (without one, the first) against each other at its budget, and against native size."""
    names = list(dict.fromkeys(name for name, _ in by_point))
    first = "learned" if "learned" in names else names[0]
    found = []
    for (name, budget), cells in by_point.items():
        if name != first:
            continue
        others = {other: by_point[other, budget] for other in names if other != first and (other, budget) in by_point}
        if _NATIVE in by_point and (first, budget) != _NATIVE:
            others["native"] = by_point[_NATIVE]
        for other, theirs in others.items():
            for mine in cells:
                match = next(cell for cell in theirs if cell.family == mine.family)
                for label, split in _labels(mine):
                    estimate = draws.estimate(draws.column([mine], split), draws.column([match], split))
                    if estimate:
                        found.append(Difference(budget, label, first, other, estimate))
    return found
