"""Rates at which allocators spend what they are meant to spend."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator_engine.evaluate.equal import CLOSE, MOST, STEP, bracket, diffuse, purse


def test_a_purse_holds_ten_seconds_of_its_rate_but_at_least_a_native_segment():
    small, large = purse(3584, 112, 32.0, 0.05, 0), purse(3584, 112, 32.0, 0.5, 0)
    assert small.tokens_per_s == pytest.approx(5.6, abs=1e-5)
    assert small.burst_tokens == 112
    assert large.burst_tokens == 560
    assert purse(3584, 112, 32.0, 0.1, 10).tokens_per_s == pytest.approx(11.2 * STEP**10, abs=1e-5)


@given(st.integers(1, 10**6), st.floats(0.5, 1000))
def test_a_whole_budget_buys_the_whole_clip(native, seconds):
    micro = int(purse(native, 1, seconds, 1.0, 0).tokens_per_s * 1_000_000)
    assert micro * round(seconds * 1_000_000) // 1_000_000 >= native * 1_000_000 - seconds * 1_000_000


def test_a_rate_that_is_close_is_kept():
    assert bracket(1000, lambda step: 995) == (0, 0)


def test_a_total_in_proportion_is_found_at_once():
    asked: list[int] = []

    def spend(step: int) -> float:
        asked.append(step)
        return 800 * STEP**step

    low, high = bracket(1000, spend)
    assert low == high
    assert abs(800 * STEP**low - 1000) <= CLOSE * 1000
    assert len(asked) <= 3


@settings(max_examples=40, deadline=None)
@given(st.integers(1, MOST - 1), st.integers(1, 989), st.integers(1011, 10_000))
def test_a_total_that_jumps_is_bracketed(at, below, above):
    asked: list[int] = []

    def spend(step: int) -> float:
        asked.append(step)
        return above if step >= at else below

    assert bracket(1000, spend) == (at - 1, at)
    assert len(asked) <= 24


def test_who_does_not_want_to_spend_gets_the_largest_rate():
    assert bracket(1000, lambda step: 400) == (MOST, MOST)
    assert bracket(1000, lambda step: 0) == (MOST, MOST)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_error_is_never_more_than_half_of_the_widest_choice(pairs, mix):
    low, high = [min(pair) for pair in pairs], [max(pair) for pair in pairs]
    wanted = [a + mix * (b - a) for a, b in zip(low, high, strict=True)]
    ups = diffuse(low, high, wanted)
    spent = sum(b if up else a for a, b, up in zip(low, high, ups, strict=True))
    widest = max(b - a for a, b in zip(low, high, strict=True))
    assert abs(spent - sum(wanted)) <= widest + 1e-6
    assert math.isfinite(spent)


def test_a_third_of_the_episodes_gets_the_frame_more_that_all_together_pay_for():
    ups = diffuse([336] * 30, [448] * 30, [336 + 112 / 3] * 30)
    assert sum(ups) == 10
