"""CAPO's advantage against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator_engine.train.advantage import AdvantageRules, advantages, pivot


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def one(reward, cost, target=0.4, **rules):
    return advantages(np.array(reward, float)[:, None], np.array(cost, float), target, AdvantageRules(**rules))[:, 0]


def test_the_pivot_is_half_the_groups_cost_and_half_the_target():
    assert pivot(np.array([0.2, 0.6]), 0.2, AdvantageRules()) == pytest.approx(0.5 * 0.4 + 0.5 * 0.2)
    assert pivot(np.array([0.2, 0.6]), 0.2, AdvantageRules(pivot_mix=0.0)) == pytest.approx(0.2)


def test_a_right_and_a_wrong_answer_by_hand():
    # pivot 0.4, step 0.15; rewards 1 and 0 are 1 and -1 in standard deviations
    right = 1 + 0.25 * 0.7 * 1.0 * (sigmoid((0.4 - 0.1) / 0.15) - 0.5) - 0.05 * 0.1
    wrong = -1 + 0.25 * 1.3 * 1.0 * -(sigmoid((0.4 - 0.7) / 0.15) - 0.5) - 0.05 * 0.7
    assert one([1, 0], [0.1, 0.7]) == pytest.approx([right, wrong])
    assert [right, wrong] == pytest.approx([1.06164, -0.91123], abs=1e-4)


def test_where_all_are_right_the_cheap_one_wins_and_none_is_pushed_down():
    cheap, dear = one([1, 1], [0.1, 0.7])
    assert cheap == pytest.approx(0.25 * 0.7 * (sigmoid(2) - 0.5) - 0.005)
    assert dear == pytest.approx(0.001)


def test_where_all_are_wrong_the_dear_one_wins():
    cheap, dear = one([0, 0], [0.1, 0.7])
    assert cheap == pytest.approx(-0.25 * 1.3 * (sigmoid(2) - 0.5) - 0.005)
    assert dear == pytest.approx(0.25 * 1.3 * (sigmoid(2) - 0.5) - 0.035)
    assert dear > 0 > cheap


def test_the_papers_sign_pushes_failures_towards_spending_less():
    cheap, dear = one([0, 0], [0.1, 0.7], sign="paper")
    assert cheap == pytest.approx(0.25 * 1.3 * (sigmoid(2) - 0.5) - 0.005)
    assert dear < 0


def test_the_plain_penalty_knows_nothing_of_right_and_wrong():
    assert one([1, 0], [0.1, 0.7], shaped=False) == pytest.approx([1 - 0.25 * 0.1, -1 - 0.25 * 0.7])
    cheap, dear = one([0, 0], [0.1, 0.7], shaped=False)
    assert cheap > dear


def test_a_half_right_answer_shapes_by_its_root():
    got = one([0.64, 0.64], [0.1, 0.7])
    assert got[0] == pytest.approx(0.25 * 0.7 * 0.8 * (sigmoid(2) - 0.5) - 0.005)


def test_differences_within_the_spread_are_not_blown_up():
    calm = one([0.501, 0.499], [0.4, 0.4], spread=0.02, tax=0.0, right_floor=-9.0)
    assert calm == pytest.approx([0.05, -0.05])
    assert one([0.501, 0.499], [0.4, 0.4], tax=0.0, right_floor=-9.0) == pytest.approx([1, -1])


def test_steps_are_counted_in_pivots_so_that_small_budgets_are_told_apart():
    large = one([1, 1], [0.1, 0.7], target=0.4, tax=0.0)
    small = one([1, 1], [0.01, 0.07], target=0.04, tax=0.0)
    assert large == pytest.approx(small)


def test_what_is_saved_is_worth_what_it_brings_later():
    saved = one([0.5, 0.5], [0.1, 0.2], twice=0.05, spread=0.1, shaping=0.0, tax=0.0, right_floor=-9.0)
    assert saved == pytest.approx([0.25, -0.25]), "half of 0.05 from the mean, in spreads of 0.1"
    made_up_for = one([0.50, 0.55], [0.1, 0.2], twice=0.05, shaping=0.0, tax=0.0, right_floor=-9.0)
    assert made_up_for == pytest.approx([0.0, 0.0], abs=1e-9)
    idle = one([0.0, 0.0], [0.0, 1e-9], twice=0.05, shaping=0.0, tax=0.0)
    assert idle.tolist() == [0.0, 0.0], "next to nothing is as good as nothing"


def test_every_question_is_judged_in_its_own_group():
    reward = np.array([[1.0, 0.0], [0.0, 1.0]])
    cost = np.array([0.4, 0.4])
    both = advantages(reward, cost, 0.4)
    assert both[:, 0] == pytest.approx(advantages(reward[:, :1], cost, 0.4)[:, 0])
    assert both[0, 0] == pytest.approx(both[1, 1])


def test_a_group_of_one_has_no_advantage_and_strange_shapes_are_refused():
    assert one([1], [0.5]).tolist() == [0.0]
    with pytest.raises(ValueError, match="expected"):
        advantages(np.zeros((2, 1)), np.zeros(3), 0.4)
    with pytest.raises(ValueError, match="not finite"):
        advantages(np.array([[np.nan], [0.0]]), np.zeros(2), 0.4)
    assert advantages(np.zeros((4, 0)), np.zeros(4), 0.4).shape == (4, 0)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=9), st.floats(0.001, 1))
def test_advantages_are_finite_and_a_right_answer_is_never_pushed_down(group, target):
    reward, cost = (np.array(values) for values in zip(*group, strict=True))
    found = one(reward, cost, target)
    assert np.isfinite(found).all()
    assert (found[reward > 0.35] > 0).all()
