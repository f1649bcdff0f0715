"""Use an engine, or not, and what is missing: decided from held-out figures alone."""

from dataclasses import replace

import pytest

from allocator_engine.evaluate.frontier import Difference, Estimate, Frontier, FrontierPoint
from pipeline.lab.adapt_verdict import FootageFacts, decide, unnoticed_share

FACTS = FootageFacts(7200.0, 1800.0, (90.0, 120.0), ())


def point(allocator: str, budget: float, f1: float, qa: float | None = None) -> FrontierPoint:
    figures = {"watch_f1": Estimate(f1, 0, 1, 40)} | ({"qa": Estimate(qa, 0, 1, 90)} if qa is not None else {})
    return FrontierPoint(allocator, budget, budget, budget, {}, (), figures, {}, {}, 1.0, 1.0, 1.0, 1.0, None, None)


def found(lo: float, hi: float, n: int = 40, fixed: tuple[float, ...] = (0.5, 0.9, 0.9)) -> Frontier:
    points = tuple(point("fixed", budget, f1) for budget, f1 in zip((0.1, 0.5, 1.0), fixed, strict=True))
    estimate = Estimate((lo + hi) / 2, lo, hi, n)
    return Frontier(
        points, tuple(Difference(0.1, "watch_f1", "learned", other, estimate) for other in ("motion", "fixed"))
    )


def test_an_engine_is_used_only_where_both_intervals_lie_above_nothing():
    good = decide(found(0.02, 0.2), 0.1, FACTS, sound=True)
    assert good.use
    assert good.reason.startswith("use it")
    assert "learned minus motion: +11.0 [+2.0, +20.0]" in good.reason
    assert not good.missing
    frontier = found(0.02, 0.2)
    one = replace(frontier.differences[1], estimate=Estimate(0.1, -0.01, 0.2, 40))
    assert not decide(replace(frontier, differences=(frontier.differences[0], one)), 0.1, FACTS, sound=True).use
    assert not decide(found(0.02, 0.2), 0.1, FACTS, sound=False).use
    assert not decide(Frontier(frontier.points, ()), 0.1, FACTS, sound=True).use


@pytest.mark.parametrize(
    ("facts", "estimate", "missing"),
    [
        (FACTS, (-0.1, 0.1, 12), "more events: 12 in the 30.0 minutes that were held out; about 5.0 hours"),
        (replace(FACTS, seconds=300.0, held_out_s=75.0), (-0.1, 0.1, 40), "more hours: 5.0 minutes"),
        (replace(FACTS, luma=(10.0, 31.0)), (-0.1, 0.1, 40), "the day: all recordings are dark"),
        (replace(FACTS, unchanging=("van",)), (-0.1, 0.1, 40), "other watches: the answers to van never changed"),
        (FACTS, (-0.3, -0.1, 40), "worse than what needs none"),
    ],
)
def test_what_is_missing_is_named(facts, estimate, missing):
    verdict = decide(found(*estimate), 0.1, facts, sound=True)
    assert not verdict.use
    assert any(missing in one for one in verdict.missing), verdict.missing


@pytest.mark.parametrize(
    ("fixed", "share"),
    [((0.5, 0.9, 0.9), 0.5), ((0.89, 0.89, 0.9), 0.1), ((0.9, 0.5, 0.9), None), ((0.1, 0.2, 0.9), None)],
)
def test_the_uniform_saving_that_nobody_notices_is_the_largest_without_a_loss_above_it(fixed, share):
    assert unnoticed_share(found(0, 1, fixed=fixed).points) == share
