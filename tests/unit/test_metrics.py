from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from allocator_engine.fit import Allocation, SegmentSize
from pipeline.core.context import Context, ContextRules
from pipeline.core.hops import HopRules
from pipeline.core.judge import WatchState
from pipeline.core.ladder import FEWER_ASKINGS, Ladder
from pipeline.core.outcome import HopReply, Outcome
from pipeline.core.state import StreamRun, StreamState
from pipeline.core.watches import Warming
from pipeline.metrics import Metrics
from pipeline.mllm.counters import Counters
from pipeline.mllm.kept import Kept, KeptPrefixes
from pipeline.sources.base import SourceCounts
from pipeline.types import Answer, Answers, Event, Hop, Segment, Usage, WatchQuery

CAR, VAN = WatchQuery("car", "is there a car?"), WatchQuery("van", "is there a van?")
HOP = Hop("gate", 4.0, 5.0, (), lost=1)
USAGE = Usage(encoded_tokens=20, prefilled_tokens=50, cached_tokens=150, seconds=0.7, queued_s=0.2, first_answer_s=0.3)
ANSWERS = (Answer("car", 0.9, 1.0), Answer("van", 0.5, 0.1, warming=True))
OUTCOME = Outcome(
    HOP,
    HOP,
    30,
    Allocation((SegmentSize((0,), 64, 96, 6),)),
    False,
    HopReply(Answers(ANSWERS, USAGE), 26),
    0.8,
    "pressure",
)


def run_of(stream_id: str = "gate", *queries: WatchQuery) -> StreamRun:
    run = StreamRun(stream_id, HopRules(), Context.empty(stream_id, ContextRules()))
    run.context = run.context.append([Segment((4.0,), np.zeros((1, 64, 96, 3), np.uint8), 6, "a")])
    run.warming = Warming().join(queries or (CAR, VAN), HOP)
    run.state = StreamState({CAR.key: WatchState(is_open=True)})
    run.ladder = Ladder(FEWER_ASKINGS)
    return run


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"resadapt_{name}", labels)


def write(metrics: Metrics, run: StreamRun, outcome: Outcome = OUTCOME) -> None:
    event = Event("id", "watch.opened", run.stream_id, datetime.now(UTC), {}, "car")
    metrics.hop(outcome, run, SourceCounts(), [event], 0.9)


@pytest.mark.parametrize(
    ("what", "tokens"),
    [("granted", 30), ("allocated", 6), ("spent", 26), ("encoded", 20), ("prefilled", 50), ("cached", 150)],
)
def test_tokens_are_counted_for_each_stream(metrics: Metrics, what: str, tokens: int) -> None:
    write(metrics, run_of("gate"))
    write(metrics, run_of("gate"))
    write(metrics, run_of("dock"))
    assert value(metrics, f"tokens_{what}_total", stream="gate") == 2 * tokens
    assert value(metrics, f"tokens_{what}_total", stream="dock") == tokens


@pytest.mark.parametrize(("what", "tokens"), [("granted", 30), ("encoded", 20), ("prefilled", 50), ("cached", 150)])
def test_tokens_are_counted_for_the_gpu(metrics: Metrics, what: str, tokens: int) -> None:
    write(metrics, run_of("gate"))
    write(metrics, run_of("dock"))
    assert value(metrics, "mllm_tokens_total", what=what) == 2 * tokens


def test_of_the_context_its_size_its_restarts_and_what_was_found_of_it_are_told(metrics: Metrics) -> None:
    write(metrics, run_of())
    assert value(metrics, "context_tokens", stream="gate") == 6
    assert value(metrics, "prefix_hit_ratio", stream="gate") == 0.75
    assert value(metrics, "context_reanchors_total", stream="gate", reason="pressure") == 1
    write(metrics, run_of(), replace(OUTCOME, reanchored=None))
    assert value(metrics, "context_reanchors_total", stream="gate", reason="pressure") == 1


def test_of_an_asking_its_wait_its_first_answer_and_its_whole_time_are_told(metrics: Metrics) -> None:
    write(metrics, run_of())
    for name, seconds in (("queue", 0.2), ("first_answer", 0.3)):
        assert value(metrics, f"mllm_{name}_seconds_sum") == seconds
    assert value(metrics, "mllm_seconds_sum") == 0.7
    assert value(metrics, "hop_seconds_sum", stream="gate") == 0.9
    assert metrics.mllm_worked_s() == pytest.approx(0.5)


def test_a_skipped_hop_is_told_by_its_reason_and_tells_no_time_of_the_mllm(metrics: Metrics) -> None:
    write(metrics, run_of(), replace(OUTCOME, reply=HopReply(Answers(), 0, "MLLMTimeout")))
    assert value(metrics, "hops_skipped_total", stream="gate", reason="MLLMTimeout") == 1
    assert value(metrics, "mllm_seconds_count") == 0
    assert value(metrics, "prefix_hit_ratio", stream="gate") is None


def test_a_step_of_the_ladder_and_lost_frames_are_told(metrics: Metrics) -> None:
    write(metrics, run_of())
    assert value(metrics, "ladder_step", stream="gate") == FEWER_ASKINGS
    assert value(metrics, "frames_lost_total", stream="gate") == 1


def test_events_are_counted_by_type_stream_and_watch(metrics: Metrics) -> None:
    write(metrics, run_of("gate"))
    write(metrics, run_of("dock"))
    metrics.event(Event("other", "stream.lost", "dock", datetime.now(UTC), {}))
    assert value(metrics, "events_total", type="watch.opened", stream="gate", watch="car") == 1
    assert value(metrics, "events_total", type="watch.opened", stream="dock", watch="car") == 1
    assert value(metrics, "events_total", type="stream.lost", stream="dock", watch="") == 1


def test_a_watch_has_series_for_as_long_as_it_stands(metrics: Metrics) -> None:
    write(metrics, run_of("gate", VAN))
    write(metrics, run_of())
    assert value(metrics, "watch_open", stream="gate", watch="car") == 1
    assert value(metrics, "watch_open", stream="gate", watch="van") == 0
    assert value(metrics, "watch_warming", stream="gate", watch="van") == 1
    write(metrics, run_of("gate", CAR), replace(OUTCOME, reply=HopReply(Answers(ANSWERS[:1], USAGE), 26)))
    assert value(metrics, "watch_open", stream="gate", watch="car") == 1
    assert value(metrics, "watch_open", stream="gate", watch="van") is None
    assert value(metrics, "watch_warming", stream="gate", watch="van") is None


def test_of_a_detached_stream_nothing_stays(metrics: Metrics) -> None:
    write(metrics, run_of("gate"))
    write(metrics, run_of("dock"))
    metrics.forget("gate")
    metrics.forget("never seen")
    left = {
        sample.labels["stream"]
        for one in metrics.registry.collect()
        for sample in one.samples
        if "stream" in sample.labels
    }
    assert left == {"dock"}


def test_the_troubles_of_the_mllm_are_read_when_somebody_looks(metrics: Metrics) -> None:
    counters = Counters(refused=1, evicted=2)
    kept: KeptPrefixes[None] = KeptPrefixes(max_streams=1, max_tokens=100)
    metrics.watch_mllm(lambda: counters.with_kept(kept))
    for stream in ("gate", "dock"):
        kept.put(stream, Kept(0, 0.0, (), 10, None))
    counters.timed_out += 4
    found = {what: value(metrics, "mllm_trouble_total", what=what) for what in counters.with_kept(kept)}
    assert found == {
        **{"refused": 1, "timed_out": 4, "evicted": 3, "stale": 0},
        **{"out_of_memory": 0, "resent": 0, "retried": 0, "died": 0, "too_large": 0, "moved": 0},
    }
