import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby

import pytest

from pipeline.clock import SystemClock
from pipeline.config.sinks import KafkaSecurity
from pipeline.core.outcome import Decision
from pipeline.delivery.outbox import Outbox
from pipeline.delivery.relay import Relay
from pipeline.delivery.store import Store
from pipeline.errors import SinkUnavailable
from pipeline.sinks.cloudevents import from_kafka
from pipeline.sinks.kafka import KafkaSink
from pipeline.sinks.renewed import RenewedSink
from pipeline.tracing.deliveries import TracedSink
from pipeline.types import Event
from tests.live import broker
from tests.otlp import require_otel

TIME = datetime(2026, 1, 1, tzinfo=UTC)
STREAMS = tuple(f"cam{k}" for k in range(5))


def event(n, stream="gate", **data):
    return Event(f"{stream}-{n}", "watch.opened", stream, TIME, {"n": n, **data}, "fire")


def first_arrivals(events):
    """Numbers by stream, in the order in which each event was first seen."""
    seen = {}
    for item in events:
        seen.setdefault(item.stream_id, {}).setdefault(item.data["n"])
    return {stream: list(numbers) for stream, numbers in seen.items()}


class House:
    """Streams that commit without end, through outbox and relay to a topic."""

    def __init__(self, folder, topic):
        clock = SystemClock()
        self.store = Store(str(folder / "store.db"), clock)
        self.sink = KafkaSink(broker.bootstrap_servers(), topic, connect_s=1.0, deliver_s=3.0)
        self.relay = Relay(self.store, [self.sink], clock, batch=16)
        self.outbox = Outbox(self.store, clock, self.relay.wake)
        self.committed = dict.fromkeys(STREAMS, 0)
        self.running = True

    async def stream(self, name):
        while self.running:
            n = self.committed[name]
            await self.outbox.commit(Decision(name, "{}", (event(n, name),), float(n)))
            self.committed[name] += 1
            await asyncio.sleep(0.02)

    async def finish(self, streams):
        self.running = False
        await asyncio.gather(*streams)
        left = await self.relay.drain(40)
        await self.outbox.close()
        await self.relay.close()
        self.store.close()
        return left

    async def start(self):
        await self.relay.start()
        return [asyncio.create_task(self.stream(name)) for name in STREAMS]


@pytest.fixture
def short_retries(monkeypatch):
    monkeypatch.setattr("pipeline.delivery.relay.RETRY_S", (0.1, 1.0))


def assert_complete(runtime, topic):
    total = sum(runtime.committed.values())
    arrived = first_arrivals(broker.events(topic, total))
    assert arrived == {name: list(range(count)) for name, count in runtime.committed.items()}


@pytest.mark.parametrize(
    "outage", [("kill", "start"), ("stop", "start"), ("pause", "resume")], ids=lambda pair: pair[0]
)
async def test_every_event_arrives_in_order_when_the_broker_goes_away_for_a_while(tmp_path, short_retries, outage):
    topic = broker.new_topic()
    runtime = House(tmp_path, topic)
    streams = await runtime.start()
    await asyncio.sleep(1)
    with_broker = broker.interrupted(*outage)
    await asyncio.to_thread(with_broker.__enter__)
    try:
        await asyncio.sleep(5)
    finally:
        await asyncio.to_thread(with_broker.__exit__, None, None, None)
    await asyncio.sleep(1)
    assert await runtime.finish(streams) == {runtime.sink.name: 0}
    assert runtime.relay.counts[runtime.sink.name].failures > 0
    assert_complete(runtime, topic)


async def test_events_decided_before_the_broker_is_there_arrive_in_order(tmp_path, short_retries):
    topic = broker.new_topic()
    with_broker = broker.interrupted("stop", "start")
    await asyncio.to_thread(with_broker.__enter__)
    try:
        runtime = House(tmp_path, topic)
        streams = await runtime.start()
        await asyncio.sleep(2.5)
        assert runtime.relay.counts[runtime.sink.name].failures > 0
        assert runtime.relay.counts[runtime.sink.name].published == 0
        assert sum(runtime.committed.values()) > 50
    finally:
        await asyncio.to_thread(with_broker.__exit__, None, None, None)
    assert await runtime.finish(streams) == {runtime.sink.name: 0}
    assert_complete(runtime, topic)


async def test_waiting_for_an_absent_broker_does_not_hold_up_the_event_loop():
    broker.bootstrap_servers()
    sink = KafkaSink("127.0.0.1:1", "events", connect_s=1.0)
    publishing = asyncio.create_task(sink.publish([event(1)]))
    longest = 0.0
    while not publishing.done():
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - began)
    with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:1 cannot be reached.*REFUSED"):
        await publishing
    assert longest < 0.5
    await sink.close()


async def test_a_streams_events_share_a_partition_and_all_stay_in_order():
    topic = broker.new_topic(partitions=3)
    sink = KafkaSink(broker.bootstrap_servers(), topic)
    batch = [event(n, name) for n in range(50) for name in STREAMS]
    await sink.publish(batch)
    await sink.close()
    found = broker.records(topic, len(batch))
    partitions = {key: {record.partition for record in group} for key, group in groupby(found, lambda r: r.key)}
    assert all(len(used) == 1 for used in partitions.values())
    assert first_arrivals(broker.events(topic, len(batch))) == {name: list(range(50)) for name in STREAMS}
    assert len(found) == len(batch)


async def test_an_event_too_large_for_the_broker_goes_out_reduced_and_in_its_place():
    topic = broker.new_topic(**{"max.message.bytes": "100000"})
    sink = KafkaSink(broker.bootstrap_servers(), topic)
    await sink.publish([event(1), event(2, text="x" * 200_000, score=0.9), event(3), event(4, text="x" * 20_000_000)])
    await sink.publish([event(5)])
    await sink.close()
    found = broker.events(topic, 5)
    assert [item.id for item in found] == [f"gate-{n}" for n in range(1, 6)]
    assert found[1].data["score"] == 0.9
    assert found[1].data["reduced_from_bytes"] > 200_000
    assert "text" not in found[1].data
    assert sink.reduced == 2


async def test_a_batch_larger_than_the_broker_takes_at_a_time_arrives_whole_and_in_order():
    topic = broker.new_topic(partitions=1, **{"max.message.bytes": "20000"})
    sink = KafkaSink(broker.bootstrap_servers(), topic)
    await sink.publish([event(n, text="x" * 1000) for n in range(200)])
    await sink.close()
    assert first_arrivals(broker.events(topic, 200)) == {"gate": list(range(200))}


async def test_compressed_events_arrive_the_same():
    topic = broker.new_topic()
    sink = KafkaSink(broker.bootstrap_servers(), topic, compression="gzip")
    batch = [event(n, text="火 " * 500) for n in range(20)]
    await sink.publish(batch)
    await sink.close()
    assert broker.events(topic, 20) == batch


async def test_a_missing_topic_is_named_where_the_broker_creates_none():
    sink = KafkaSink(broker.strict_bootstrap_servers(), "no-such-topic", connect_s=1.5)
    for attempt in (sink.publish([event(1)]), sink.check()):
        with pytest.raises(SinkUnavailable, match=r"no-such-topic.*does not exist"):
            await attempt
    await sink.close()


def login(secure, **changes):
    values = {
        "protocol": "SASL_SSL",
        "mechanism": "PLAIN",
        "username": secure.username,
        "password": secure.password,
        "ca_file": secure.ca_file,
    }
    return KafkaSecurity(**(values | changes))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_secure_listener_takes_events_from_the_right_user(mechanism):
    secure = broker.secure()
    topic = broker.new_topic()
    sink = KafkaSink(secure.bootstrap, topic, security=login(secure, mechanism=mechanism))
    assert "3 partitions" in await sink.check()
    await sink.publish([event(1)])
    await sink.close()
    assert broker.events(topic, 1) == [event(1)]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_told_apart_and_never_shown(mechanism):
    secure = broker.secure()
    security = login(secure, mechanism=mechanism, password="hunter2-wrong")
    assert "hunter2" not in repr(security)
    sink = KafkaSink(secure.bootstrap, "events", security=security, connect_s=2.0)
    with pytest.raises(SinkUnavailable, match="user name or password") as caught:
        await sink.publish([event(1)])
    assert "hunter2" not in str(caught.value)
    await sink.close()


async def test_an_unknown_certificate_is_told_apart():
    secure = broker.secure()
    sink = KafkaSink(secure.bootstrap, "events", security=login(secure, ca_file=None), connect_s=2.0)
    with pytest.raises(SinkUnavailable, match=r"TLS failed.*certificate"):
        await sink.check()
    await sink.close()


async def test_speaking_plain_to_a_secure_listener_is_told_apart():
    sink = KafkaSink(broker.secure().bootstrap, "events", connect_s=2.0)
    with pytest.raises(SinkUnavailable, match=r"check security\.protocol"):
        await sink.check()
    await sink.close()


async def test_a_traced_event_names_its_trace_in_kafka_and_its_delivery_the_offset():
    require_otel()
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from pipeline.tracing.otel import OtelSpans

    topic, memory = broker.new_topic(), InMemorySpanExporter()
    spans = OtelSpans("", {}, SystemClock(), exporter=memory)
    hop = spans.begin("hop", 1)
    hop.end(2, {})
    traced = [replace(event(n, f"cam{n}"), trace=hop.context if n % 2 else None) for n in range(6)]
    make = partial(KafkaSink, broker.bootstrap_servers(), topic)
    sink = TracedSink(RenewedSink(lambda: None, lambda _: make()), spans, SystemClock())
    await sink.publish(traced)
    await sink.close()
    await spans.close()

    found = {from_kafka(one.headers, one.value).id: one for one in broker.records(topic, 6)}
    delivered = {one.attributes["cloudevents.event_id"]: one for one in memory.get_finished_spans()[1:]}
    assert delivered.keys() == {one.id for one in traced if one.trace}
    for one in traced:
        headers = {name: value.decode() for name, value in found[one.id].headers}
        assert headers.get("traceparent") == headers.get("ce_traceparent") == (one.trace and one.trace.parent)
        if one.trace:
            span = delivered[one.id]
            assert f"{span.context.trace_id:032x}" == one.trace.parent.split("-")[1]
            assert span.attributes["messaging.destination.name"] == topic
            assert span.attributes["messaging.destination.partition.id"] == str(found[one.id].partition)
            assert span.attributes["messaging.kafka.offset"] == found[one.id].offset
