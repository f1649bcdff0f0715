"""The frontier as a picture: a panel per family, a line per allocator, tokens across."""

from pathlib import Path

from allocator_engine.errors import EngineMissing
from allocator_engine.evaluate.frontier import Frontier
from allocator_engine.evaluate.tasks import FAMILIES

_TITLES = {
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
    canvas = Figure(figsize=(5 * max(1, len(families)), 4.2), layout="constrained")
    for place, family in enumerate(families, start=1):
        axes = canvas.add_subplot(1, len(families), place)
        for name in dict.fromkeys(point.allocator for point in frontier.points):
            points = sorted(
                (point for point in frontier.points if point.allocator == name and family in point.figures),
                key=lambda point: point.realised,
            )
            figures = [point.figures[family] for point in points]
            below, above = [one.value - one.lo for one in figures], [one.hi - one.value for one in figures]
            shares = [point.realised for point in points]
            line = axes.errorbar(shares, [one.value for one in figures], yerr=[below, above], capsize=2, label=name)
            for point, one in zip(points, figures, strict=True):
                face = line[0].get_color() if point.reached else "none"
                axes.plot(point.realised, one.value, "o", color=line[0].get_color(), markerfacecolor=face)
        axes.set(xscale="log", xlabel="share of the native vision tokens", title=_TITLES[family])
        axes.grid(visible=True, alpha=0.3)
    if families:
        canvas.axes[0].legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(file, dpi=130)
