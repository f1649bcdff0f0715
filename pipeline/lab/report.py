"""The report of a back-test: one HTML file that needs no network, made by a template."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.errors import ConfigError
from pipeline.lab.backtest import BackTest

_TEMPLATE = Path(__file__).parent / "backtest.html"
_WIDTH, _HEIGHT = 600, 80
MOST_POINTS = 600
"""Points of a curve; of more, the highest of each stretch is shown."""


def write_report(path: Path, played: BackTest) -> None:
    """Write the report, whole or not at all. Raises ConfigError where it cannot be written."""
    text = html_of(played)
    try:
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, suffix=".html")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except OSError as error:
        raise ConfigError(f"the report {path} cannot be written: {error.strerror}; name another place") from error


def html_of(played: BackTest) -> str:
    """The report as text."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATE.parent), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(_TEMPLATE.name).render(
        played=played, total=played.as_json(), curve=curve, width=_WIDTH, height=_HEIGHT
    )


def curve(scores: Sequence[tuple[float, float | None]], seconds: float) -> list[str]:
    """The points of an SVG line for each stretch of known scores."""
    step = max(1, -(-len(scores) // MOST_POINTS))
    lines: list[list[str]] = [[]]
    for start in range(0, len(scores), step):
        part = [(at_s, score) for at_s, score in scores[start : start + step] if score is not None]
        if not part:
            lines.append([])
            continue
        at_s, score = max(part, key=lambda one: one[1])
        lines[-1].append(f"{at_s / max(seconds, 1e-9) * _WIDTH:.1f},{(1 - score) * _HEIGHT:.1f}")
    return [" ".join(line) for line in lines if line]
