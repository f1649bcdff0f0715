"""Tables of a comparison of allocators, for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from allocator_engine.evaluate.frontier import Difference, Estimate, Frontier, FrontierPoint
from allocator_engine.evaluate.run import Equal

TITLES: dict[Equal, str] = {"tokens": "At equal realised tokens", "rates": "At equal rates"}
"""The title of a table, by the terms of its comparison."""

_COLUMNS = ("watch_f1", "watch_f1 coarse", "watch_f1 fine", "qa", "grounding", "image")


def print_tables(found: Frontier, equal: Equal) -> None:
    """Print the points, the differences and, where there is any, the retention."""
    wide = Console(width=200)
    wide.print(points_table(found.points, equal))
    wide.print(differences_table(found.differences, equal))
    if any(point.retention for point in found.points):
        wide.print(retention_table(found.points))


def points_table(points: Sequence[FrontierPoint], equal: Equal) -> Table:
    """A row for each allocator at each budget; shares and figures in per cent, with their intervals."""
    caption = "* does not spend that much" if equal == "tokens" else "* spends another share than the budget"
    table = Table(title=TITLES[equal], title_justify="left", caption=caption)
    table.add_column("budget")
    table.add_column("allocator")
    costs = ("at rate", "realised", "frames", "tokens/s", "MLLM s", "ms/frame", "onset p50", "p95")
    for name in (*_COLUMNS, *costs):
        table.add_column(name, justify="right")
    for before, point in zip((None, *points), points, strict=False):
        if before is not None and before.budget != point.budget:
            table.add_section()
        figures = dict(point.splits) | {str(family): one for family, one in point.figures.items()}
        table.add_row(
            f"{point.budget:g}",
            point.allocator,
            *(_percent(figures.get(name)) for name in _COLUMNS),
            f"{100 * point.at_rate:.1f}",
            f"{100 * point.realised:.1f}{'*' if point.missed else ''}",
            f"{100 * point.shown:.0f}",
            f"{point.tokens_per_s:.1f}",
            f"{point.mllm_s:.2f}",
            f"{point.allocator_ms:.2f}",
            *(
                f"{delay_s:+.1f} s" if delay_s is not None else "-"
                for delay_s in (point.onset_p50_s, point.onset_p95_s)
            ),
        )
    return table


def differences_table(differences: Sequence[Difference], equal: Equal) -> Table:
    """The advantage of the first allocator over each other: families across, in points."""
    first = differences[0].allocator if differences else ""
    table = Table(title=f"{first} minus the others, episode by episode, {TITLES[equal].lower()}", title_justify="left")
    table.add_column("budget")
    table.add_column("minus")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    rows: dict[tuple[float, str], dict[str, Estimate]] = {}
    for one in differences:
        rows.setdefault((one.budget, one.other), {})[one.family] = one.estimate
    for (budget, other), estimates in rows.items():
        table.add_row(f"{budget:g}", other, *(_percent(estimates.get(name), signed=True) for name in _COLUMNS))
    return table


def retention_table(points: Sequence[FrontierPoint]) -> Table:
    """Figures in per cent of those at native size: families across."""
    table = Table(title="Retention: per cent of the figure of every frame at native size", title_justify="left")
    table.add_column("budget")
    table.add_column("allocator")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for point in points:
        kept = (_percent(point.retention.get(name)) for name in _COLUMNS)
        table.add_row(f"{point.budget:g}", point.allocator, *kept)
    return table


def _percent(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return "-"
    value, lo, hi = (100 * one for one in (estimate.value, estimate.lo, estimate.hi))
    return f"{value:+.1f} [{lo:+.1f}, {hi:+.1f}]" if signed else f"{value:.1f} [{lo:.0f}, {hi:.0f}]"
