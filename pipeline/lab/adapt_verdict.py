"""Is an engine worth using on the site that it was trained for? Decided from held-out time alone. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from allocator_engine.evaluate.frontier import Difference, Frontier, FrontierPoint
from allocator_engine.evaluate.tasks import Family

OTHERS = ("motion", "fixed")
"""The allocators that an engine has to beat."""

ENOUGH_EVENTS = 30
"""With fewer true events in the held-out time an interval hardly excludes 0."""

UNNOTICED = 0.02
"""A figure this much lower than at native size, or less, was not noticed."""

DARK_LUMA = 45.0
"""Mean luma (of 255) below which pictures are of the night."""

LITTLE_S = 1800.0
"""Less footage than this shows little of what a camera sees."""


@dataclass(frozen=True, slots=True)
class FootageFacts:
    """The facts about recordings that a verdict weighs: seconds in all and held out, mean luma of the darkest and the
    brightest clip, and the watches whose answers never changed."""

    seconds: float
    held_out_s: float
    luma: tuple[float, float]
    unchanging: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineVerdict:
    """`use` it or not, the reason in a sentence, what is `missing` to tell, and the least share of the native tokens at
    which one fixed scale is not noticed (None where all are)."""

    use: bool
    reason: str
    missing: tuple[str, ...]
    unnoticed: float | None


def decide(found: Frontier, budget: float, facts: FootageFacts, sound: bool) -> EngineVerdict:
    """The verdict on `learned` at a share `budget` of the native tokens."""
    against = [_against(found.differences, budget, other) for other in OTHERS]
    better = all(one is not None and one.estimate.lo > 0 for one in against)
    said = ", ".join(
        f"{other}: {_points(one)}" if one else f"{other}: no event to tell by"
        for other, one in zip(OTHERS, against, strict=True)
    )
    events = max((one.estimate.n for one in against if one), default=0)
    at = f"events, F1 at {budget:.0%} of native's tokens, learned minus {said} ({events} held-out events)"
    unnoticed = unnoticed_share(found.points)
    if not sound:
        return EngineVerdict(False, f"do not use it: its check failed; {at}", (), unnoticed)
    if better:
        return EngineVerdict(True, f"use it: better than {' and '.join(OTHERS)}; {at}", (), unnoticed)
    return EngineVerdict(False, f"do not use it yet; {at}", _missing(against, events, facts), unnoticed)


def unnoticed_share(points: Sequence[FrontierPoint]) -> float | None:
    """The least budget at which `fixed` loses at most UNNOTICED of each figure that it has at native size; None where
    every smaller one was noticed."""
    fixed = {point.budget: point for point in points if point.allocator == "fixed"}
    native = fixed.get(1.0)
    least = None
    for budget in sorted(fixed, reverse=True):
        if native is None or any(
            fixed[budget].figures[family].value < native.figures[family].value - UNNOTICED
            for family in native.figures
            if family in fixed[budget].figures
        ):
            break
        least = budget if budget < 1 else least
    return least


def _against(differences: Sequence[Difference], budget: float, other: str) -> Difference | None:
    family: Family = "watch_f1"
    found = (one for one in differences if (one.budget, one.family, one.other) == (budget, family, other))
    return next(found, None)


def _points(one: Difference) -> str:
    value, lo, hi = (100 * part for part in (one.estimate.value, one.estimate.lo, one.estimate.hi))
    return f"{value:+.1f} [{lo:+.1f}, {hi:+.1f}]"


def _missing(against: Sequence[Difference | None], events: int, facts: FootageFacts) -> tuple[str, ...]:
    missing = []
    if events < ENOUGH_EVENTS:
        hours = ENOUGH_EVENTS / max(events, 1) * facts.seconds / 3600
        more = f"about {hours:.1f} hours like these would have {ENOUGH_EVENTS}" if events else "none began there"
        missing.append(f"more events: {events} in the {facts.held_out_s / 60:.1f} minutes that were held out; {more}")
    if facts.seconds < LITTLE_S:
        missing.append(f"more hours: {facts.seconds / 60:.1f} minutes show little of what the cameras see in a day")
    if facts.luma[1] < DARK_LUMA:
        missing.append(f"the day: all recordings are dark (mean luma up to {facts.luma[1]:.0f} of 255)")
    if facts.unchanging:
        missing.append(f"other watches: the answers to {', '.join(facts.unchanging)} never changed")
    if any(one is not None and one.estimate.hi < 0 for one in against):
        missing.append("another training: it is worse than what needs none")
    return tuple(missing)
