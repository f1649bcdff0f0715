from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.ladder import FEWER_ASKINGS, LONGER_HOPS, SHED, SMALLER_GRANTS, STEPS, Ladder, LadderRules

RULES = LadderRules(up_after=2, down_after=3, relapse=5, most_relapses=2)


def climb(ladder: Ladder, *hops: str) -> Ladder:
    for hop in hops:
        ladder = ladder.update(pressed=hop == "pressed", spare=hop == "calm", rules=RULES)
    return ladder


def test_it_steps_up_after_pressed_hops_in_a_row_and_down_after_calm_ones():
    assert climb(Ladder(), "pressed").step == 0
    assert climb(Ladder(), "pressed", "calm", "pressed").step == 0
    up = climb(Ladder(), "pressed", "pressed")
    assert (up.step, up.name) == (FEWER_ASKINGS, "fewer_askings")
    assert climb(up, "calm", "calm").step == FEWER_ASKINGS
    assert climb(up, "calm", "calm", "calm").step == 0


def test_a_hop_without_time_to_spare_is_no_reason_to_step_down():
    up = climb(Ladder(), "pressed", "pressed")
    assert climb(up, "calm", "calm", "busy", "calm", "calm").step == FEWER_ASKINGS


def test_one_that_relapses_waits_longer_before_the_next_step_down():
    up = climb(Ladder(), "pressed", "pressed")
    relapsed = climb(up, "calm", "calm", "calm", "pressed", "pressed")
    assert relapsed.step == FEWER_ASKINGS
    assert climb(relapsed, *["calm"] * 5).step == FEWER_ASKINGS
    assert climb(relapsed, *["calm"] * 6).step == 0


def test_each_step_keeps_what_the_ones_below_it_gave_up():
    assert [Ladder(step).grant(100, 1000) for step in range(len(STEPS))] == [100, 100, 50, 50, 50]
    assert [Ladder(step).grant(1000, 100) for step in range(len(STEPS))] == [1000, 1000, 50, 50, 50]
    assert [Ladder(step).stretch for step in range(len(STEPS))] == [1, 1, 1, 2, 2]
    assert SMALLER_GRANTS < LONGER_HOPS < SHED == len(STEPS) - 1


@given(st.lists(st.sampled_from(["pressed", "calm", "busy"]), max_size=200))
def test_it_moves_one_step_at_a_time_and_stays_on_the_ladder(hops):
    ladder = Ladder()
    for hop in hops:
        before, ladder = ladder, climb(ladder, hop)
        assert 0 <= ladder.step < len(STEPS)
        assert abs(ladder.step - before.step) <= 1


@given(st.lists(st.sampled_from(["pressed", "calm", "busy"]), max_size=100))
def test_calm_for_long_enough_always_brings_it_back_to_normal(hops):
    ladder = climb(Ladder(), *hops)
    assert climb(ladder, *["calm"] * (len(STEPS) * RULES.down_after * 2**RULES.most_relapses)).step == 0
