from hypothesis import given
from hypothesis import strategies as st

from allocator_engine.fit import Allocation, FitRules, SegmentSize
from allocator_engine.grid import GRIDS
from pipeline.core.relook import WORTH, PictureRing, closer
from tests.pictures import hop, yard

RULES = FitRules(GRIDS["qwen3_vl"])
PAIRS = FitRules(GRIDS["qwen3_vl"], frames_per_segment=2)
PICTURE = yard()
NATIVE = 112
"""Vision tokens of a yard picture."""


def small(*frames):
    return SegmentSize(frames, 64, 96, 6)


def middling(*frames):
    return SegmentSize(frames, 128, 224, 28)


def ring_of(*hops, most=8):
    """A ring after hops of two frames a second, allocated as told."""
    ring = PictureRing(NATIVE, most)
    for second, allocation in enumerate(hops):
        ring = ring.push(hop(float(second), PICTURE, PICTURE), allocation)
    return ring


def test_the_newest_frames_are_shown_larger_or_nothing_is():
    ring = ring_of(Allocation((small(0), small(1))))
    assert [(one.frames, one.tokens) for one in closer(ring, NATIVE, RULES).segments] == [((1,), NATIVE)]
    assert closer(ring, 8, RULES) == Allocation()
    pair = closer(ring, 50, PAIRS)
    assert [one.frames for one in pair.segments] == [(0, 1)]
    assert 18 <= pair.tokens <= 50


def test_what_is_left_shows_the_earlier_frames_that_the_allocator_gave_most():
    ring = ring_of(Allocation((middling(0), small(1))), Allocation((small(0),)))
    shown = closer(ring, 2 * NATIVE, RULES)
    assert [(one.frames, one.tokens) for one in shown.segments] == [((0,), NATIVE), ((3,), NATIVE)]


def test_frames_that_were_seen_as_well_already_are_not_shown_again():
    native = SegmentSize((0,), 256, 448, NATIVE)
    ring = ring_of(Allocation((native,)), Allocation((small(0), small(1))))
    shown = closer(ring, 4 * NATIVE, RULES)
    assert [one.frames for one in shown.segments] == [(1,), (2,), (3,)]
    assert closer(ring_of(Allocation((native,)), most=2), NATIVE, PAIRS).segments == ()


def test_an_earlier_frame_may_be_what_the_newest_adds_nothing_to():
    native = SegmentSize((1,), 256, 448, NATIVE)
    ring = ring_of(Allocation((small(0), native)))
    assert [one.frames for one in closer(ring, 2 * NATIVE, RULES).segments] == [(0,), (1,)]
    assert closer(ring, NATIVE, RULES) == Allocation()


def test_nothing_from_before_the_context_began_is_shown():
    ring = ring_of(*[Allocation((small(0), small(1)))] * 3).since(2.0)
    assert [frame.pts_s for frame in ring.frames] == [2.0, 2.5]
    assert closer(PictureRing(NATIVE), NATIVE, RULES) == Allocation()


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 900), st.sampled_from([RULES, PAIRS]))
def test_the_ring_is_bounded_and_a_second_look_is_within_its_tokens_and_ends_with_the_newest(most, hops, tokens, rules):
    ring = ring_of(*[Allocation((small(0), middling(1))), Allocation()] * (hops // 2), most=most)
    assert len(ring.frames) == len(ring.shown) == min(most, 4 * (hops // 2))
    assert [frame.pts_s for frame in ring.frames] == sorted(frame.pts_s for frame in ring.frames)
    found = closer(ring, tokens, rules)
    assert found.tokens <= tokens
    if found.segments:
        assert found.segments[-1].frames[-1] == len(ring.frames) - 1
        assert any(one.tokens >= WORTH * max(ring.shown[i] for i in one.frames) for one in found.segments)
