"""Traces from a hop to where its events lie: in the loop, in a service, and by a receiver that is away."""

import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from pipeline.clock import SystemClock
from pipeline.config.tracing import TracingConfig
from pipeline.core.cropping import with_crop
from pipeline.core.relook import PictureRing
from pipeline.errors import AllocationFailed, ConfigError, MLLMTimeout, SinkUnavailable
from pipeline.loop import watch_stream
from pipeline.service.service import Service
from pipeline.service.tracing import ServiceTraces
from pipeline.testing import ManualClock, MemorySink, ScriptedAllocator, ScriptedMLLM, ScriptedSource
from pipeline.tracing.deliveries import TracedSink
from pipeline.types import TraceContext, Zone
from tests.flow.test_loop import CAR, RULES, VAN, build, seconds
from tests.flow.test_service import run_to_the_end, site_of
from tests.otlp import Receiver, receiving, require_otel
from tests.unit.test_store import event

LEFT = Zone("left", ((0.0, 0.0), (0.4, 0.0), (0.4, 1.0), (0.0, 1.0)))
STAGES = {"allocate", "render", "ask", "judge", "commit"}
USE = "openai:http://user:hush@mllm.example/v1#Qwen/Qwen3-VL"


@pytest.fixture
def kept():
    """Spans of the SDK that stay in memory: what takes them, and a call that gives them."""
    require_otel()
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from pipeline.tracing.otel import OtelSpans

    memory = InMemorySpanExporter()
    spans = OtelSpans("", {}, SystemClock(), exporter=memory)

    async def found():
        await spans.close()
        return memory.get_finished_spans()

    return spans, found


async def traced(spans, run, runtime, count, share=1.0, draw=lambda: 0.5):
    runtime = ServiceTraces(spans, runtime.clock, USE, share, draw).runtime(runtime)
    await watch_stream(run, ScriptedSource(seconds(count)), runtime)


def below(spans, parent):
    return [one for one in spans if one.parent and one.parent.span_id == parent.context.span_id]


@pytest.mark.parametrize("queries", [(CAR, VAN), with_crop([replace(CAR, zone=LEFT)])])
async def test_a_hop_is_one_trace_with_its_stages_in_order(kept, queries):
    spans, found = kept
    run, runtime = build(*queries)
    await traced(spans, run, runtime, 3)

    all_spans = await found()
    hops = [one for one in all_spans if one.name == "hop"]
    assert [one.attributes["resadapt.hop.end_s"] for one in hops] == [1.0, 2.0, 3.0]
    assert len({one.context.trace_id for one in hops}) == 3
    for hop in hops:
        stages = below(all_spans, hop)
        assert [one.name for one in stages] == ["allocate", "render", "ask", "judge", "commit"]
        for one in stages:
            assert one.context.trace_id == hop.context.trace_id
            assert hop.start_time <= one.start_time <= one.end_time <= hop.end_time


async def test_an_ask_speaks_the_words_of_the_conventions_and_repeats_no_question(kept):
    spans, found = kept
    run, runtime = build(CAR, VAN)
    await traced(spans, run, runtime, 1)

    all_spans = await found()
    (ask,) = [one for one in all_spans if one.name == "ask"]
    told = dict(ask.attributes)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "openai"
    assert told["gen_ai.request.model"] == "Qwen/Qwen3-VL"
    usage = runtime.metrics.value("tokens_prefilled_total", stream="yard")
    assert told["gen_ai.usage.input_tokens"] == usage > 0
    assert told["gen_ai.usage.output_tokens"] == 0  # the null MLLM says nothing
    assert told["resadapt.questions"] == 2
    everything = repr([(one.name, dict(one.attributes)) for one in all_spans])
    assert "hush" not in everything
    assert CAR.question not in everything


async def test_each_call_of_the_mllm_is_a_span_a_second_look_and_a_failed_one_too(kept):
    spans, found = kept
    mllm = ScriptedMLLM(lambda context, query: 0.5)
    mllm.failures = [None, None, MLLMTimeout("too late")]
    run, runtime = build(CAR, mllm=mllm, allocator=ScriptedAllocator(RULES, 0.25))
    run.ring = PictureRing(tokens=336, most=6)
    await traced(spans, run, runtime, 2)

    all_spans = await found()
    asks = [one for one in all_spans if one.name == "ask"]
    assert [one.attributes["resadapt.ask"] for one in asks] == ["watches", "second look", "watches"]
    assert [one.attributes.get("error.type") for one in asks] == [None, None, "MLLMTimeout"]
    assert [one.status.is_ok for one in asks] == [True, True, False]
    skipped = [one.attributes.get("resadapt.skipped") for one in all_spans if one.name == "hop"]
    assert skipped == [None, "MLLMTimeout"]


async def test_an_allocation_that_failed_is_seen_and_the_hop_goes_on(kept):
    spans, found = kept
    allocator = ScriptedAllocator(RULES)
    allocator.failures = [AllocationFailed("no engine")]
    run, runtime = build(CAR, allocator=allocator)
    await traced(spans, run, runtime, 1)
    names = {one.name: one for one in await found()}
    assert names["allocate"].attributes["error.type"] == "AllocationFailed"
    assert names["hop"].status.is_ok
    assert set(names) == STAGES | {"hop"}


@pytest.mark.parametrize(("share", "hops"), [(0.0, 0), (0.25, 5), (1.0, 20)])
async def test_hops_are_sampled_each_for_itself_and_decide_the_same(kept, share, hops):
    numbers = iter([0.1, 0.3, 0.6, 0.9] * 5)
    spans, found = kept
    run, runtime = build(CAR)
    await traced(spans, run, runtime, 20, share, lambda: next(numbers))
    plain_run, plain = build(CAR)
    await watch_stream(plain_run, ScriptedSource(seconds(20)), plain)
    assert len([one for one in await found() if one.name == "hop"]) == hops
    assert runtime.outbox.decisions == plain.outbox.decisions
    named = [event for event in runtime.outbox.events if event.trace]
    assert bool(named) == (share > 0)


async def test_the_events_of_a_traced_hop_name_it_and_those_beside_hops_name_none(tmp_path):
    with receiving() as receiver:
        site = site_of(tmp_path, {"gate": "synthetic:?seconds=12&width=160&height=96&fps=4"}, tracing=to(receiver))
        sink = await run_to_the_end(site)
    hops = {f"{one.trace}-{one.id}" for one in receiver.named("hop")}
    assert len(hops) == 12
    for one in sink.events:
        assert (one.trace is not None) == one.type.startswith("watch.")
        assert one.trace is None or one.trace.parent[3:-3] in hops


def to(receiver: Receiver, **more: object) -> dict[str, object]:
    return {"endpoint": receiver.url, "sample": 1, **more}


async def test_a_trace_leads_from_its_hop_to_the_sink_by_way_of_a_restart(tmp_path, monkeypatch):
    """The events wait in the store when the first service ends; another one delivers them, in the same traces."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "north-yard")
    monkeypatch.setenv("CAMERA_OTLP", "hush-hush")
    away = {"journal": {"url": "http://127.0.0.1:9/events", "signed": False}}
    there = {"journal": f"jsonl:{tmp_path / 'events.jsonl'}"}
    streams = {"gate": "synthetic:?seconds=12&width=160&height=96&fps=4"}
    with receiving() as receiver:
        tracing = to(receiver, headers={"authorization": "Bearer ${CAMERA_OTLP}"})
        await run_to_the_end(site_of(tmp_path, streams, tracing=tracing, sinks=away, drain_s=0.2))
        assert receiver.named("deliver") == []
        hops = {one.trace: one for one in receiver.named("hop")}
        await run_to_the_end(site_of(tmp_path, streams, tracing=tracing, sinks=there))
    delivered = receiver.named("deliver")
    assert len(delivered) == 2
    for one in delivered:
        assert one.parent == hops[one.trace].id
        assert one.attributes["resadapt.sink"] == "journal"
        assert one.attributes["cloudevents.event_type"] in (
            "io.github.resadapt_stream.watch.opened",
            "io.github.resadapt_stream.watch.cleared",
        )
    assert receiver.resource["service.name"] == "north-yard"
    assert set(receiver.paths) == {"/v1/traces"}
    assert {one["authorization"] for one in receiver.headers} == {"Bearer hush-hush"}


async def test_a_receiver_that_is_away_costs_no_hop_and_what_it_missed_is_counted(tmp_path, monkeypatch):
    require_otel()
    monkeypatch.setattr("pipeline.tracing.otel.CLOSE_S", 0.1)
    tracing = {"endpoint": "http://127.0.0.1:9", "sample": 1}
    site = site_of(tmp_path, {"gate": "synthetic:?seconds=12&width=160&height=96&fps=4"}, tracing=tracing)
    sink = MemorySink("memory")
    async with Service(site, SystemClock(), [sink], insist=False) as service:
        await service.finished()
        assert service.metrics.value("hops_total", stream="gate") == 12
    assert [one.type for one in sink.events][-1] == "stream.ended"
    assert service.metrics.value("trace_spans_sent") == 0


async def test_spans_for_which_the_queue_has_no_room_are_dropped_and_counted(monkeypatch):
    require_otel()
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from pipeline.tracing.otel import OtelSpans

    class Held(InMemorySpanExporter):
        def export(self, spans):
            released.wait(30)
            return super().export(spans)

    monkeypatch.setattr("pipeline.tracing.otel.QUEUE_SPANS", 8)
    monkeypatch.setattr("pipeline.tracing.otel.BATCH_SPANS", 8)
    released, memory = threading.Event(), Held()
    spans = OtelSpans("", {}, SystemClock(), exporter=memory)
    for number in range(1, 31):
        spans.begin("hop", number).end(number + 1, {})
    assert 30 - spans.counts.dropped in range(8, 17)  # what is being sent, and what waits
    released.set()
    await spans.close()
    assert spans.counts.sent == len(memory.get_finished_spans()) == 30 - spans.counts.dropped


async def test_a_receiver_that_refuses_is_logged_once_without_its_password():
    with receiving() as receiver, capture_logs() as logs:
        from pipeline.tracing.otel import OtelSpans

        receiver.status = 400
        address = TracingConfig(receiver.url.replace("//", "//user:hush@")).address()
        spans = OtelSpans(address, {}, SystemClock())
        for number in range(1, 6):
            spans.begin("hop", number).end(number + 1, {})
        await spans.close()
    assert (spans.counts.sent, spans.counts.dropped) == (0, 5)
    (line,) = [one for one in logs if one["event"] == "traces_not_sent"]
    assert "400" in line["reason"]
    assert "hush" not in repr(logs)


async def test_deliveries_count_their_tries_and_a_sink_that_knows_no_place_names_none(kept):
    spans, found = kept
    sink = MemorySink("memory")
    context = TraceContext("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "vendor=1")
    events = [replace(event("e-1"), trace=context), event("e-2")]
    one = TracedSink(sink, spans, ManualClock())
    sink.fail(1)
    with pytest.raises(SinkUnavailable):
        await one.publish(events)
    await one.publish(events)
    (delivered,) = await found()
    assert delivered.parent.span_id == 0xB7AD6B7169203331
    assert delivered.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert delivered.attributes["resadapt.tries"] == 2
    assert "messaging.system" not in delivered.attributes


def test_without_traces_their_packages_are_not_loaded():
    script = (
        "import sys, pipeline.cli.serve, pipeline.service.service\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'opentelemetry']"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


async def test_a_receiver_that_a_site_names_needs_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.build.find_spec", lambda package: None)
    site = site_of(tmp_path, {}, tracing={"endpoint": "http://collector:4318"})
    with pytest.raises(ConfigError, match=r"resadapt-stream\[otel\]"):
        await run_to_the_end(site)


async def test_a_receiver_that_only_the_environment_names_is_left_out_where_the_extra_is_absent(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.build.find_spec", lambda package: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    await run_to_the_end(site_of(tmp_path, {"gate": "synthetic:?seconds=2&width=160&height=96&fps=4"}))
