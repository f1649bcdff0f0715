import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator_engine.fit import Allocation, FitRules, fit
from allocator_engine.grid import GRIDS

RULES = FitRules(GRIDS["qwen3_vl"])
SIDES = st.integers(1, 4000)
SCALES = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 1.2)


@st.composite
def proposals(draw):
    frames = draw(st.integers(0, 9))
    one_size = (draw(SIDES), draw(SIDES))
    sizes = [one_size if draw(st.booleans()) else (draw(SIDES), draw(SIDES)) for _ in range(frames)]
    scales = [draw(SCALES) for _ in range(frames)]
    rules = FitRules(
        draw(st.sampled_from(list(GRIDS.values()))),
        frames_per_segment=draw(st.sampled_from([1, 2])),
        min_tokens_per_segment=draw(st.integers(1, 12)),
        max_tokens_per_segment=draw(st.sampled_from([12, 100, 16384])),
    )
    return sizes, scales, draw(st.integers(-5, 5000)), rules


@given(proposals())
def test_a_fit_never_exceeds_the_grant_and_every_segment_is_legal(proposal):
    sizes, scales, grant, rules = proposal
    allocation = fit(sizes, scales, grant, rules)

    assert allocation.tokens <= max(grant, 0)
    positions = [i for segment in allocation.segments for i in segment.frames]
    assert positions == sorted(set(positions))
    for segment in allocation.segments:
        native = rules.grid.native(*sizes[segment.frames[0]])
        assert segment.tokens == rules.grid.tokens(segment.height, segment.width)
        assert 1 <= len(segment.frames) <= rules.frames_per_segment
        assert len({sizes[i] for i in segment.frames}) == 1
        assert segment.height <= native[0]
        assert segment.width <= native[1]
        assert segment.tokens <= rules.max_tokens_per_segment
        assert segment.tokens >= min(rules.min_tokens_per_segment, rules.grid.tokens(*native))


@given(proposals())
def test_a_fit_keeps_the_aspect_within_one_cell(proposal):
    sizes, scales, grant, rules = proposal
    for segment in fit(sizes, scales, grant, rules).segments:
        height, width = rules.grid.native(*sizes[segment.frames[0]])
        cell = rules.grid.cell_px
        rows, columns = segment.height // cell, segment.width // cell
        # Some common scale s explains both sides to within one cell (half a cell of rounding, one cell at the least).
        low = max((rows - 1) / (height / cell), (columns - 1) / (width / cell))
        high = min((rows + 1) / (height / cell), (columns + 1) / (width / cell))
        assert low <= high


@given(proposals())
def test_a_fit_never_gives_a_frame_more_than_was_proposed(proposal):
    sizes, scales, grant, rules = proposal
    proposed = {s.frames: s for s in fit(sizes, scales, 10**9, rules).segments}
    for segment in fit(sizes, scales, grant, rules).segments:
        assert segment.height <= proposed[segment.frames].height
        assert segment.width <= proposed[segment.frames].width


@given(proposals(), st.integers(0, 500))
def test_a_larger_grant_never_keeps_fewer_segments(proposal, more):
    sizes, scales, grant, rules = proposal
    assert len(fit(sizes, scales, grant, rules).segments) <= len(fit(sizes, scales, grant + more, rules).segments)


@pytest.mark.parametrize("scale", [math.nan, -1.0, 0.0, -math.inf])
def test_a_frame_without_a_positive_scale_is_dropped(scale):
    assert fit([(256, 448)], [scale], 1000, RULES) == Allocation()


def test_an_infinite_scale_means_native():
    (segment,) = fit([(256, 448)], [math.inf], 1000, RULES).segments
    assert (segment.height, segment.width, segment.tokens) == (256, 448, 112)


def test_a_proposal_that_fits_is_left_alone_and_the_rest_of_the_grant_unspent():
    allocation = fit([(256, 448)] * 2, [0.5, 1.0], 1000, RULES)
    assert [(s.height, s.width) for s in allocation.segments] == [(128, 224), (256, 448)]
    assert allocation.tokens == 28 + 112


def test_a_uniform_proposal_shrinks_uniformly_and_fills_the_grant():
    allocation = fit([(256, 448)] * 4, [1.0] * 4, 112, RULES)
    assert len(allocation.segments) == 4
    assert max(s.tokens for s in allocation.segments) <= 1.5 * min(s.tokens for s in allocation.segments)
    assert 100 <= allocation.tokens <= 112


def test_when_not_all_can_be_legible_the_least_important_go_and_then_the_oldest():
    allocation = fit([(256, 448)] * 3, [0.5, 1.0, 0.5], 4, RULES)
    assert [s.frames for s in allocation.segments] == [(1,), (2,)]


def test_two_frames_share_one_segment_and_its_tokens():
    rules = FitRules(GRIDS["qwen3_vl"], frames_per_segment=2)
    allocation = fit([(256, 448)] * 3, [1.0, 0.5, 0.75], 1000, rules)
    assert [s.frames for s in allocation.segments] == [(0, 1), (2,)]
    assert [(s.height, s.width) for s in allocation.segments] == [(192, 320), (192, 320)]


def test_frames_of_different_sizes_do_not_pair():
    rules = FitRules(GRIDS["qwen3_vl"], frames_per_segment=2)
    allocation = fit([(256, 448), (128, 224)], [1.0, 1.0], 1000, rules)
    assert [s.frames for s in allocation.segments] == [(0,), (1,)]


def test_a_dropped_frame_does_not_keep_its_neighbours_from_pairing():
    rules = FitRules(GRIDS["qwen3_vl"], frames_per_segment=2)
    assert [s.frames for s in fit([(256, 448)] * 3, [1.0, 0.0, 1.0], 1000, rules).segments] == [(0, 2)]


def test_a_one_pixel_picture_is_one_cell_and_is_not_called_illegible():
    (segment,) = fit([(1, 1)], [1.0], 10, RULES).segments
    assert (segment.height, segment.width, segment.tokens) == (32, 32, 1)


def test_a_ribbon_that_the_model_refuses_is_dropped():
    assert fit([(1, 4000)], [1.0], 1000, RULES) == Allocation()


def test_scales_and_frames_must_come_in_pairs():
    with pytest.raises(ValueError, match="2 scales for 1 frames"):
        fit([(256, 448)], [1.0, 1.0], 100, RULES)


@pytest.mark.parametrize(("name", "value"), [("frames_per_segment", 3), ("min_tokens_per_segment", 0)])
def test_impossible_rules_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        FitRules(GRIDS["qwen3_vl"], **{name: value})
