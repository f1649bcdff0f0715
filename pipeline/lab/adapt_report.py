"""The report of an adaptation: one HTML file with the verdict, the figures, and what was looked at and left out."""

from pathlib import Path

from allocator_engine.evaluate.frontier import Estimate, FrontierPoint
from pipeline.lab.adapt import Adaptation, AdaptPlan
from pipeline.lab.report import render_page, write_page
from pipeline.types import Json

_TEMPLATE = "adapt.html"
_FAMILIES = {"watch_f1": "events, F1", "qa": "answers like at native size"}


def write_adaptation(path: Path, plan: AdaptPlan, found: Adaptation) -> None:
    """Write the report, whole or not at all. Raises ConfigError where it cannot be written."""
    write_page(path, html_of_adaptation(plan, found))


def html_of_adaptation(plan: AdaptPlan, found: Adaptation) -> str:
    """The report as text."""
    rows = [_row(point) for point in found.found.points]
    differences = [
        (f"{one.budget:.0%}", one.other, _FAMILIES[one.family], _figure(one.estimate, signed=True))
        for one in found.found.differences
        if one.family in _FAMILIES and one.other != "native"
    ]
    return render_page(
        _TEMPLATE,
        verdict=found.verdict,
        facts=found.facts,
        native_tokens=f"{found.native_tokens:,}",
        budget=f"{plan.budget:.0%}",
        truth="labels by people" if plan.labels else "the MLLM's own answers to native pictures",
        families=list(_FAMILIES.values()),
        rows=rows,
        differences=differences,
        findings=found.made.findings,
        remarks=found.remarks,
        strips=found.strips,
    )


def _row(point: FrontierPoint) -> tuple[str, ...]:
    figures = {str(family): one for family, one in point.figures.items()}
    shown = (_figure(figures.get(family)) for family in _FAMILIES)
    return (f"{point.budget:.0%}", point.allocator, *shown, f"{point.realised:.1%}", f"{point.at_rate:.1%}")


def json_of(plan: AdaptPlan, found: Adaptation) -> dict[str, Json]:
    """The last line of the command."""
    facts = found.facts
    return {
        "engine": str(found.made.folder),
        "use": found.verdict.use,
        "reason": found.verdict.reason,
        "missing": list(found.verdict.missing),
        "budget": plan.budget,
        "unnoticed": found.verdict.unnoticed,
        "seconds": round(facts.seconds, 1),
        "held_out_s": round(facts.held_out_s, 1),
        "native_tokens": found.native_tokens,
        "sound": found.made.sound,
        **found.found.as_json(),  # type: ignore[dict-item]
    }


def _figure(estimate: Estimate | None, *, signed: bool = False) -> str:
    """A figure in per cent with its interval, and how many it is of."""
    if estimate is None:
        return "–"
    value, lo, hi = (100 * one for one in (estimate.value, estimate.lo, estimate.hi))
    sign = "+" if signed else ""
    return f"{value:{sign}.1f} [{lo:{sign}.0f}, {hi:{sign}.0f}] n {estimate.n}"
