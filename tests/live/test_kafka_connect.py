"""What is relied on of kafka-python beyond its documented interface, against a real broker."""

import asyncio
import socket
import threading
from contextlib import closing, suppress
from datetime import UTC, datetime

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from structlog.testing import capture_logs

from pipeline.errors import SinkUnavailable
from pipeline.sinks.kafka import KafkaSink
from pipeline.types import Event
from tests.live import broker

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def event(n, **data):
    return Event(f"gate-{n}", "watch.opened", "gate", TIME, {"n": n, **data}, "fire")


def numbers(topic, count):
    return [item.data["n"] for item in broker.events(topic, count, 15)]


def does_not_resolve(monkeypatch, unknown):
    resolve = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **more):
        if host == unknown:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *arguments, **more)

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)


async def test_the_address_that_a_cluster_sends_its_clients_on_to_is_in_the_error(monkeypatch):
    host, _, port = broker.bootstrap_servers().rpartition(":")
    topic = broker.new_topic()
    does_not_resolve(monkeypatch, host)
    sink = KafkaSink(f"localhost:{port}", topic, connect_s=10)
    with pytest.raises(SinkUnavailable, match=rf"localhost:{port} answers.* to {host}:{port}.*resolve.*advertised"):
        await sink.publish([event(1)])
    await sink.close()


async def test_a_bootstrap_name_that_does_not_resolve_is_in_the_error_and_another_one_serves(monkeypatch):
    does_not_resolve(monkeypatch, "kafka.invalid")
    lonely = KafkaSink("kafka.invalid:9092", "events", connect_s=2)
    with pytest.raises(SinkUnavailable, match=r"name kafka\.invalid does not resolve"):
        await lonely.check()
    topic = broker.new_topic()
    sink = KafkaSink(f"kafka.invalid:9092,{broker.bootstrap_servers()}", topic, connect_s=10)
    await sink.publish([event(1)])
    await asyncio.gather(lonely.close(), sink.close())
    assert numbers(topic, 1) == [1]


async def test_a_server_that_accepts_and_never_answers_is_told_apart():
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        sink = KafkaSink(address, "events", connect_s=1.0)
        with pytest.raises(SinkUnavailable, match=rf"{address} cannot be reached: no answer in time"):
            await sink.publish([event(1)])
        await sink.close()


async def test_a_batch_to_a_broker_that_hangs_fails_as_a_whole_and_in_one_deadline():
    topic = broker.new_topic(partitions=1)
    sink = KafkaSink(broker.bootstrap_servers(), topic, deliver_s=2.0, batch_s=3.0)
    await sink.publish([event(0)])
    paused = broker.interrupted("pause", "resume")
    await asyncio.to_thread(paused.__enter__)
    try:
        async with asyncio.timeout(30):  # 96 events with a second each to settle would take longer
            with pytest.raises(SinkUnavailable, match=r"in time|did not"):
                await sink.publish([event(n, text="x" * 20_000) for n in range(1, 97)])
    finally:
        await asyncio.to_thread(paused.__exit__, None, None, None)
    await sink.publish([event(n) for n in range(1, 97)])
    await sink.close()
    assert sorted(set(numbers(topic, 97))) == list(range(97))


async def test_closing_while_a_wave_hangs_ends_the_clients_thread_and_sends_nothing_later():
    topic = broker.new_topic(partitions=1)
    before = set(threading.enumerate())
    sink = KafkaSink(broker.bootstrap_servers(), topic, deliver_s=20.0)
    await sink.publish([event(0)])
    paused = broker.interrupted("pause", "resume")
    await asyncio.to_thread(paused.__enter__)
    try:
        publishing = asyncio.create_task(sink.publish([event(1)]))
        await asyncio.sleep(1.5)
        async with asyncio.timeout(15):
            await sink.close()
            with pytest.raises(SinkUnavailable):
                await publishing
        later = [t for t in set(threading.enumerate()) - before if t.name.startswith("resadapt")]
        assert later == []
    finally:
        await asyncio.to_thread(paused.__exit__, None, None, None)
    assert numbers(topic, 1)[0] == 0


async def test_a_topic_that_is_deleted_and_created_anew_is_logged(monkeypatch):
    # The broker takes an event for the new topic without an error where both happened between two batches.
    monkeypatch.setattr("pipeline.sinks.kafka.METADATA_AGE_S", 0.5)
    topic = broker.new_topic(partitions=1)
    sink = KafkaSink(broker.bootstrap_servers(), topic)
    await sink.publish([event(0)])
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers())
    admin.delete_topics([topic])
    admin.create_topics([NewTopic(topic, 1, 1)])
    admin.close()
    with capture_logs() as logs:
        for n in range(1, 100):
            with suppress(SinkUnavailable):
                await sink.publish([event(n)])
            await asyncio.sleep(0.2)
            if any(entry["event"] == "topic_created_anew" for entry in logs):
                break
    await sink.close()
    assert [entry["topic"] for entry in logs if entry["event"] == "topic_created_anew"] == [topic]
