"""The contract suite of allocators, and what each promises besides."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator_engine.encode import FIRST_HOPS
from allocator_engine.fit import FitRules
from allocator_engine.grid import GRIDS
from pipeline.allocators.fixed import FixedAllocator
from pipeline.allocators.learned import AMPLE, LearnedAllocator
from pipeline.allocators.motion import MotionAllocator
from pipeline.core.budget import BURST_HOPS, GRANT_HOPS
from pipeline.types import WatchQuery
from tests.engines import Bright, directions
from tests.pictures import hop, yard

RULES = FitRules(GRIDS["qwen3_vl"])
QUERIES = (WatchQuery("car", "is there a car?"),)
HOPS = FIRST_HOPS + 1  # the last one is what the engine makes of it
ALLOCATORS = {
    "fixed": FixedAllocator,
    "motion": MotionAllocator,
    "learned": lambda rules: LearnedAllocator(Bright(), rules, directions),
}


@pytest.fixture(params=list(ALLOCATORS))
def allocator(request):
    return ALLOCATORS[request.param](RULES)


@given(data=st.data())
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("name", list(ALLOCATORS))
async def test_no_allocator_spends_more_than_its_grant(name, data):
    allocator = ALLOCATORS[name](RULES)
    for second in range(data.draw(st.integers(1, 4))):
        box = data.draw(st.none() | st.tuples(st.integers(0, 190), st.integers(0, 380)))
        pictures = [yard(data.draw(st.sampled_from([64, 256])), 448, box) for _ in range(data.draw(st.integers(0, 3)))]
        grant = data.draw(st.integers(0, 300))
        assert (await allocator.allocate(hop(second, *pictures), QUERIES, grant)).tokens <= grant


async def test_an_allocator_is_causal_and_keeps_streams_apart(allocator):
    by_itself = ALLOCATORS[allocator.name](RULES)
    for second in range(HOPS):
        quiet = hop(float(second), yard(), yard())
        busy = hop(float(second), yard(), yard(box=(90, 90)), stream_id="other")
        alone = await by_itself.allocate(quiet, QUERIES, 200)
        await allocator.allocate(busy, QUERIES, 200)
        assert await allocator.allocate(quiet, QUERIES, 200) == alone


async def test_a_forgotten_stream_starts_anew(allocator):
    seen = [await allocator.allocate(hop(float(second), yard()), QUERIES, 200) for second in range(HOPS)]
    assert allocator.name == "fixed" or seen[-1] != seen[0], "nothing would be seen of the forgetting"
    allocator.forget("yard")
    allocator.forget("never seen")
    assert await allocator.allocate(hop(float(HOPS), yard()), QUERIES, 200) == seen[0]


async def test_fixed_gives_every_frame_one_scale_that_fills_the_grant():
    allocation = await FixedAllocator(RULES).allocate(hop(0.0, yard(), yard()), QUERIES, 120)
    assert [s.frames for s in allocation.segments] == [(0,), (1,)]
    assert 100 <= allocation.tokens <= 120


async def test_fixed_is_native_when_the_grant_allows():
    allocation = await FixedAllocator(RULES).allocate(hop(0.0, yard()), QUERIES, 10_000)
    assert [(s.height, s.width) for s in allocation.segments] == [(256, 448)]


async def test_motion_drops_what_stands_still_and_keeps_what_moves():
    allocator = MotionAllocator(RULES)
    await allocator.allocate(hop(0.0, yard()), QUERIES, 500)
    still = await allocator.allocate(hop(1.0, yard(), yard()), QUERIES, 500)
    moved = await allocator.allocate(hop(2.0, yard(), yard(box=(60, 100))), QUERIES, 500)
    assert still.tokens == 0
    assert [s.frames for s in moved.segments] == [(1,)]


async def test_motion_is_not_fooled_by_an_exposure_step():
    allocator = MotionAllocator(RULES)
    await allocator.allocate(hop(0.0, yard()), QUERIES, 500)
    assert (await allocator.allocate(hop(1.0, yard(light=40)), QUERIES, 500)).tokens == 0


async def test_motion_looks_again_at_a_scene_that_stands_still():
    allocator = MotionAllocator(RULES)
    kept = [(await allocator.allocate(hop(float(t), yard()), QUERIES, 500)).tokens > 0 for t in range(11)]
    assert [t for t, was_kept in enumerate(kept) if was_kept] == [0, 5, 10]


async def test_motion_compares_with_what_was_shown_not_with_what_the_grant_refused():
    allocator = MotionAllocator(RULES)
    await allocator.allocate(hop(0.0, yard()), QUERIES, 500)
    refused = await allocator.allocate(hop(1.0, yard(box=(60, 100))), QUERIES, 0)
    shown = await allocator.allocate(hop(2.0, yard(box=(60, 100))), QUERIES, 500)
    assert (refused.tokens, shown.tokens > 0) == (0, True)


async def test_motion_survives_a_change_of_resolution():
    allocator = MotionAllocator(RULES)
    await allocator.allocate(hop(0.0, yard(256, 448)), QUERIES, 500)
    assert (await allocator.allocate(hop(1.0, yard(480, 640)), QUERIES, 500)).tokens > 0


def test_savings_alone_are_never_ample():
    assert 2 <= GRANT_HOPS < AMPLE, "a beginning and its confirmation fit in, and a full bucket is no reason to spend"
    assert GRANT_HOPS <= BURST_HOPS
