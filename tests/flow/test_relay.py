import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from pipeline.clock import SystemClock
from pipeline.core.outcome import Decision
from pipeline.delivery.outbox import Outbox
from pipeline.delivery.relay import Relay
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError, NotOwner, SinkGone, StoreDamaged, StoreUnavailable
from pipeline.sinks.cloudevents import decode
from pipeline.testing import ManualClock, MemorySink
from pipeline.types import Event

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def decision(n, stream="gate"):
    return Decision(
        stream, f'{{"n": {n}}}', (Event(f"{stream}-{n}", "watch.opened", stream, TIME, {"n": n}, "fire"),), n
    )


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store.db"), SystemClock())
    yield store
    store.close()


@pytest.fixture(autouse=True)
def short_retries(monkeypatch):
    monkeypatch.setattr("pipeline.delivery.relay.RETRY_S", (0.02, 0.1))


def ids(sink):
    return [event.id for event in sink.events]


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


async def test_events_reach_every_sink_in_order(store):
    sinks = [MemorySink("a"), MemorySink("b")]
    relay = Relay(store, sinks, SystemClock(), batch=4)
    await relay.start()
    for n in range(10):
        store.commit([decision(n)])
    relay.wake(10)
    assert await relay.drain(10) == {"a": 0, "b": 0}
    assert ids(sinks[0]) == ids(sinks[1]) == [f"gate-{n}" for n in range(10)]
    assert store.sinks_owed() == ()
    assert relay.counts["a"].published == 10
    await relay.close()


async def test_a_commit_wakes_the_relay_at_once(store):
    sink = MemorySink("a")
    relay = Relay(store, [sink], SystemClock(), poll_s=3600)
    outbox = Outbox(store, SystemClock(), relay.wake, group_s=0.001)
    await relay.start()
    waits = []
    for n in range(20):
        await asyncio.sleep(0.01)
        await outbox.commit(decision(n))
        durable = time.perf_counter()
        await until(lambda n=n: len(sink.events) > n)
        waits.append(time.perf_counter() - durable)
    assert sorted(waits)[10] < 0.1
    await outbox.close()
    await relay.close()


async def test_without_a_wake_up_the_store_is_still_looked_at_now_and_then(store, monkeypatch):
    looks, look = [], store.pending_events

    def counted(*arguments):
        found = look(*arguments)
        looks.append(found)
        return found

    monkeypatch.setattr(store, "pending_events", counted)
    clock = ManualClock()
    sink = MemorySink("a")
    relay = Relay(store, [sink], clock, poll_s=5.0)
    await relay.start()
    await until(lambda: looks == [[]])
    store.commit([decision(1)])
    await asyncio.sleep(0.05)
    assert sink.events == []
    clock.advance(5.0)
    await until(lambda: sink.events)
    await relay.close()


async def test_a_sink_that_fails_holds_up_only_itself_and_loses_nothing(store):
    good, bad = MemorySink("good"), MemorySink("bad")
    relay = Relay(store, [good, bad], SystemClock(), batch=2)
    bad.fail(3)
    for n in range(6):
        store.commit([decision(n)])
    await relay.start()
    await until(lambda: len(good.events) == 6)
    await until(lambda: len(bad.events) == 6)
    assert ids(bad) == [f"gate-{n}" for n in range(6)]
    assert relay.counts["bad"].failures == 3
    assert relay.counts["good"].failures == 0
    assert relay.counts["bad"].last_error is None
    await relay.close()


async def test_a_sink_may_say_how_long_to_wait(store):
    clock = ManualClock()
    sink = MemorySink("a")
    sink.fail(1, retry_after_s=17.0)
    relay = Relay(store, [sink], clock)
    store.commit([decision(1)])
    await relay.start()
    await until(lambda: relay.counts["a"].failures == 1)
    await asyncio.sleep(0.01)
    clock.advance(16.9)
    await asyncio.sleep(0.05)
    assert sink.events == []
    clock.advance(0.2)
    await until(lambda: sink.events)
    await relay.close()


async def test_a_defect_in_a_sink_is_retried_like_a_failure(store):
    class Defective(MemorySink):
        tries = 0

        async def publish(self, events):
            self.tries += 1
            if self.tries < 3:
                raise ZeroDivisionError("oops")
            await super().publish(events)

    sink = Defective("a")
    relay = Relay(store, [sink], SystemClock())
    store.commit([decision(1)])
    await relay.start()
    await until(lambda: sink.events)
    assert relay.counts["a"].failures == 2
    await relay.close()


async def test_a_store_that_is_away_delays_but_does_not_repeat(store, monkeypatch):
    sink = MemorySink("a")
    relay = Relay(store, [sink], SystemClock())
    store.commit([decision(1), decision(2)])
    refusals = iter(range(3))
    delivered = store.delivered

    def away(name, seqs):
        if next(refusals, None) is not None:
            raise StoreUnavailable("told to refuse")
        delivered(name, seqs)

    monkeypatch.setattr(store, "delivered", away)
    await relay.start()
    await until(lambda: store.sinks_owed() == ())
    assert ids(sink) == ["gate-1", "gate-2"]
    await relay.close()


async def test_what_was_not_delivered_goes_out_after_a_restart(store):
    first = MemorySink("a")
    first.fail(1_000_000)
    relay = Relay(store, [first], SystemClock())
    store.commit([decision(1), decision(2)])
    await relay.start()
    assert await relay.drain(0.1) == {"a": 2}
    await relay.close()
    second = MemorySink("a")
    again = Relay(store, [second], SystemClock())
    await again.start()
    assert await again.drain(10) == {"a": 0}
    assert ids(second) == ["gate-1", "gate-2"]
    await again.close()


async def test_draining_does_not_sit_out_a_long_wait(store):
    sink = MemorySink("a")
    sink.fail(1, retry_after_s=200.0)
    relay = Relay(store, [sink], SystemClock())
    store.commit([decision(1)])
    await relay.start()
    await until(lambda: relay.counts["a"].failures == 1)
    assert await relay.drain(10) == {"a": 0}
    await relay.close()


async def test_delivery_is_reported_with_its_sink_events_and_time(store):
    seen = []
    clock = SystemClock()
    relay = Relay(store, [MemorySink("a")], clock, lambda sink, events, now: seen.append((sink, list(events), now)))
    store.commit([decision(1)])
    await relay.start()
    await relay.drain(10)
    ((sink, events, now),) = seen
    assert (sink, [event.id for event in events]) == ("a", ["gate-1"])
    assert now.tzinfo is UTC
    assert relay.counts["a"].last_publish_s >= 0
    await relay.close()


async def test_two_sinks_of_one_name_are_refused(store):
    with pytest.raises(ConfigError, match="names of their own"):
        Relay(store, [MemorySink("a"), MemorySink("a")], SystemClock())


WORKER = """
import asyncio, sys
from datetime import UTC, datetime
from pipeline.clock import SystemClock
from pipeline.core.outcome import Decision
from pipeline.delivery.outbox import Outbox
from pipeline.delivery.relay import Relay
from pipeline.sinks.jsonl import JsonlSink
from pipeline.delivery.store import Store
from pipeline.types import Event

async def stream(name, store, outbox):
    stored = store.load(name)
    n = int(stored.state) + 1 if stored else 0
    while True:
        ids = [f"{name}-{n}-{k}" for k in range(2)]
        events = tuple(Event(i, "watch.opened", name, datetime.now(UTC), {"n": n}, "w") for i in ids)
        await outbox.commit(Decision(name, str(n), events, float(n)))
        print(f"{name} {n}", flush=True)
        n += 1

async def main(folder):
    clock = SystemClock()
    store = Store(f"{folder}/store.db", clock, exclusive=True)
    relay = Relay(store, [JsonlSink(f"{folder}/events.jsonl", name="file")], clock)
    outbox = Outbox(store, clock, relay.wake, group_s=0.002)
    await relay.start()
    await asyncio.gather(*(stream(f"s{k}", store, outbox) for k in range(3)))

asyncio.run(main(sys.argv[1]))
"""


async def test_nothing_committed_is_lost_when_the_process_is_killed_again_and_again(tmp_path):
    reported = {}
    for _ in range(6):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        worker.stdout.readline()
        time.sleep(random.uniform(0.05, 0.4))
        os.kill(worker.pid, signal.SIGKILL)
        rest, _ = worker.communicate()
        for name, n in (line.split() for line in rest.splitlines() if line[-1:].isdigit()):
            reported[name] = max(int(n), reported.get(name, -1))
    store = Store(str(tmp_path / "store.db"), SystemClock())
    from pipeline.sinks.jsonl import JsonlSink

    relay = Relay(store, [JsonlSink(tmp_path / "events.jsonl", name="file")], SystemClock())
    await relay.start()
    assert await relay.drain(20) == {"file": 0}
    await relay.close()
    stored = {item.event.id for item in store.history.events(limit=1_000_000)}
    arrived = [decode(line).id for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
    for name in ("s0", "s1", "s2"):
        last = int(store.load(name).state)
        assert last >= reported[name] > 10
        expected = [f"{name}-{n}-{k}" for n in range(last + 1) for k in range(2)]
        assert list(dict.fromkeys(item for item in arrived if item.startswith(name))) == expected
    assert stored <= set(arrived)
    store.close()


async def test_a_courier_that_ends_in_an_unforeseen_way_begins_again_and_is_counted(store, monkeypatch):
    monkeypatch.setattr("pipeline.waiting.RESTART_S", (0.01, 0.02))
    sink = MemorySink("a")
    relay = Relay(store, [sink], SystemClock())
    store.commit([decision(1), decision(2)])
    faults = iter([RuntimeError("a defect"), KeyError("another"), ValueError("a third")])
    for name in ("pending", "pending_events", "delivered"):

        def failing_once(*arguments, call=getattr(store, name), error=next(faults), failed=[]):  # noqa: B006
            if failed:
                return call(*arguments)
            failed.append(error)
            raise error

        monkeypatch.setattr(store, name, failing_once)
    await relay.start()
    await until(lambda: relay.counts["a"].pending == 0 and store.sinks_owed() == ())
    assert relay.counts["a"].crashes == 3
    assert list(dict.fromkeys(ids(sink))) == ["gate-1", "gate-2"]
    store.commit([decision(3)])
    relay.wake(1)
    await until(lambda: ids(sink)[-1] == "gate-3")
    await relay.close()


@pytest.mark.parametrize("error", [NotOwner("taken"), StoreDamaged("malformed")])
async def test_a_store_that_can_never_be_read_again_is_reported_and_not_asked_for_ever(store, monkeypatch, error):
    reported = []
    relay = Relay(store, [MemorySink("a")], SystemClock(), on_fatal=reported.append)

    def lost(*_):
        raise error

    monkeypatch.setattr(store, "pending_events", lost)
    await relay.start()
    await until(lambda: reported)
    assert reported == [error]
    await relay.close()


class Hanging(MemorySink):
    """A sink that never comes back from its first batches."""

    def __init__(self, name, hangs):
        super().__init__(name)
        self.hangs = hangs
        self.sizes = []

    async def publish(self, events):
        self.sizes.append(len(events))
        if len(self.sizes) <= self.hangs:
            await asyncio.Event().wait()
        await super().publish(events)

    async def close(self):
        await asyncio.Event().wait()


async def test_a_sink_that_hangs_has_a_deadline_and_gets_less_until_it_takes_something(store):
    clock = ManualClock()
    sink = Hanging("a", hangs=2)
    relay = Relay(store, [sink], clock, batch=8)
    store.commit([decision(n) for n in range(8)])
    await relay.start()
    for hang in range(1, 3):
        await until(lambda hang=hang: len(sink.sizes) == hang)
        await asyncio.sleep(0.01)
        clock.advance(59)
        await asyncio.sleep(0.02)
        assert relay.counts["a"].failures == hang - 1
        clock.advance(2)
        await until(lambda hang=hang: relay.counts["a"].failures == hang)
        await asyncio.sleep(0.01)
        clock.advance(1)
    await until(lambda: len(sink.events) == 8)
    assert sink.sizes == [8, 4, 2, 4, 2]
    assert ids(sink) == [f"gate-{n}" for n in range(8)]
    closing = asyncio.create_task(relay.close())
    await asyncio.sleep(0.01)
    clock.advance(5)
    await closing


@pytest.mark.parametrize("asked_s", [0.0, -100.0, 1e-9])
async def test_a_sink_that_asks_for_no_patience_at_all_is_left_alone_for_longer_all_the_same(store, asked_s):
    clock = ManualClock()
    sink = MemorySink("a")
    sink.fail(1_000_000, retry_after_s=asked_s)
    relay = Relay(store, [sink], clock)
    store.commit([decision(1)])
    await relay.start()
    await until(lambda: relay.counts["a"].failures == 1)
    await asyncio.sleep(0.05)
    assert relay.counts["a"].failures == 1
    await relay.close()


async def test_a_sink_that_is_gone_for_good_is_given_up_and_holds_up_no_drain(store):
    class Gone(MemorySink):
        async def publish(self, events):
            raise SinkGone("nobody reads it any more")

    good = MemorySink("good")
    relay = Relay(store, [Gone("gone"), good], SystemClock())
    store.commit([decision(1)])
    await relay.start()
    async with asyncio.timeout(20):
        assert (await relay.drain(3600))["gone"] == 1
    assert ids(good) == ["gate-1"]
    await relay.close()
