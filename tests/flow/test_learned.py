"""The learned allocator: what an engine proposes, for many streams at once, inside every grant."""

import asyncio
import math
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator_engine.check import crowd
from allocator_engine.encode import FIRST_HOPS
from allocator_engine.errors import EngineFailed
from allocator_engine.fit import FitRules
from allocator_engine.grid import GRIDS
from allocator_engine.model.network import Shape, StreamNetwork
from allocator_engine.runtime import LIMITS, load, torch_engine
from allocator_engine.spec import STREAM, EngineSpec
from pipeline.allocators.batcher import Batcher, Batching, groups
from pipeline.allocators.fixed import fixed_scale
from pipeline.allocators.learned import LearnedAllocator, open_learned
from pipeline.clock import SystemClock
from pipeline.errors import AllocationFailed, ConfigError, EngineMismatch
from pipeline.loop import allocate
from pipeline.metrics import Metrics
from pipeline.testing import ArrayPicture, ManualClock
from pipeline.types import WatchQuery
from tests.engines import Bright, directions, engine, untrained
from tests.pictures import hop, yard

RULES = FitRules(GRIDS["qwen3_vl"])
QUERIES = (WatchQuery("car", "is there a car?"), WatchQuery("dog", "is there a dog or a cat?"))


def plain(level: int) -> ArrayPicture:
    return ArrayPicture(np.full((256, 448, 3), level, np.uint8))


def learned(engine_=None, **options) -> LearnedAllocator:
    return LearnedAllocator(engine_ or Bright(), RULES, directions, **options)


async def begin(allocator: LearnedAllocator, *pictures: ArrayPicture, **of) -> None:
    """Show the hops that are shown whatever the engine says."""
    for second in range(FIRST_HOPS):
        assert (await allocator.allocate(hop(float(second), *pictures, **of), QUERIES, 10_000)).segments


@pytest.fixture(scope="module")
def real():
    return open_learned(engine(), RULES, SystemClock())


async def test_what_a_stream_begins_with_is_shown_twice_whatever_the_engine_says():
    allocator = learned()
    sizes = []
    for second, grant in enumerate((112, 0, 28, 112)):
        allocation = await allocator.allocate(hop(float(second), plain(0)), QUERIES, grant)
        sizes.append([(s.height, s.width) for s in allocation.segments])
    assert sizes == [[(256, 448)], [], [(128, 224)], []], "a hop that nothing was granted for does not count"
    allocator.forget("yard")
    assert (await allocator.allocate(hop(9.0, plain(0)), QUERIES, 112)).tokens == 112, "it begins again"


async def test_what_a_new_question_asks_about_is_looked_at_twice_too():
    allocator = learned()
    asked = (QUERIES[:1], QUERIES[:1], QUERIES[:1], QUERIES, QUERIES, QUERIES, QUERIES[1:])
    shown = [
        bool((await allocator.allocate(hop(float(second), plain(0)), queries, 112)).segments)
        for second, queries in enumerate(asked)
    ]
    assert shown == [True, True, False, True, True, False, False]


async def test_questions_are_heard_once_each_however_many_watches_ask_them():
    engine_ = Bright()
    repeated = [WatchQuery(f"w{place}", "the same?") for place in range(LIMITS["queries"])]
    others = [WatchQuery(f"o{place}", f"another {place}?") for place in range(3)]
    await learned(engine_).allocate(hop(0.0, plain(0)), [*repeated, *others], 100)
    assert engine_.seen[0]["asked"].sum() == 4


async def test_frames_get_the_scales_that_the_engine_proposes():
    allocator = learned()
    await begin(allocator, plain(255))
    allocation = await allocator.allocate(hop(9.0, plain(255), plain(128), plain(0)), QUERIES, 1000)
    assert [(s.frames, s.height, s.width) for s in allocation.segments] == [((0,), 256, 448), ((1,), 128, 224)]


@pytest.mark.parametrize(("grant", "shown"), [(4 * 112, True), (4 * 112 - 1, False)])
async def test_an_ample_grant_is_spent_whatever_the_engine_says(grant, shown):
    """An engine is told no difference above four times the native tokens; what it saves there nobody asked for."""
    for allocator, spends in ((learned(), shown), (learned(ample=math.inf), False)):
        await begin(allocator, plain(0))
        assert bool((await allocator.allocate(hop(9.0, plain(0)), QUERIES, grant)).segments) is spends


async def test_what_is_found_with_an_ample_grant_does_not_depend_on_other_watches():
    alone, among = learned(), learned()
    for second, level in enumerate((0, 90, 0, 255, 10)):
        seen = hop(float(second), plain(level))
        assert await alone.allocate(seen, QUERIES[:1], 4000) == await among.allocate(seen, QUERIES, 4000)


async def test_the_engine_is_shown_the_hop_the_questions_the_grant_and_what_it_remembered():
    engine_ = Bright()
    allocator = learned(engine_)
    await allocator.allocate(hop(3.0, plain(10), plain(20)), QUERIES, 56)
    await allocator.allocate(hop(4.0, plain(30)), QUERIES[:1], 448)
    first, second = engine_.seen
    assert first["elapsed_s"].tolist() == [[0.0, 0.5]]
    assert second["elapsed_s"].tolist() == [[0.5]]
    assert [first["grant"][0], second["grant"][0]] == [-2.0, 2.0]
    assert first["queries"][0].argmax(1).tolist() == [len(query.question) for query in QUERIES]
    assert (first["memory"].max(), second["memory"].min(), second["memory"].max()) == (0, 2, 2)
    assert second["thumbnails"][0, 0, 0, 0].tolist() == [30, 30, 30]


async def test_what_a_question_has_read_follows_it():
    engine_ = Bright()
    allocator = learned(engine_)
    new = WatchQuery("bus", "is there a bus by the gate?")
    asked = ((QUERIES[0],), QUERIES[::-1], (new, QUERIES[1]), ())
    for second, queries in enumerate(asked):
        await allocator.allocate(hop(float(second), plain(1), plain(2)), queries, 100)
    read = [tensors["readings"][0, :, 0].tolist() for tensors in engine_.seen]
    assert read == [[0], [0, 2], [0, 2], [0]], "a new question has read nothing, nor has padding"
    allocator.forget("yard")
    await allocator.allocate(hop(9.0, plain(1)), QUERIES, 100)
    assert not engine_.seen[-1]["readings"].any()


async def test_streams_do_not_share_a_memory_and_a_forgotten_one_starts_anew():
    engine_ = Bright()
    allocator = learned(engine_)
    await allocator.allocate(hop(0.0, plain(1)), QUERIES, 100)
    await allocator.allocate(hop(0.0, plain(1), stream_id="other"), QUERIES, 100)
    allocator.forget("yard")
    allocator.forget("never seen")
    await allocator.allocate(hop(1.0, plain(1)), QUERIES, 100)
    assert [float(tensors["memory"].max()) for tensors in engine_.seen] == [0, 0, 0]


async def test_a_stream_that_is_forgotten_in_the_middle_of_a_hop_keeps_nothing_of_it():
    engine_ = Bright(lambda tensors: allocator.forget("yard"))
    allocator = learned(engine_)
    for second in range(2):
        await allocator.allocate(hop(float(second), plain(1)), QUERIES, 100)
    assert engine_.seen[1]["memory"].max() == 0


async def test_a_question_is_embedded_once():
    asked: list[str] = []

    def embed(questions):
        asked.extend(questions)
        return directions(questions)

    allocator = LearnedAllocator(Bright(), RULES, embed)
    again = WatchQuery("another watch", QUERIES[0].question)
    for second in range(3):
        await allocator.allocate(hop(float(second), plain(1)), (*QUERIES, again), 100)
    assert asked == [query.question for query in QUERIES]


@pytest.mark.parametrize("count", [0, 1, 200, 300])
async def test_any_number_of_watches_is_fine(count, real):
    watches = [WatchQuery(str(i), f"is there thing number {i}?") for i in range(count)]
    allocation = await real.allocate(hop(0.0, yard(), yard(), stream_id=f"with {count}"), watches, 100)
    assert allocation.tokens <= 100


async def test_one_frame_no_frame_and_black_frames_are_fine(real):
    for stream_id, pictures in {"one": [yard()], "none": [], "black": [plain(0), plain(0)]}.items():
        assert (await real.allocate(hop(0.0, *pictures, stream_id=stream_id), QUERIES, 50)).tokens <= 50


async def test_a_long_hop_is_shown_in_parts_that_remember_each_other():
    engine_ = Bright()
    allocation = await learned(engine_).allocate(hop(0.0, *[plain(255)] * 40), QUERIES, 10_000)
    assert [tensors["thumbnails"].shape[1] for tensors in engine_.seen] == [16, 16, 8]
    for kept in ("memory", "readings"):
        assert [float(tensors[kept].max()) for tensors in engine_.seen] == [0, 16, 32]
    assert len(allocation.segments) == 40


@given(means=st.lists(st.floats(width=32), min_size=1, max_size=4), grant=st.integers(0, 300))
@settings(max_examples=40, deadline=None)
async def test_whatever_an_engine_answers_the_grant_holds(means, grant):
    class Wild(Bright):
        def run(self, tensors):
            return super().run(tensors) | {"mean": np.array([means], np.float32)}

    allocator = learned(Wild())
    await begin(allocator, *[yard()] * len(means))
    allocation = await allocator.allocate(hop(9.0, *[yard()] * len(means)), QUERIES, grant)
    assert allocation.tokens <= grant


async def test_weights_that_are_not_finite_fail_the_allocation_and_nothing_else():
    network = untrained().network
    network.place.data[0, 0] = float("nan")
    allocator = learned(torch_engine(network, STREAM))
    for second in range(2):
        with pytest.raises(AllocationFailed, match="not finite"):
            await allocator.allocate(hop(float(second), yard()), QUERIES, 100)


SMALL = Shape(stem=(8, 8, 16), width=32, heads=2, mixers=1, readers=1, head_width=32)
PARTS = [name for name, _ in StreamNetwork(SMALL).named_parameters()]


@given(
    part=st.sampled_from(PARTS),
    factor=st.sampled_from([0.0, -1.0, 1e4, 1e30, float("inf"), float("nan")]),
    grant=st.integers(1, 300),
)
@settings(max_examples=60, deadline=None)
async def test_whatever_the_weights_the_loop_gets_an_allocation_within_the_grant(part, factor, grant):
    network = StreamNetwork(SMALL)
    network.get_parameter(part).data.mul_(factor)
    allocator = learned(torch_engine(network, STREAM), batching=Batching(wait_s=0.0))
    runtime = SimpleNamespace(
        clock=ManualClock(), allocator=allocator, fit_rules=RULES, metrics=Metrics(), warn=lambda *of, **more: None
    )
    for second in range(FIRST_HOPS + 1):
        seen = hop(float(second), yard(), plain(0))
        allocation, fell_back = await allocate(seen, QUERIES, grant, runtime)
        assert allocation.tokens <= grant
        if np.isnan(factor):
            assert (allocation, fell_back) == (fixed_scale(seen, grant, RULES), True)


async def test_after_a_failure_the_memory_starts_anew():
    def fault(tensors):
        if tensors["thumbnails"].max() == 13:
            raise EngineFailed("unlucky")

    engine_ = Bright(fault)
    allocator = learned(engine_)
    await allocator.allocate(hop(0.0, plain(1)), QUERIES, 100)
    with pytest.raises(AllocationFailed, match="unlucky"):
        await allocator.allocate(hop(1.0, plain(13)), QUERIES, 100)
    await allocator.allocate(hop(2.0, plain(1)), QUERIES, 100)
    assert [float(tensors["memory"].max()) for tensors in engine_.seen] == [0, 1, 0]


async def test_a_query_encoder_that_gives_nonsense_fails_the_allocation():
    allocator = LearnedAllocator(Bright(), RULES, lambda questions: np.full((len(questions), 128), np.nan))
    with pytest.raises(AllocationFailed, match="query encoder"):
        await allocator.allocate(hop(0.0, plain(1)), QUERIES, 100)


async def test_streams_that_ask_within_the_deadline_share_a_call():
    clock, engine_ = ManualClock(), Bright()
    together = learned(engine_, clock=clock, ample=math.inf)
    for second in range(FIRST_HOPS + 1):
        asks = [
            asyncio.create_task(together.allocate(hop(float(second), plain(60 * i), stream_id=str(i)), QUERIES, 1000))
            for i in range(5)
        ]
        await waiting(together.batcher, 5)
        assert engine_.calls == [5] * second
        clock.advance(0.002)
        allocations = await asyncio.gather(*asks)
    assert engine_.calls == [5] * (FIRST_HOPS + 1)
    alone = learned(ample=math.inf)
    for i, allocation in enumerate(allocations):
        await begin(alone, plain(60 * i), stream_id=str(i))
        assert await alone.allocate(hop(2.0, plain(60 * i), stream_id=str(i)), QUERIES, 1000) == allocation
    assert len({allocation.tokens for allocation in allocations}) == 5, "each has its own frame's size"


async def test_a_full_call_does_not_wait_for_the_deadline():
    engine_ = Bright()
    allocator = learned(engine_, clock=ManualClock(), batching=Batching(most=4))
    hops = [hop(0.0, plain(1), stream_id=str(i)) for i in range(4)]
    await asyncio.gather(*(allocator.allocate(one, QUERIES, 100) for one in hops))
    assert engine_.calls == [4]


async def test_one_streams_trouble_stays_its_own():
    def fault(tensors):
        if (tensors["thumbnails"] == 13).any():
            raise EngineFailed("unlucky")

    allocator = learned(Bright(fault))
    asks = [allocator.allocate(hop(0.0, plain(i), stream_id=str(i)), QUERIES, 100) for i in (12, 13, 14)]
    results = await asyncio.gather(*asks, return_exceptions=True)
    assert [isinstance(result, AllocationFailed) for result in results] == [False, True, False]


async def test_a_bug_in_an_engine_reaches_whoever_asked():
    def fault(tensors):
        raise KeyError("a bug")

    allocator = learned(Bright(fault))
    with pytest.raises(KeyError):
        await allocator.allocate(hop(0.0, plain(1)), QUERIES, 100)


async def test_an_asker_that_leaves_takes_nobody_along():
    clock, engine_ = ManualClock(), Bright()
    allocator = learned(engine_, clock=clock)
    asks = [
        asyncio.create_task(allocator.allocate(hop(0.0, plain(1), stream_id=str(i)), QUERIES, 100)) for i in range(3)
    ]
    await waiting(allocator.batcher, 3)
    asks[0].cancel()
    await asyncio.sleep(0)
    clock.advance(0.002)
    results = await asyncio.gather(*asks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert engine_.calls == [2]


async def test_every_call_is_told_with_its_hops():
    heard: list[tuple[int, float]] = []
    allocator = learned(clock=ManualClock(), batching=Batching(most=3), on_call=lambda *call: heard.append(call))
    hops = [hop(0.0, plain(1), stream_id=str(i)) for i in range(3)]
    await asyncio.gather(*(allocator.allocate(one, QUERIES, 100) for one in hops))
    assert heard == [(3, 0.0)]


async def test_closing_waits_for_the_call_under_way_though_nobody_wants_it_any_more():
    begun, go_on = threading.Event(), threading.Event()

    def fault(tensors):
        begun.set()
        go_on.wait(10)

    allocator = learned(Bright(fault))
    ask = asyncio.create_task(allocator.allocate(hop(0.0, plain(1)), QUERIES, 100))
    await asyncio.to_thread(begun.wait, 10)
    ask.cancel()
    closing = asyncio.create_task(allocator.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    go_on.set()
    await closing
    await learned().close()


def test_groups_keep_the_order_the_limit_and_the_like_together():
    assert groups([2, 2, 1, 2, 2, 16, 9], most=3) == [[0, 1, 3], [2], [4], [5, 6]]
    assert groups([], most=3) == []


@given(frames=st.lists(st.integers(1, 16)), most=st.integers(1, 8))
def test_groups_take_every_hop_once_and_pad_none_to_more_than_twice(frames, most):
    made = groups(frames, most)
    assert sorted(index for group in made for index in group) == list(range(len(frames)))
    for group in made:
        assert 1 <= len(group) <= most
        assert max(frames[i] for i in group) < 2 * min(frames[i] for i in group) + 1


@given(frames=st.integers(2, 6), data=st.data())
@settings(max_examples=15, deadline=None)
def test_later_frames_of_a_hop_never_change_an_earlier_decision(frames, data):
    kept = data.draw(st.integers(1, frames - 1))
    tensors = crowd(1, frames)
    changed = tensors["thumbnails"].copy()
    changed[:, kept:] = data.draw(st.sampled_from([0, 128, 255]))
    tensors["grant"][:] = -3.0  # where what a new network foresees is worth a part of a hop's tokens
    compiled = load(engine(), "onnxruntime")
    one, other = (compiled.run(tensors | {"thumbnails": seen})["mean"] for seen in (tensors["thumbnails"], changed))
    np.testing.assert_allclose(one[:, :kept], other[:, :kept], atol=1e-6)
    assert np.abs(one[:, kept:] - other[:, kept:]).max() > 1e-4


@given(queries=st.integers(2, 40), frames=st.integers(1, 3), data=st.data())
@settings(max_examples=15, deadline=None)
def test_the_order_of_queries_does_not_matter(queries, frames, data):
    tensors = crowd(1, frames, queries)
    order = data.draw(st.permutations(range(queries)))
    compiled = load(engine(), "onnxruntime")
    one = compiled.run(tensors)["mean"]
    other = compiled.run(tensors | {"queries": tensors["queries"][:, order]})["mean"]
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_an_engine_of_another_spec_is_refused():
    other = Bright()
    other.spec = EngineSpec((64, 112), STREAM.inputs, STREAM.outputs, (0.5, 1.0))
    with pytest.raises(EngineMismatch, match="another spec"):
        learned(other)


def test_opening_an_engine_that_is_not_there_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="there is no engine"):
        open_learned(tmp_path, RULES, SystemClock())


def test_opening_an_engine_that_does_not_fit_refuses_to_start():
    with pytest.raises(EngineMismatch, match="has no TensorRT plan"):
        open_learned(engine(), RULES, SystemClock(), backend="tensorrt")


async def waiting(batcher: Batcher, count: int) -> None:
    """Return when so many asks wait: looking and embedding happen in threads."""
    while batcher.waiting < count:
        await asyncio.sleep(0.001)
    for _ in range(10):  # turns of the loop, in which the batcher begins to wait for its deadline
        await asyncio.sleep(0)
