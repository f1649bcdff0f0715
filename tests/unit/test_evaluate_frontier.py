"""Figures, their paired intervals, and what they are made of."""

import json

import numpy as np
import pytest

from allocator_engine.evaluate.frontier import Bootstrap, frontier
from allocator_engine.evaluate.run import Cell, Spending
from allocator_engine.evaluate.tasks import (
    Events,
    Parts,
    Span,
    Task,
    TaskOutcome,
    TaskQuestion,
    TaskWatch,
    match,
    parts,
)


def spending(tokens: int = 10) -> Spending:
    return Spending(tokens, 100, 4, 3, 0.002, 2.0, "x")


def asked(episode: int, split: str = "fine") -> Task:
    question = TaskQuestion("is it so?", "yes", "yes_no", 0, split)
    return Task(f"{episode} q", "qa", str(episode), "clip", (question,))


def cell(allocator: str, rights: list[float], budget: float = 0.1, tokens: int = 10, split: str = "fine") -> Cell:
    tasks = tuple(asked(episode, split) for episode in range(len(rights)))
    outcomes = tuple(TaskOutcome((right,), (), 0.5) for right in rights)
    spent, unmatched = ((spending(one),) * len(rights) for one in (tokens, 3))
    return Cell(allocator, budget, "qa", tasks, spent, outcomes, unmatched)


@pytest.mark.parametrize(
    ("spans", "onsets", "expected"),
    [
        ([(2.0, 2.0, 4.0)], [2.0], (1, 0, 0)),
        ([(2.0, 2.0, 4.0)], [3.1], (0, 1, 0)),
        ([(2.0, 2.0, 4.0)], [0.9], (0, 1, 1)),
        ([(1.0, None, 4.0)], [2.0], (0, 0, 0)),
        ([], [2.0], (0, 0, 1)),
    ],
)
def test_events_pair_with_spans(spans, onsets, expected):
    events = match([Span(*span) for span in spans], onsets)
    assert (events.found, events.missed, events.false) == expected


def test_a_question_is_told_and_graded_in_the_contexts_own_time():
    late = TaskQuestion("at 12.5 seconds, was it so?", "yes", "yes_no", 9, timed=True)
    assert late.at(0.0) == late.text
    assert late.at(10.0) == "at 2.5 seconds, was it so?"
    assert late.at(20.0) == "at 0.0 seconds, was it so?"
    plain = TaskQuestion("plate 12.5?", "yes", "yes_no", 9, hint="Say yes or no.")
    assert plain.at(10.0) == "plate 12.5? Say yes or no."
    when = TaskQuestion("when?", "12.0 to 16.0", "interval", 9)
    assert when.grade("2.0 to 6.0", 10.0) == 1.0
    assert when.grade("2.0 to 6.0", 12.0) == pytest.approx(2 / 6)
    assert when.grade("nonsense", 0.0) == 0.0


def test_figures_are_quotients_by_family_and_split():
    watches = (TaskWatch("a", "a?", (), "fine"), TaskWatch("b", "b?", (), "coarse"))
    task = Task("t", "watch_f1", "0", "clip", watches=watches)
    outcome = TaskOutcome((), (Events(1, 0, 1), Events(2, 1, 0)), 0.0)
    assert parts(task, outcome) == Parts(6, 8, 4)
    assert parts(task, outcome, "fine") == Parts(2, 3, 1)
    assert parts(asked(0), TaskOutcome((0.25,), (), 0.0)) == Parts(0.25, 1, 1)


def test_an_interval_covers_the_mean_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(30):
        draws = Bootstrap.of([str(episode) for episode in range(40)])
        found = draws.estimate(draws.column([cell("fixed", (rng.random(40) < 0.3).astype(float).tolist())]))
        assert found is not None
        covered += found.lo <= 0.3 <= found.hi
    assert covered >= 25


def test_pairing_sees_a_small_difference_that_is_the_same_in_every_episode():
    easy = np.random.default_rng(1).random(50).round(2)
    draws = Bootstrap.of([str(episode) for episode in range(50)])
    better, worse = (draws.column([cell("x", (easy + more).tolist())]) for more in (0.02, 0.0))
    difference, alone = draws.estimate(better, worse), draws.estimate(worse)
    assert difference is not None
    assert alone is not None
    assert difference.lo == pytest.approx(0.02) == difference.hi
    assert alone.hi - alone.lo > 0.1


def test_the_frontier_has_points_and_the_differences_of_the_learned_one():
    cells = [
        cell("learned", [1.0, 1.0, 0.0, 1.0]),
        cell("fixed", [0.0, 1.0, 0.0, 1.0]),
        cell("fixed", [1.0, 1.0, 1.0, 1.0], budget=1.0, tokens=100),
        cell("motion", [1.0, 0.0, 0.0, 0.0], tokens=5),
    ]
    found = frontier(cells)
    assert [(point.allocator, point.budget, point.missed) for point in found.points] == [
        ("learned", 0.1, ()),
        ("fixed", 0.1, ()),
        ("fixed", 1.0, ()),
        ("motion", 0.1, ("qa",)),
    ]
    differences = {(one.other, one.family): one.estimate.value for one in found.differences}
    assert differences == {("fixed", "qa"): 0.25, ("motion", "qa"): 0.5, ("native", "qa"): -0.25}
    said = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert said["points"][0]["qa"].keys() == {"value", "lo", "hi", "n"}
    assert said["points"][0]["qa"]["value"] == 0.75
    assert said["points"][0]["watch_f1"] is None
    assert said["points"][0]["realised"] == said["points"][0]["realised_by_family"]["qa"] == 0.1
    assert [point["reached"] for point in said["points"]] == [True, True, True, False]
    assert said["points"][0]["allocator_ms"] == pytest.approx(0.5)
    assert said["points"][0]["at_rate"] == pytest.approx(0.03)


def test_retention_is_the_share_of_the_figure_at_native_size():
    native = cell("fixed", [1.0, 1.0, 0.0, 0.0], budget=1.0, tokens=100)
    learned = cell("learned", [1.0, 0.5, 0.0, 0.0])
    points = frontier([learned, native]).points
    kept = points[0].retention["qa"]
    assert kept.value == pytest.approx(0.75)
    assert 0.5 <= kept.lo < kept.value < kept.hi <= 1.0  # paired: episodes that native fails are failed by both
    assert points[1].retention["qa"].value == points[1].retention["qa"].lo == 1.0
    said = json.loads(json.dumps(frontier([learned, native]).as_json(), allow_nan=False))
    assert said["points"][0]["retention"]["qa"]["value"] == pytest.approx(0.75)


def test_nothing_is_retained_of_what_was_not_compared_or_came_to_nothing():
    learned = cell("learned", [1.0, 0.0])
    assert frontier([learned]).points[0].retention == {}
    assert frontier([learned, cell("fixed", [0.0, 0.0], budget=1.0)]).points[0].retention == {}


def test_what_is_spent_is_of_all_families_together():
    watching = Task("t", "watch_f1", "0", "clip", watches=(TaskWatch("a", "a?", ()),))
    outcome = TaskOutcome((), (Events(0, 0, 0),), 0.0)
    watched = Cell("learned", 0.1, "watch_f1", (watching,), (spending(30),), (outcome,), (spending(20),))
    point = frontier([watched, cell("learned", [1.0, 1.0, 0.0])]).points[0]
    assert point.realised == pytest.approx((30 + 3 * 10) / 400)
    assert point.at_rate == pytest.approx((0.2 + 3 * 0.03) / 4)


def test_a_family_of_which_nothing_happened_has_no_figure():
    watch = Task("t", "watch_f1", "0", "clip", watches=(TaskWatch("a", "a?", ()),))
    outcome = TaskOutcome((), (Events(0, 0, 0),), 0.0)
    quiet = Cell("fixed", 0.1, "watch_f1", (watch,), (spending(),), (outcome,), (spending(),))
    point = frontier([quiet]).points[0]
    assert not point.figures
    assert point.onset_p50_s is None
