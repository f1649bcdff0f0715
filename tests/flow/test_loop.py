import asyncio
import weakref
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from allocator_engine.fit import Allocation, FitRules, SegmentSize, fit
from allocator_engine.grid import GRIDS
from pipeline.allocators.fixed import FixedAllocator
from pipeline.core.budget import Ledger, Rate
from pipeline.core.context import Context, ContextRules
from pipeline.core.hops import HopRules
from pipeline.core.relook import PictureRing
from pipeline.core.state import StreamRun, StreamState
from pipeline.errors import AllocationFailed, MLLMOverloaded, MLLMTimeout
from pipeline.loop import Runtime, watch_stream
from pipeline.metrics import Metrics
from pipeline.sources.base import SourceCounts
from pipeline.testing import (
    ManualClock,
    MemoryOutbox,
    ScriptedAllocator,
    ScriptedMLLM,
    ScriptedSource,
    StandingWatches,
    frame_at,
)
from pipeline.types import WatchQuery
from tests.patience import until

CAR = WatchQuery("car", "is there a car?")
VAN = WatchQuery("van", "is there a van?")
RULES = FitRules(GRIDS["qwen3_vl"])


def build(*queries, rate=Rate(400, 4000), mllm=None, allocator=None, context=ContextRules()):
    budget = Ledger(ManualClock())
    budget.open("yard", rate, 0.0)
    runtime = Runtime(
        ManualClock(),
        StandingWatches(*queries),
        budget,
        allocator or FixedAllocator(RULES),
        RULES,
        mllm or ScriptedMLLM(),
        MemoryOutbox(),
        Metrics(),
    )
    return StreamRun("yard", HopRules(), Context.empty("yard", context)), runtime


def seconds(count, start=0):
    return [frame_at(start + i / 2) for i in range(count * 2)]


async def test_a_stream_is_watched_to_its_end():
    run, runtime = build(CAR, VAN)
    await watch_stream(run, ScriptedSource(seconds(3)), runtime)

    assert [event.type for event in runtime.outbox.events] == ["watch.opened", "watch.opened"]
    assert [d.resume_s for d in runtime.outbox.decisions] == [1.0, 2.0, 3.0]
    assert (run.counts.hops, run.counts.frames, run.counts.answers) == (3, 6, 6)
    assert [ids for _, ids in runtime.mllm.asked] == [("car", "van")] * 3


async def test_every_decision_holds_the_state_to_resume_from():
    run, runtime = build(CAR)
    await watch_stream(run, ScriptedSource(seconds(3)), runtime)
    states = [StreamState.from_json(d.state) for d in runtime.outbox.decisions]
    assert all(state.watches[CAR.key].is_open for state in states)
    assert states[-1] == run.state


async def test_a_packed_context_is_asked_about_alike():
    said = []
    for rules in (ContextRules(), ContextRules(packed=True)):
        run, runtime = build(CAR, context=rules)
        await watch_stream(run, ScriptedSource(seconds(4)), runtime)
        assert {isinstance(one.held, np.ndarray) for one in run.context.segments} == {not rules.packed}
        said.append((run.context.segments, runtime.outbox.decisions))
    assert said[0] == said[1]


class Pausing:
    """A camera that sends a hop and then nothing for a while; it keeps no picture."""

    live = False

    def __init__(self):
        self.counts, self.pictures = SourceCounts(), []
        self.pauses, self.goes_on = asyncio.Event(), asyncio.Event()

    async def frames(self, sampler, notify=None):
        for place in range(4):
            if place == 2:
                self.pauses.set()
                await self.goes_on.wait()
            frame = frame_at(place / 2)
            self.pictures.append(weakref.ref(frame.picture))
            yield frame
            del frame

    async def close(self):
        return


async def test_between_hops_no_picture_is_kept_and_a_packed_context_has_no_raw_pixels():
    run, runtime = build(CAR, context=ContextRules(packed=True))
    camera = Pausing()
    watched = asyncio.create_task(watch_stream(run, camera, runtime))
    await camera.pauses.wait()
    assert (run.counts.hops, len(camera.pictures)) == (1, 2)
    await until(lambda: not any(picture() for picture in camera.pictures), "a picture is kept")  # by a thread, a moment
    assert run.context.segments
    assert not any(isinstance(one.held, np.ndarray) for one in run.context.segments)
    camera.goes_on.set()
    await watched
    assert run.counts.hops == 2


async def test_one_look_serves_every_watch():
    spent = []
    for queries in [(CAR,), tuple(WatchQuery(f"w{i}", f"is there a thing {i}?") for i in range(16))]:
        run, runtime = build(*queries)
        await watch_stream(run, ScriptedSource(seconds(20)), runtime)
        spent.append(run.counts.spent)
    assert spent[0] == spent[1] > 0


@pytest.mark.parametrize("rate", [Rate(50, 300), Rate(400, 4000), Rate(13.5, 40)])
async def test_what_is_sent_was_charged_and_stays_within_the_budget(rate):
    run, runtime = build(CAR, rate=rate, context=ContextRules(10, 5))
    await watch_stream(run, ScriptedSource(seconds(90)), runtime)
    sent = runtime.mllm.sent
    assert run.context.epoch >= 5
    assert sum(sent) <= run.counts.spent <= rate.tokens_per_s * 90 + rate.burst_tokens
    assert sum(sent) >= 0.5 * rate.tokens_per_s * 90


async def test_nobody_watching_costs_nothing():
    run, runtime = build()
    await watch_stream(run, ScriptedSource(seconds(3)), runtime)
    assert (run.counts.hops, run.counts.spent, runtime.mllm.asked) == (3, 0, [])


@pytest.mark.parametrize("failure", [MLLMOverloaded("too much"), MLLMTimeout("too late")])
async def test_a_hop_that_could_not_be_asked_is_skipped_and_the_next_one_sees_its_frames(failure):
    mllm = ScriptedMLLM()
    mllm.failures = [None, failure, None]
    run, runtime = build(CAR, mllm=mllm)
    await watch_stream(run, ScriptedSource(seconds(3)), runtime)

    assert (run.counts.hops, run.counts.skipped, run.counts.answers) == (3, 1, 2)
    assert mllm.asked[-1][0].segments == run.context.segments
    assert sum(mllm.sent) <= run.counts.spent
    assert runtime.metrics.value("hops_skipped_total", stream="yard", reason=type(failure).__name__) == 1


async def test_a_context_the_mllm_has_lost_is_charged_before_it_is_sent_again():
    class Forgetful(ScriptedMLLM):
        async def ask(self, context, queries, limit=None):
            answers = await super().ask(context, queries, limit)
            if len(self.sent) == 10:
                self.forget("yard")
            return answers

    run, runtime = build(CAR, mllm=Forgetful(), rate=Rate(100, 400))
    await watch_stream(run, ScriptedSource(seconds(12)), runtime)
    assert runtime.mllm.sent[10] > runtime.mllm.sent[9]
    assert sum(runtime.mllm.sent) <= run.counts.spent <= 100 * 12 + 400


async def test_what_was_never_sent_is_not_charged():
    mllm = ScriptedMLLM()
    mllm.failures = [None] + [MLLMOverloaded("the queue is full", sent=False)] * 8
    run, runtime = build(CAR, mllm=mllm, rate=Rate(100, 400))
    await watch_stream(run, ScriptedSource(seconds(20)), runtime)
    assert run.counts.skipped == 8
    assert sum(mllm.sent) == run.counts.spent
    assert run.context.epoch == 0


async def test_a_prefix_that_goes_between_paying_and_asking_is_not_sent_unpaid():
    class Evicting(ScriptedMLLM):
        async def ask(self, context, queries, limit=None):
            if len(self.sent) == 5:
                self.forget("yard")
                self.sent.append(0)
            return await super().ask(context, queries, limit)

    run, runtime = build(CAR, mllm=Evicting(), rate=Rate(100, 400))
    await watch_stream(run, ScriptedSource(seconds(12)), runtime)
    assert run.counts.skipped == 1
    assert sum(runtime.mllm.sent) == run.counts.spent <= 100 * 12 + 400


async def test_a_stream_that_nobody_watches_any_more_pays_nothing_and_keeps_its_context():
    run, runtime = build(CAR)
    await watch_stream(run, ScriptedSource(seconds(3)), runtime)
    spent, context = run.counts.spent, run.context
    runtime.watches.queries = ()
    runtime.mllm.forget("yard")
    await watch_stream(run, ScriptedSource(seconds(3, start=3)), runtime)
    assert (run.counts.spent, run.context) == (spent, context)


async def test_a_watch_that_is_removed_while_open_is_cleared():
    run, runtime = build(CAR)
    await watch_stream(run, ScriptedSource(seconds(2)), runtime)
    runtime.watches.queries = ()
    await watch_stream(run, ScriptedSource(seconds(2, start=2)), runtime)
    assert [event.type for event in runtime.outbox.events] == ["watch.opened", "watch.cleared"]
    assert runtime.outbox.events[-1].data["reason"] == "watch removed or changed"


class Greedy:
    name = "greedy"

    def __init__(self, failure=None):
        self.failure = failure

    async def allocate(self, hop, queries, grant):
        if self.failure:
            raise self.failure
        return Allocation((SegmentSize((0,), 3200, 3200, 10_000),))

    def forget(self, stream_id):
        return


@pytest.mark.parametrize("allocator", [Greedy(), Greedy(AllocationFailed("the engine is gone"))])
async def test_a_failing_allocator_falls_back_inside_the_same_grant_and_says_so(allocator):
    run, runtime = build(CAR, allocator=allocator, rate=Rate(100, 150))
    await watch_stream(run, ScriptedSource(seconds(2)), runtime)
    assert run.counts.fallbacks == 2
    assert 0 < run.counts.spent <= 150 + 200
    assert runtime.outbox.events[0].data["allocation_fell_back"] is True


class Waiting:
    """Shows nothing, and remembers what it might have."""

    name = "waiting"

    def __init__(self):
        self.granted = []

    async def allocate(self, hop, queries, grant):
        self.granted.append(grant)
        return Allocation()


@pytest.mark.parametrize("lost", [1, 2], ids=["all frames", "every other frame lost"])
@pytest.mark.parametrize("hops", [0.0, 0.1, 3.0, 10.0])
async def test_a_stream_saves_up_for_so_many_of_its_hops_at_native_size_and_grants_one_no_more_than_three(hops, lost):
    run, runtime = build(CAR, rate=Rate(40, 40), allocator=Waiting())
    run.burst_hops = hops
    frames = seconds(60)
    await watch_stream(run, ScriptedSource(frames[::lost]), runtime)
    native = fit([frame.size for frame in frames[:2]], [1.0, 1.0], 10**9, RULES).tokens
    assert runtime.allocator.granted[0] <= 80
    most = max(3 * native // lost, 10 * 40)
    assert most < 4 * native // lost, "savings alone are not ample, however many frames are lost"
    assert runtime.allocator.granted[-1] == min(max(40, round(hops * native)), most)
    assert runtime.budget.take("yard", 60.0, 10**9) == max(40, round(hops * native))


async def test_dropped_frames_are_never_rendered():
    from pipeline.allocators.motion import MotionAllocator, MotionRules
    from tests.pictures import yard

    still = yard()
    run, runtime = build(CAR, allocator=MotionAllocator(RULES, MotionRules(refresh_s=1000)))
    await watch_stream(run, ScriptedSource([frame_at(i / 2, still) for i in range(20)]), runtime)
    full = [size for size in still.rendered if size[1] > 112]
    assert len(full) == 1
    assert run.counts.kept == 1


async def test_a_segment_is_immutable_and_its_id_follows_its_pixels():
    run, runtime = build(CAR)
    await watch_stream(run, ScriptedSource(seconds(5)), runtime)
    contexts = [context for context, _ in runtime.mllm.asked]
    for before, after in pairwise(contexts):
        assert after.segments[: len(before.segments)] == before.segments
    ids = [segment.content_id for segment in run.context.segments]
    assert len(set(ids)) == len(ids)


async def test_watches_that_ask_the_same_are_asked_once_and_answered_each():
    twin = WatchQuery("car-again", "is there  a car?")
    run, runtime = build(CAR, twin, VAN)
    await watch_stream(run, ScriptedSource(seconds(2)), runtime)
    assert [ids for _, ids in runtime.mllm.asked] == [("car", "van")] * 2
    assert run.counts.answers == 6
    assert {event.watch_id for event in runtime.outbox.events} == {"car", "car-again", "van"}


async def test_a_watch_with_a_cadence_is_asked_less_often_and_misses_no_frame():
    run, runtime = build(WatchQuery("slow", "is there a car?", every_s=3.0))
    await watch_stream(run, ScriptedSource(seconds(9)), runtime)
    assert [context.segments[-1].pts_s[-1] for context, _ in runtime.mllm.asked] == [0.5, 2.5, 5.5, 8.5]
    assert runtime.mllm.asked[-1][0].segments == run.context.segments[: len(runtime.mllm.asked[-1][0].segments)]
    assert sum(runtime.mllm.sent) == sum(segment.tokens for segment in runtime.mllm.asked[-1][0].segments)
    assert run.counts.spent == sum(runtime.mllm.sent)


async def test_a_stream_that_cannot_keep_up_steps_down_in_the_open_and_comes_back():
    mllm = ScriptedMLLM()
    mllm.failures = [MLLMOverloaded("the queue is full", sent=False)] * 6
    queries = tuple(WatchQuery(f"w{i}", f"is there a thing {i}?") for i in range(8))
    run, runtime = build(*queries, mllm=mllm, rate=Rate(100, 1000))
    await watch_stream(run, ScriptedSource(seconds(60), live=False), runtime)
    steps = [(event.type, event.data["name"]) for event in runtime.outbox.events if event.type.startswith("stream.")]
    assert steps == [
        ("stream.degraded", "fewer_askings"),
        ("stream.degraded", "smaller_grants"),
        ("stream.restored", "fewer_askings"),
        ("stream.restored", "normal"),
    ]
    assert {len(ids) for _, ids in mllm.asked} == {5, 8}
    ids = [event.id for event in runtime.outbox.events]
    assert len(set(ids)) == len(ids)


async def test_a_doubtful_answer_gets_one_second_look_that_is_paid_and_said():
    class Closer(ScriptedMLLM):
        async def ask(self, context, queries, limit=None, aside=()):
            answers = await super().ask(context, queries, limit, aside)
            if not aside:
                return answers
            assert sum(one.tokens for one in aside) == limit
            return replace(answers, answers=tuple(replace(one, score=0.9) for one in answers.answers))

    mllm = Closer(lambda context, query: 0.5 if query.id == "car" else 0.1)
    run, runtime = build(CAR, VAN, mllm=mllm, rate=Rate(100, 400))
    run.ring = PictureRing(112)
    await watch_stream(run, ScriptedSource(seconds(4)), runtime)
    opened = [event for event in runtime.outbox.events if event.type == "watch.opened"]
    assert [(event.watch_id, event.data["relooked"]) for event in opened] == [("car", True)]
    assert all(ids == ("car",) and sum(one.tokens for one in aside) <= 112 for ids, aside in mllm.looks)
    assert 1 <= run.counts.relooked == len(mllm.looks) <= 4
    assert run.counts.spent <= 100 * 4 + 400


async def test_a_second_look_reaches_back_to_frames_of_earlier_hops():
    class Remembering(ScriptedMLLM):
        async def ask(self, context, queries, limit=None, aside=()):
            if aside:
                looks.append((context.segments[-1].pts_s[-1], [one.pts_s[-1] for one in aside]))
                assert all(one.pts_s[0] >= context.anchor_s for one in aside)
            return await super().ask(context, queries, limit, aside)

    looks = []
    run, runtime = build(CAR, mllm=Remembering(lambda context, query: 0.5), allocator=ScriptedAllocator(RULES, 0.25))
    run.ring = PictureRing(tokens=336, most=6)
    await watch_stream(run, ScriptedSource(seconds(8)), runtime)
    assert looks[0] == (0.5, [0.0, 0.5])
    assert looks[1:] == [(second + 0.5, [second - 0.5, second, second + 0.5]) for second in range(1, 8)]
    assert len(run.ring.frames) == 6


async def test_a_second_look_that_fails_leaves_the_first_answers():
    class Blind(ScriptedMLLM):
        async def ask(self, context, queries, limit=None, aside=()):
            if aside:
                raise MLLMTimeout("too late")
            return await super().ask(context, queries, limit)

    run, runtime = build(CAR, mllm=Blind(lambda context, query: 0.5), rate=Rate(100, 400))
    run.ring = PictureRing(112)
    await watch_stream(run, ScriptedSource(seconds(3)), runtime)
    assert (run.counts.answers, run.counts.skipped, run.counts.relooked) == (3, 0, 0)


async def test_a_watch_added_at_run_time_says_that_it_is_warming():
    run, runtime = build(CAR)
    await watch_stream(run, ScriptedSource(seconds(3)), runtime)
    runtime.watches.queries = (CAR, VAN)
    await watch_stream(run, ScriptedSource(seconds(1, start=3)), runtime)
    opened = {event.watch_id: event.data for event in runtime.outbox.events if event.type == "watch.opened"}
    assert opened["van"]["warming"] is True
    assert "warming" not in opened["car"]
