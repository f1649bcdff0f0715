"""Tables of a comparison on real footage: every figure with its interval and the number of events behind it."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from allocator_engine.evaluate.frontier import Difference, Estimate, Frontier, FrontierPoint
from allocator_engine.evaluate.run import Equal
from allocator_engine.evaluate.tasks import Family
from pipeline.lab.cli.tables import TITLES
from pipeline.lab.trained_engines import minutes_name

FAMILIES_SHOWN: tuple[Family, ...] = ("watch_f1", "qa")
_NAMES = {"watch_f1": "events, F1", "qa": "questions, accuracy"}
_FEW_EVENTS = 30
"""With fewer true events an interval says more about them than about allocators."""


def print_real_tables(found: Frontier, equal: Equal, minutes: Sequence[float] = ()) -> None:
    """Print the points, figures against `minutes` of recordings where there are any, the differences of the first
    allocator to the others, and whether they can be told apart."""
    wide = Console(width=220)
    wide.print(_points(found.points, equal))
    if minutes:
        wide.print(_by_minutes(found.points, minutes))
    wide.print(_differences(found.differences, equal))
    for line in verdicts(found):
        wide.print(line, highlight=False, soft_wrap=True)


def verdicts(found: Frontier) -> list[str]:
    """Sentences on the comparisons that the footage can decide, and on those it is too short for."""
    if not found.differences:
        return ["One allocator alone: there is nothing to tell it from."]
    first = found.differences[0].allocator
    lines = []
    for family in FAMILIES_SHOWN:
        mine = [one for one in found.differences if one.family == family and one.other != "native"]
        if not mine:
            continue
        count = max(one.estimate.n for one in mine)
        told = [one for one in mine if one.estimate.lo > 0 or one.estimate.hi < 0]
        open_ones = [one for one in mine if one not in told]
        if told:
            said = ", ".join(
                f"{'above' if one.estimate.lo > 0 else 'below'} {one.other} at {one.budget:.0%}" for one in told
            )
            lines.append(f"{_NAMES[family]} (n {count}): {first} is {said}; the interval of the difference is off 0.")
        if open_ones:
            said = ", ".join(f"{one.other} at {one.budget:.0%}" for one in open_ones)
            lines.append(f"{_NAMES[family]} (n {count}): this footage cannot tell {first} from {said}.")
        if count < _FEW_EVENTS:
            lines.append(f"{_NAMES[family]}: {count} are few; the intervals are of blocks of time, and wide.")
    return lines


def _points(points: Sequence[FrontierPoint], equal: Equal) -> Table:
    splits = list(dict.fromkeys(name for point in points for name in sorted(point.splits)))
    caption = "* does not spend that much" if equal == "tokens" else "* spends another share than the budget"
    table = Table(title=f"{TITLES[equal]}, 95 % intervals over blocks of time", title_justify="left", caption=caption)
    for name in ("budget", "allocator"):
        table.add_column(name)
    for name in (
        *(_NAMES[family] for family in FAMILIES_SHOWN),
        *splits,
        "at rate",
        "realised",
        "ms/frame",
        "onset p50",
    ):
        table.add_column(name, justify="right")
    for before, point in zip((None, *points), points, strict=False):
        if before is not None and before.budget != point.budget:
            table.add_section()
        figures = {str(family): one for family, one in point.figures.items()}
        delay_s = point.onset_p50_s
        table.add_row(
            f"{point.budget:g}",
            point.allocator,
            *(_percent(figures.get(family)) for family in FAMILIES_SHOWN),
            *(_percent(point.splits.get(name)) for name in splits),
            f"{100 * point.at_rate:.1f}",
            f"{100 * point.realised:.1f}{'*' if point.missed else ''}",
            f"{point.allocator_ms:.2f}",
            "-" if delay_s is None else f"{delay_s:+.1f} s",
        )
    return table


def _by_minutes(points: Sequence[FrontierPoint], minutes: Sequence[float]) -> Table:
    """Figures of what was trained on so many minutes, from the shipped engine and from nothing."""
    known = {(point.allocator, point.budget): point for point in points}
    table = Table(title="By minutes of recordings that train", title_justify="left")
    for name in ("budget", "minutes"):
        table.add_column(name)
    for start in ("from the shipped engine", "from nothing"):
        for family in FAMILIES_SHOWN:
            table.add_column(f"{_NAMES[family]}, {start}", justify="right")
    for budget in dict.fromkeys(point.budget for point in points):
        for amount in (*minutes, None):
            rows = [known[minutes_name(amount, general=general), budget] for general in (True, False)]
            figures = [row.figures.get(family) for row in rows for family in FAMILIES_SHOWN]
            table.add_row(f"{budget:g}", "all" if amount is None else f"{amount:g}", *map(_percent, figures))
    return table


def _differences(differences: Sequence[Difference], equal: Equal) -> Table:
    first = differences[0].allocator if differences else ""
    table = Table(title=f"{first} minus the others, block by block, {TITLES[equal].lower()}", title_justify="left")
    for name in ("budget", "minus"):
        table.add_column(name)
    for family in FAMILIES_SHOWN:
        table.add_column(_NAMES[family], justify="right")
    rows: dict[tuple[float, str], dict[str, Estimate]] = {}
    for one in differences:
        rows.setdefault((one.budget, one.other), {})[one.family] = one.estimate
    for (budget, other), estimates in rows.items():
        table.add_row(f"{budget:g}", other, *(_percent(estimates.get(name), signed=True) for name in FAMILIES_SHOWN))
    return table


def _percent(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return "-"
    value, lo, hi = (100 * one for one in (estimate.value, estimate.lo, estimate.hi))
    sign = "+" if signed else ""
    return f"{value:{sign}.1f} [{lo:{sign}.0f}, {hi:{sign}.0f}] n {estimate.n}"
