"""The report of a back-test: one HTML file that needs no network, made by a template."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from allocator_engine.manifest import write_file
from pipeline.errors import ConfigError
from pipeline.lab.backtest import BackTest, Tried
from pipeline.lab.labels import Agreement

_TEMPLATE = Path(__file__).parent / "backtest.html"
_WIDTH, _HEIGHT = 600, 80
MOST_POINTS = 600
"""Points of a curve; of more, the highest of each stretch is shown."""


@dataclass(frozen=True, slots=True)
class FigureTable:
    """Figures of watches beside their questions: a header for each column, and the cells of each watch in order."""

    headers: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def write_report(path: Path, played: BackTest, title: str = "Back-test", figures: FigureTable | None = None) -> None:
    """Write the report, whole or not at all. `figures` take the place of agreement with labels. Raises ConfigError
    where it cannot be written."""
    write_page(path, html_of(played, title, figures))


def write_page(path: Path, text: str) -> None:
    """Write a page, whole or not at all. Raises ConfigError where it cannot be written."""
    try:
        write_file(path, text.encode())
    except OSError as error:
        raise ConfigError(f"the report {path} cannot be written: {error.strerror}; name another place") from error


def render_page(template: str, **values: object) -> str:
    """A page made by a template of this folder."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATE.parent), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)


def html_of(played: BackTest, title: str = "Back-test", figures: FigureTable | None = None) -> str:
    """The report as text."""
    return render_page(
        _TEMPLATE.name,
        played=played,
        total=played.as_json(),
        title=title,
        figures=figures or agreement_table(played.tried),
        number=_number,
        curve=curve,
        width=_WIDTH,
        height=_HEIGHT,
    )


def agreement_table(tried: Sequence[Tried]) -> FigureTable:
    """Agreement with labels as figures; no columns where nothing is labelled."""
    if not any(one.agreement for one in tried):
        return FigureTable(rows=((),) * len(tried))
    rows = tuple(_cells(one.agreement) if one.agreement else ("–",) * 4 for one in tried)
    return FigureTable(("precision", "recall", "F1", "delay, median"), rows)


def _cells(agreement: Agreement) -> tuple[str, ...]:
    delay_s = agreement.delay_p50_s
    values = {"precision": agreement.precision, "recall": agreement.recall, "f1": agreement.f1}
    figures = (_figure(value, agreement.intervals.get(name)) for name, value in values.items())
    return (*figures, "–" if delay_s is None else f"{delay_s:.1f} s")


def _figure(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _number(value: float) -> str:
    """A whole number with thin spaces between its thousands."""
    return f"{value:,.0f}".replace(",", "\u2009")


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
