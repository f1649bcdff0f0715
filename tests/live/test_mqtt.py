"""The MQTT sink against a real mosquitto."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from pipeline.build import build_sink
from pipeline.clock import SystemClock
from pipeline.config.entries import parse_sink
from pipeline.core.outcome import Decision
from pipeline.delivery.relay import Relay
from pipeline.delivery.store import Store
from pipeline.errors import SinkUnavailable
from pipeline.sinks.base import AnnouncedWatch
from pipeline.sinks.cloudevents import decode
from pipeline.types import Event
from tests.flow.test_relay import until
from tests.live.mqtt_broker import Subscriber, cable, passwords, running

TIME = datetime(2026, 1, 1, tzinfo=UTC)
PASSWORD = "mqtt-hunter2"
FIRE = AnnouncedWatch("gate", "fire", "Main gate", "is there a fire?")


def event(n, kind="watch.opened", stream="gate", watch="fire", **data):
    return Event(f"{stream}-{n}", kind, stream, TIME, {"n": n, **data}, watch)


def sink_of(broker, name="plant", **settings):
    scheme = "mqtts" if broker.tls else "mqtt"
    own = {"url": f"{scheme}://127.0.0.1:{broker.port}/plant", **settings}
    return build_sink(name, parse_sink(name, own), SystemClock())


@pytest.fixture
def broker(tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    with running(folder) as found:
        yield found


async def arrived(subscriber, topic, payload):
    await until(lambda: payload in subscriber.of(topic), 15)


async def test_events_go_to_their_topics_and_states_are_kept(broker):
    sink = sink_of(broker)
    with Subscriber(broker) as subscriber:
        await sink.publish([event(1), event(2, "stream.lost", watch=None), event(3, "watch.cleared")])
        await until(lambda: len(subscriber.below("plant/events/")) == 3)
        await arrived(subscriber, "plant/state/gate/fire", b"OFF")
        assert subscriber.of("plant/state/gate/fire") == [b"ON", b"OFF"]
        topics = [topic for topic, _, _ in subscriber.messages if topic.startswith("plant/events/")]
        assert topics == [f"plant/events/gate/{kind}" for kind in ("watch.opened", "stream.lost", "watch.cleared")]
        assert decode(subscriber.of("plant/events/gate/watch.opened")[0]) == event(1)
    await sink.publish([event(4)])
    with Subscriber(broker) as later:
        await arrived(later, "plant/state/gate/fire", b"ON")
        assert later.below("plant/events/") == []
    await sink.close()


async def test_home_assistant_finds_each_watch_and_whether_the_service_is_there(broker):
    sink = sink_of(broker)
    with Subscriber(broker) as subscriber:
        sink.connect()
        sink.announce([FIRE, AnnouncedWatch("dock", "fire", "dock", "fire?", is_open=True)])
        await until(lambda: len(subscriber.below("homeassistant/binary_sensor/")) == 2)
        await arrived(subscriber, "plant/state/gate/fire", b"OFF")
        await arrived(subscriber, "plant/state/dock/fire", b"ON")
        found = [json.loads(payload) for payload in subscriber.below("homeassistant/")]
        (gate,) = [one for one in found if one["state_topic"] == "plant/state/gate/fire"]
        assert (gate["name"], gate["device"]["name"]) == ("is there a fire?", "Main gate")
        assert subscriber.of(gate["availability_topic"]) == [b"online"]
        assert len({one["unique_id"] for one in found}) == 2

        sink.announce([FIRE])
        await until(lambda: b"" in subscriber.below("homeassistant/binary_sensor/resadapt/dock-fire"))
        await sink.close()
        await arrived(subscriber, "plant/status", b"offline")
    with Subscriber(broker) as later:
        await arrived(later, "plant/status", b"offline")
        assert later.of("plant/state/dock/fire") == []


async def test_what_an_event_said_is_newer_than_what_was_announced(broker):
    sink = sink_of(broker)
    with Subscriber(broker) as subscriber:
        await sink.publish([event(1)])
        sink.announce([FIRE])
        await until(lambda: subscriber.below("homeassistant/"))
        await until(lambda: len(subscriber.of("plant/state/gate/fire")) == 2)
        assert subscriber.of("plant/state/gate/fire") == [b"ON", b"ON"]
    await sink.close()


async def test_a_service_that_dies_is_offline_by_its_last_will(broker):
    with Subscriber(broker) as subscriber:
        async with cable(broker) as (port, cut):
            sink = sink_of(broker, url=f"mqtt://127.0.0.1:{port}/plant")
            sink.connect()
            await arrived(subscriber, "plant/status", b"online")
            cut()
            await arrived(subscriber, "plant/status", b"offline")
            await until(lambda: subscriber.of("plant/status")[-1] == b"online")
            await sink.close()


@pytest.mark.parametrize("kill", [True, False])
async def test_a_broker_that_is_away_loses_nothing_and_order_is_kept(broker, tmp_path, monkeypatch, kill):
    monkeypatch.setattr("pipeline.delivery.relay.RETRY_S", (0.05, 0.5))
    store = Store(str(tmp_path / "store.db"), SystemClock())
    sink = sink_of(broker)
    relay = Relay(store, [sink], SystemClock(), batch=16)
    await relay.start()

    def commit(numbers):
        for n in numbers:
            store.commit([Decision("gate", f'{{"n": {n}}}', (event(n),), n)])
            relay.wake(1)

    commit(range(20))
    await until(lambda: relay.counts["plant"].published == 20, 20)
    await asyncio.to_thread(broker.stop, kill)
    commit(range(20, 60))
    await until(lambda: relay.counts["plant"].failures > 1, 20)
    assert "127.0.0.1" in relay.counts["plant"].last_error
    assert store.pending("plant") == 40
    await asyncio.to_thread(broker.start)
    with Subscriber(broker) as subscriber:
        assert await relay.drain(30) == {"plant": 0}
        await relay.close()
        await until(lambda: b'"id":"gate-59"' in b"".join(subscriber.below("plant/events/")))
        numbers = [decode(payload).data["n"] for payload in subscriber.below("plant/events/")]
    assert set(range(25, 60)) <= set(numbers)
    assert list(dict.fromkeys(numbers)) == sorted(set(numbers))
    store.close()


async def test_a_wrong_password_is_asked_again_after_minutes_and_shown_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MQTT_PASSWORD", f"wrong-{PASSWORD}")
    with running(tmp_path, *passwords(tmp_path, plant=PASSWORD)) as broker:
        sink = sink_of(broker, username="plant", password="${MQTT_PASSWORD}")
        for attempt in (sink.publish([event(1)]), sink.publish([event(1)]), sink.check()):
            with pytest.raises(SinkUnavailable, match="refuses the user name or password") as caught:
                await attempt
            assert 290 < caught.value.retry_after_s <= 300
            assert PASSWORD not in str(caught.value)
        for _ in range(100):
            if "not authorised" in (tmp_path / "mosquitto.log").read_text():
                break
            await asyncio.sleep(0.1)
        assert (tmp_path / "mosquitto.log").read_text().count("not authorised") == 1
        monkeypatch.setenv("MQTT_PASSWORD", PASSWORD)
        with pytest.raises(SinkUnavailable):
            await sink.publish([event(1)])
        await sink.publish([event(1)])  # the password was read again
        await sink.close()


async def test_without_a_login_where_one_is_needed_the_reason_says_so(tmp_path):
    with running(tmp_path, *passwords(tmp_path, plant=PASSWORD)) as broker:
        sink = sink_of(broker)
        with pytest.raises(SinkUnavailable, match="without a user name"):
            await sink.check()
        await sink.close()


async def test_a_topic_that_the_broker_refuses_keeps_the_event_waiting(tmp_path):
    (tmp_path / "acl").write_text("topic readwrite plant/status\ntopic readwrite plant/state/#\n")
    with running(tmp_path, "allow_anonymous true", f"acl_file {tmp_path}/acl") as broker:
        sink = sink_of(broker)
        with pytest.raises(SinkUnavailable, match=r"refuses to take 'plant/events/gate/watch.opened'.*authorized"):
            await sink.publish([event(1)])
        await sink.close()


async def test_tls_by_a_ca_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MQTT_PASSWORD", PASSWORD)
    with running(tmp_path, *passwords(tmp_path, plant=PASSWORD), tls=True) as broker:
        known = sink_of(broker, username="plant", password="${MQTT_PASSWORD}", ca_file=broker.ca_file)
        strange = sink_of(broker, username="plant", password="${MQTT_PASSWORD}")
        await known.publish([event(1)])
        assert "mqtts://127.0.0.1" in await known.check()
        with pytest.raises(SinkUnavailable, match="certificate verify failed"):
            await strange.check()
        await known.close()
        await strange.close()


async def test_an_event_too_large_for_brokers_arrives_reduced(broker):
    sink = sink_of(broker)
    with Subscriber(broker) as subscriber:
        await sink.publish([event(1, text="x" * 300_000)])
        await until(lambda: subscriber.below("plant/events/"))
        (payload,) = subscriber.below("plant/events/")
    assert decode(payload).data["reduced_from_bytes"] > 300_000
    await sink.close()


async def test_a_check_of_its_own_changes_nobodys_presence(broker):
    running_sink, passing = sink_of(broker), sink_of(broker)
    with Subscriber(broker) as subscriber:
        running_sink.connect()
        await arrived(subscriber, "plant/status", b"online")
        await passing.check()
        await passing.close()
        await running_sink.publish([event(1)])
        await until(lambda: subscriber.below("plant/events/"))
        assert subscriber.of("plant/status") == [b"online"]
    await running_sink.close()
