"""The curves of a training as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allocator_engine.errors import EngineMissing
from allocator_engine.train.progress import Record

PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cross entropy of what queries and cells show, nats", ("holds", "transitions", "any_transition", "cells")),
    ("reward", ("reward",)),
    ("cost, part of native tokens", ("cost", "target", "pivot")),
    ("vision tokens per episode", ("tokens",)),
    ("entropy of the policy, nats", ("entropy",)),
)
"""The plots: a title, and the figures of the log below it; what the log lacks is left out."""

_SMOOTH = 20  # of how many points a drawn one is the mean, at most


def draw(records: Sequence[Record], file: Path) -> None:
    """Draw the log's figures by step into a PNG. Raises EngineMissing without matplotlib."""
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore] # an extra
    except ImportError as error:
        raise EngineMissing(f"curves need matplotlib ({error}); pip install 'resadapt-stream[train]'") from error
    logged = {name for record in records for name in record}
    panels = [panel for panel in PANELS if logged.intersection(panel[1])] or PANELS[-1:]
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(9, 2.5 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False).flat
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, names) in zip(grid, panels, strict=False):
        for number, name in enumerate(names):
            drawn = np.array([(record["step"], record[name]) for record in records if name in record], np.float64)
            if len(drawn):
                axes.plot(*drawn.T, alpha=0.3, linewidth=0.8, color=f"C{number}")
                axes.plot(*smooth(drawn).T, label=name, color=f"C{number}")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        if len(names) > 1 and axes.lines:
            axes.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".partial")
    figure.savefig(beside, format="png", dpi=110)
    beside.replace(file)


def smooth(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of up to 20 neighbouring points, but of a quarter of all at most: `[points, 2]` to fewer of them."""
    window = max(1, min(_SMOOTH, len(points) // 4))
    weights = np.full(window, 1 / window)
    return np.stack([np.convolve(column, weights, "valid") for column in points.T], axis=1)
