"""The frontier as a picture: a panel per family, a line per allocator, tokens across."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from allocator_engine.errors import EngineMissing
from allocator_engine.evaluate.frontier import Frontier, FrontierPoint
from allocator_engine.evaluate.tasks import FAMILIES, Family

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found,unused-ignore] # an extra

_TITLES: dict[Family, str] = {
    "watch_f1": "events of watches, F1",
    "qa": "questions, accuracy",
    "grounding": "from when to when, tIoU",
    "image": "single pictures, accuracy",
}


def plot(frontier: Frontier, file: Path) -> None:
    """Write the picture. Points that did not reach their budget are hollow. Raises EngineMissing without matplotlib."""
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore] # an extra
    except ImportError as error:
        raise EngineMissing(f"a plot needs matplotlib ({error}); pip install 'resadapt-stream[train]'") from error
    families = [family for family in FAMILIES if any(family in point.figures for point in frontier.points)]
    rows = (len(families) + 1) // 2
    canvas = Figure(figsize=(13, 4.6 * max(1, rows)), layout="constrained")
    for place, family in enumerate(families, start=1):
        axes = canvas.add_subplot(rows, min(2, len(families)), place)
        for name in dict.fromkeys(point.allocator for point in frontier.points):
            mine = [point for point in frontier.points if point.allocator == name and family in point.figures]
            if mine:
                _line(axes, family, sorted(mine, key=lambda point: point.realised_by_family[family]))
        shares = sorted({point.budget for point in frontier.points})
        axes.set(xscale="log", xlabel="native vision tokens", title=_TITLES[family])
        axes.set_xticks(shares, [f"{share:.0%}" for share in shares])
        axes.set_xticks([], minor=True)
        axes.grid(visible=True, alpha=0.3)
    if families:
        canvas.legend(*canvas.axes[0].get_legend_handles_labels(), loc="outside right upper")
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(file, dpi=110)


def _line(axes: "Axes", family: Family, points: Sequence[FrontierPoint]) -> None:
    """One allocator in one family. Intervals of neighbours would hide each other: they are drawn faint."""
    name = points[0].allocator
    shares = [point.realised_by_family[family] for point in points]
    figures = [point.figures[family] for point in points]
    style = {"learned": "-", "oracle": ":"}.get(name, "--")
    drawn = axes.plot(shares, [one.value for one in figures], style, label=name, linewidth=2 if style == "-" else 1.2)
    colour = drawn[0].get_color()
    axes.vlines(shares, [one.lo for one in figures], [one.hi for one in figures], color=colour, alpha=0.35)
    for share, point, one in zip(shares, points, figures, strict=True):
        reached = family not in point.missed
        axes.plot(share, one.value, "o", color=colour, markersize=5, markerfacecolor=colour if reached else "none")
