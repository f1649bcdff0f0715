"""What allocators are compared with: inside every grant, and each what its name says."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator_engine.evaluate.baselines import Codec, CodecActivity, Fewer, Random, Recent, Scheduled, Video, native
from allocator_engine.evaluate.equal import ClipBudget
from allocator_engine.evaluate.oracle import HopCost, on_transitions, plan, schedule
from allocator_engine.evaluate.tasks import Evidence
from allocator_engine.fit import FitRules
from allocator_engine.grid import GRIDS

RULES = FitRules(GRIDS["qwen3_vl"], 2, min_tokens_per_segment=1)
YARD = [(256, 448)] * 2
NATIVE = 112
MAKERS = (
    Fewer,
    Recent,
    lambda rules: Random(rules, 7),
    Video,
    lambda rules: Scheduled(rules, [0.7] * 9),
)


@pytest.mark.parametrize("make", MAKERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_baseline_ever_exceeds_a_grant(make, data):
    sizes = st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), min_size=1, max_size=6)
    rules = FitRules(GRIDS["qwen3_vl"], data.draw(st.sampled_from([1, 2])), data.draw(st.integers(1, 4)))
    baseline = make(rules)
    for hop in range(data.draw(st.integers(1, 5))):
        frames, grant = data.draw(sizes), data.draw(st.integers(0, 6000))
        allocation = baseline.allocate(hop, frames, grant)
        assert allocation.tokens <= grant
        placed = [frame for segment in allocation.segments for frame in segment.frames]
        assert placed == sorted(set(placed)), "frames stay in order, and none is shown twice"


def test_native_is_every_frame_at_its_own_size():
    assert native(YARD, RULES).tokens == NATIVE


@pytest.mark.parametrize(("grant", "shown"), [(111, []), (112, [(2, 3)]), (335, [(0, 1), (4, 5)]), (336, "all")])
def test_fewer_shows_native_size_or_nothing_and_spreads_what_it_shows(grant, shown):
    segments = Fewer(RULES).allocate(0, YARD * 3, grant).segments
    assert {(one.height, one.width) for one in segments} <= {(256, 448)}
    assert [one.frames for one in segments] == ([(0, 1), (2, 3), (4, 5)] if shown == "all" else shown)


@pytest.mark.parametrize(
    ("hops", "grant", "shown"),
    [(1, 111, []), (3, 112, [(4, 5)]), (3, 335, [(2, 3), (4, 5)]), (5, 10**6, [(6, 7), (8, 9)])],
)
def test_recent_shows_the_newest_four_frames_at_native_size_and_nothing_else(hops, grant, shown):
    segments = Recent(RULES).allocate(0, YARD * hops, grant).segments
    assert [one.frames for one in segments] == shown
    assert {(one.height, one.width) for one in segments} <= {(256, 448)}


@given(st.lists(st.lists(st.floats(0, 50), max_size=6), max_size=9), st.integers(0, 6000))
def test_codec_never_exceeds_a_grant(work, grant):
    codec = Codec(RULES, [[CodecActivity(1000 * one, one / 100) for one in hop] for hop in work])
    for hop, frames in enumerate(work):
        assert codec.allocate(hop, YARD[:1] * len(frames), grant).tokens <= grant


def codec_of(work: list[float]) -> list[int]:
    """Tokens of each hop, of two frames with this much work each, when everything is paid for."""
    codec = Codec(RULES, [[CodecActivity(1000 * one, 0.01 * one)] * 2 for one in work])
    return [codec.allocate(hop, YARD, 10**6).tokens for hop in range(len(work))]


def test_codec_spends_where_the_encoder_has_more_to_do_than_usual():
    quiet = [1.0] * 6
    assert codec_of([*quiet, 9.0])[-1] == NATIVE
    assert codec_of([*quiet, 1.0])[-1] == 0
    assert 0 < codec_of([*quiet, 1.8])[-1] < NATIVE


def test_codec_looks_again_when_nothing_was_shown_for_long():
    tokens = codec_of([1.0] * 20)
    gaps = [place for place, one in enumerate(tokens) if one]
    assert len(gaps) > 3
    assert max(later - before for before, later in pairwise(gaps)) <= 6


def test_random_scales_lie_around_what_the_grant_pays_for_and_repeat_with_their_seed():
    spent = [Random(RULES, 3).allocate(hop, YARD, 56).tokens for hop in range(40)]
    assert spent == [Random(RULES, 3).allocate(hop, YARD, 56).tokens for hop in range(40)]
    assert spent != [Random(RULES, 4).allocate(hop, YARD, 56).tokens for hop in range(40)]
    assert len(set(spent)) > 5
    assert 25 < np.mean(spent) <= 56


def test_a_video_has_one_size_whatever_is_saved_up():
    video = Video(RULES)
    sizes = {
        (segment.height, segment.width)
        for hop, grant in enumerate((0, 12, 30, 112, 5, 12))
        for segment in video.allocate(hop, YARD, grant).segments
    }
    assert len(sizes) == 1
    assert not Video(RULES).allocate(0, YARD, 0).segments
    assert Video(RULES).allocate(0, YARD, NATIVE).tokens == NATIVE


def planned(evidence: list[Evidence], rate: float, hops: int = 20, burst: int = NATIVE) -> tuple[float, ...]:
    costs = [HopCost(1.0 + hop, tuple(YARD)) for hop in range(hops)]
    return schedule(costs, evidence, ClipBudget(rate, burst), 0.0, RULES)


def tokens(scales: tuple[float, ...]) -> list[int]:
    return [Scheduled(RULES, [scale]).allocate(0, YARD, 10**6).tokens for scale in scales]


def test_the_oracle_shows_watches_their_turns_alone():
    assert on_transitions(5, (Evidence(1, 1.0), Evidence(2, 1.0), Evidence(2, 1.0))) == (0.0, 1.0, 1.0, 0.0, 0.0)
    assert on_transitions(2, ()) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("family", "blind"), [("watch_f1", True), ("grounding", True), ("qa", False), ("image", False)]
)
def test_the_oracle_looks_away_between_the_ends_of_what_lasts_and_spends_all_of_it_otherwise(family, blind):
    costs = [HopCost(1.0 + hop, tuple(YARD)) for hop in range(20)]
    scales = plan(family, costs, [Evidence(12, 1.0)], ClipBudget(11.2, NATIVE), 0.0, RULES)
    assert scales[12] == 1.0
    assert (sum(scales) == 1.0) == blind


def test_the_oracle_saves_up_for_what_decides():
    scales = planned([Evidence(12, 1.0)], rate=11.2)
    assert scales[12] == 1.0
    assert 0 < sum(tokens(scales[:12])) <= 13 * 11.2 - NATIVE, "what is needed later is not spent before"
    assert sum(tokens(scales[13:])) > 0.8 * 7 * 11.2, "afterwards nothing is left for what does not come"


def test_the_oracle_shows_evidence_as_large_as_it_has_to_be_and_takes_the_better_of_two():
    scales = planned([Evidence(10, 0.4), Evidence(11, 1.0, worth=0.3), Evidence(11, 0.4, worth=0.5)], rate=6.0)
    assert scales[10] >= 0.4
    assert 0.4 <= scales[11] < 1.0
    both = planned([Evidence(9, 1.0, worth=2.0), Evidence(10, 1.0, worth=1.0)], rate=11.2)
    assert both[9] == 1.0 > both[10], "the bucket holds one native segment only"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.floats(0.1, 1.0)), max_size=6), st.floats(2.0, 150.0))
def test_the_oracle_never_plans_to_spend_what_the_bucket_does_not_hold(evidence, rate):
    burst = max(round(10 * rate), NATIVE)
    level = 0.0
    for spent in tokens(planned([Evidence(*one) for one in evidence], rate, burst=burst)):
        level = min(burst, level + rate)
        assert spent <= level + burst / 1000, "but for the rounding of levels"
        level -= spent


def test_the_oracle_leaves_little_unspent():
    assert sum(tokens(planned([], rate=11.2))) > 0.9 * 20 * 11.2
