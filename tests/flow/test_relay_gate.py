"""Delivery under filters and rate limits: what a sink does not get is done with, and nothing is lost on the way."""

import asyncio
import random
from datetime import UTC, datetime

import pytest

from pipeline.clock import SystemClock
from pipeline.core.gate import HELD_BACK, GateRules, RateLimit, SinkFilter
from pipeline.core.outcome import Decision
from pipeline.delivery.relay import Relay
from pipeline.delivery.store import Store
from pipeline.testing import ManualClock, MemorySink
from pipeline.types import Event
from tests.flow.test_relay import until

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def decision(n, type="watch.opened", stream="gate"):
    event = Event(f"{stream}-{n}", type, stream, TIME, {"n": n}, "fire" if type.startswith("watch") else None)
    return Decision(stream, f'{{"n": {n}}}', (event,), n)


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store.db"), SystemClock())
    yield store
    store.close()


@pytest.fixture(autouse=True)
def short_retries(monkeypatch):
    monkeypatch.setattr("pipeline.delivery.relay.RETRY_S", (0.001, 0.01))


def relay_of(store, sink, rules, clock=None, **options):
    return Relay(store, [sink], clock or SystemClock(), rules_of={sink.name: rules}.get, **options)


async def test_what_is_filtered_is_done_with_and_the_rest_comes_in_order(store):
    sink = MemorySink("pager")
    relay = relay_of(store, sink, GateRules(SinkFilter(types=("watch.*",))), batch=4)
    await relay.start()
    for n in range(20):
        store.commit([decision(n, "watch.opened" if n % 3 == 0 else "stream.lost")])
    relay.wake(20)
    assert await relay.drain(10) == {"pager": 0}
    assert [event.id for event in sink.events] == [f"gate-{n}" for n in range(0, 20, 3)]
    counts = relay.counts["pager"]
    assert (counts.published, counts.filtered, counts.held_back, counts.pending) == (7, 13, 0, 0)
    assert store.sinks_owed() == ()
    await relay.close()


async def test_beyond_its_limit_a_sink_gets_one_summary_when_the_period_is_over(store):
    clock, sink = ManualClock(), MemorySink("pager")
    relay = relay_of(store, sink, GateRules(limit=RateLimit(2, 60)), clock)
    await relay.start()
    for n in range(5):
        store.commit([decision(n)])
    relay.wake(5)
    await until(lambda: relay.counts["pager"].held_back == 3)
    assert [event.id for event in sink.events] == ["gate-0", "gate-1"]
    assert store.pending("pager") == 0
    for _ in range(13):
        clock.advance(5)
        await asyncio.sleep(0.02)
    await until(lambda: len(sink.events) == 3)
    assert (sink.events[-1].type, sink.events[-1].data["count"]) == (HELD_BACK, 3)
    store.commit([decision(5)])
    relay.wake(1)
    await until(lambda: len(sink.events) == 4)
    assert sink.events[-1].id == "gate-5"
    await relay.close()


async def test_what_was_held_back_survives_the_process(store):
    first = MemorySink("pager")
    relay = relay_of(store, first, GateRules(limit=RateLimit(1, 3600)))
    await relay.start()
    for n in range(4):
        store.commit([decision(n)])
    relay.wake(4)
    await until(lambda: relay.counts["pager"].held_back == 3)
    await relay.close()

    second = MemorySink("pager")
    relay = relay_of(store, second, GateRules(limit=RateLimit(1, 3600)))
    await relay.start()
    store.commit([decision(4)])
    relay.wake(1)
    await until(lambda: relay.counts["pager"].held_back == 1)
    assert await relay.drain(10) == {"pager": 0}
    (summary,) = second.events
    assert (summary.data["count"], summary.data["last_id"]) == (4, "gate-4")
    await relay.close()
    assert store.forget_sink("pager") == 0
    assert store.sink_note("pager") is None


@pytest.mark.parametrize("seed", range(5))
async def test_with_a_sink_that_fails_now_and_then_every_event_arrives_or_is_counted(store, seed):
    chance = random.Random(seed)
    sink, arrived, publish = MemorySink("pager"), [], MemorySink.publish

    class Hesitant(MemorySink):
        async def publish(self, events):
            self.fail(chance.random() < 0.4)
            await publish(self, events)
            arrived.extend(events)

    sink = Hesitant("pager")
    rules = GateRules(SinkFilter(types=("watch.*",)), RateLimit(7, 3600))
    relay = relay_of(store, sink, rules, batch=3)
    await relay.start()
    for n in range(40):
        store.commit([decision(n, chance.choice(["watch.opened", "stream.lost"]))])
        relay.wake(1)
        await asyncio.sleep(0.001)
    assert await relay.drain(20) == {"pager": 0}
    counts = relay.counts["pager"]
    plain = [event for event in arrived if event.type != HELD_BACK]
    told = sum(event.data["count"] for event in arrived if event.type == HELD_BACK)
    assert len(plain) == 7
    assert told == counts.held_back
    assert len(plain) + told + counts.filtered == 40
    assert [event.data["n"] for event in plain] == sorted(event.data["n"] for event in plain)
    await relay.close()


async def test_a_note_that_cannot_be_read_stops_nothing(store):
    store.delivered("pager", [], "no json")
    sink = MemorySink("pager")
    relay = relay_of(store, sink, GateRules(limit=RateLimit(1, 3600)))
    await relay.start()
    store.commit([decision(1)])
    relay.wake(1)
    await until(lambda: sink.events)
    await relay.close()
