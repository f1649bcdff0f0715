import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from pipeline.clock import SystemClock
from pipeline.core.outcome import Decision
from pipeline.delivery.outbox import Outbox
from pipeline.delivery.store import Store
from pipeline.errors import NotOwner, StoreDamaged, StoreUnavailable
from pipeline.testing import ManualClock
from pipeline.types import Event

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def decision(n, stream="gate", **data):
    return Decision(stream, f'{{"n": {n}}}', (Event(f"{stream}-{n}", "watch.opened", stream, TIME, data, "fire"),), n)


class Faulty:
    """A store in front of the real one that can refuse, hold back, or fail."""

    def __init__(self, store):
        self.store = store
        self.refusing = False
        self.broken_streams = set()
        self.groups = []
        self.gate = None

    def rows_of(self, decision):
        return self.store.rows_of(decision)

    def write(self, rows):
        if self.gate:
            self.gate.result(timeout=10)
        if self.refusing:
            raise StoreUnavailable("told to refuse")
        if self.broken_streams & {row.state["stream_id"] for row in rows}:
            raise KeyError("a defect")
        self.groups.append(len(rows))
        return self.store.write(rows)


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store.db"), SystemClock())
    store.register_sinks(["a"])
    yield store
    store.close()


@pytest.fixture
async def faulty(store):
    return Faulty(store)


def stored_ids(store):
    return [item.event.id for item in store.pending_events("a", 10_000)]


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_commit_returns_when_the_decision_is_durable(store):
    woken = []
    outbox = Outbox(store, SystemClock(), woken.append)
    await outbox.commit(decision(1))
    assert store.load("gate").state == '{"n": 1}'
    assert stored_ids(store) == ["gate-1"]
    assert woken == [1]
    await outbox.close()


async def test_commits_of_many_streams_share_transactions(faulty):
    outbox = Outbox(faulty, SystemClock())
    await asyncio.gather(*(outbox.commit(decision(1, f"s{n}")) for n in range(100)))
    assert sum(faulty.groups) == 100
    assert len(faulty.groups) <= 5
    assert outbox.counts.decisions == outbox.counts.events == 100
    await outbox.close()


async def test_a_decision_waits_for_others_only_where_another_stream_could_decide(faulty):
    for streams, waits in ((1, False), (2, True)):
        clock = ManualClock()
        outbox = Outbox(faulty, clock, streams=lambda streams=streams: streams)
        committing = asyncio.create_task(outbox.commit(decision(streams)))
        if waits:
            await asyncio.sleep(0.1)
            assert not committing.done()
            clock.advance(1.0)
        await committing
        await outbox.close()


async def test_nothing_is_lost_or_reordered_while_the_store_is_away(faulty, store):
    outbox = Outbox(faulty, SystemClock(), group_s=0.001)

    async def stream(name):
        for n in range(5):
            await outbox.commit(decision(n, name))

    faulty.refusing = True
    streams = [asyncio.create_task(stream(name)) for name in ("gate", "yard")]
    await until(lambda: outbox.counts.retries >= 2)
    assert store.history.events() == []
    assert outbox.waiting == 2
    faulty.refusing = False
    await asyncio.gather(*streams)
    assert [name for name in stored_ids(store) if name.startswith("gate")] == [f"gate-{n}" for n in range(5)]
    assert [name for name in stored_ids(store) if name.startswith("yard")] == [f"yard-{n}" for n in range(5)]
    assert outbox.counts.outages == 1
    await outbox.close()


async def test_a_full_store_holds_its_streams_until_a_sink_has_taken_events(tmp_path):
    store = Store(str(tmp_path / "small.db"), SystemClock(), max_bytes=264 * 1024)
    store.register_sinks(["a"])
    outbox = Outbox(store, SystemClock(), group_s=0.001)

    async def stream():
        for n in range(100):
            await outbox.commit(decision(n, text="x" * 4000))

    running = asyncio.create_task(stream())
    await until(lambda: outbox.counts.retries >= 1)
    delivered = []
    async with asyncio.timeout(30):
        while not running.done():
            batch = store.pending_events("a", 16)
            delivered += [item.event.id for item in batch]
            store.delivered("a", [item.seq for item in batch])
            await asyncio.sleep(0.01)
    await running
    delivered += [item.event.id for item in store.pending_events("a", 1000)]
    assert delivered == [f"gate-{n}" for n in range(100)]
    await outbox.close()
    store.close()


async def test_a_commit_waits_for_room_and_is_counted(faulty):
    outbox = Outbox(faulty, SystemClock(), max_waiting=2, group_s=0.001)
    faulty.refusing = True
    commits = [asyncio.create_task(outbox.commit(decision(1, f"s{n}"))) for n in range(5)]
    await until(lambda: outbox.counts.retries >= 1)
    assert outbox.waiting == 2
    assert outbox.counts.waited == 3
    faulty.refusing = False
    await asyncio.gather(*commits)
    assert outbox.counts.decisions == 5
    await outbox.close()


async def test_a_decision_that_cannot_be_written_fails_alone(faulty, store):
    outbox = Outbox(faulty, SystemClock())
    faulty.broken_streams = {"yard"}
    outcomes = await asyncio.gather(
        *(outbox.commit(decision(1, name)) for name in ("gate", "yard", "dock")), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), KeyError, type(None)]
    assert sorted(stored_ids(store)) == ["dock-1", "gate-1"]
    await outbox.close()


async def test_data_that_json_cannot_hold_is_refused_to_its_stream_alone(store):
    outbox = Outbox(store, SystemClock())
    good = asyncio.create_task(outbox.commit(decision(1)))
    with pytest.raises(ValueError):
        await outbox.commit(decision(1, "yard", score=float("nan")))
    await good
    assert stored_ids(store) == ["gate-1"]
    await outbox.close()


async def test_a_cancelled_commit_is_withdrawn_before_it_ends(faulty, store):
    outbox = Outbox(faulty, SystemClock(), group_s=0.001)
    faulty.refusing = True
    commit = asyncio.create_task(outbox.commit(decision(1)))
    await until(lambda: outbox.counts.outages == 1)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    faulty.refusing = False
    await outbox.commit(decision(2, "yard"))
    assert stored_ids(store) == ["yard-2"]
    assert store.load("gate") is None
    await outbox.close()


async def test_a_commit_cancelled_while_it_is_written_ends_when_that_is_settled(faulty, store):
    from concurrent.futures import Future

    faulty.gate = Future()
    outbox = Outbox(faulty, SystemClock(), group_s=0.0)
    commit = asyncio.create_task(outbox.commit(decision(1)))
    await until(lambda: outbox.writing)
    commit.cancel()
    await asyncio.sleep(0.05)
    assert not commit.done()
    faulty.gate.set_result(None)
    with suppress(asyncio.CancelledError):
        await commit
    assert stored_ids(store) == ["gate-1"]
    await outbox.close()


async def test_closing_finishes_what_waits_and_refuses_what_comes(faulty, store):
    clock = ManualClock()
    outbox = Outbox(faulty, clock)
    commits = [asyncio.create_task(outbox.commit(decision(1, f"s{n}"))) for n in range(3)]
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(outbox.close())
    await asyncio.sleep(0.01)
    clock.advance(1)
    await asyncio.gather(*commits, closing)
    assert len(stored_ids(store)) == 3
    with pytest.raises(StoreUnavailable, match="closed"):
        await outbox.commit(decision(2))


async def test_closing_gives_up_on_a_store_that_stays_away_and_says_so(faulty):
    outbox = Outbox(faulty, SystemClock(), group_s=0.001)
    faulty.refusing = True
    commit = asyncio.create_task(outbox.commit(decision(1)))
    await until(lambda: outbox.counts.outages == 1)
    await outbox.close(deadline_s=0.05)
    with pytest.raises(StoreUnavailable, match="closed before"):
        await commit


@pytest.mark.parametrize("error", [NotOwner("taken"), StoreDamaged("malformed")])
async def test_a_store_that_is_lost_for_good_fails_what_waits_and_whatever_comes_by_name(store, monkeypatch, error):
    def lost(rows):
        raise error

    monkeypatch.setattr(store, "write", lost)
    reported = []
    outbox = Outbox(store, SystemClock(), on_fatal=reported.append)
    outcomes = await asyncio.gather(*(outbox.commit(decision(n, f"s{n}")) for n in range(3)), return_exceptions=True)
    assert outcomes == [error] * 3
    with pytest.raises(type(error)):
        await outbox.commit(decision(4))
    assert reported == [error]
    assert outbox.outage == str(error)
    await outbox.close()


async def test_a_committer_that_ends_in_an_unforeseen_way_begins_again_with_what_waits(store, monkeypatch):
    monkeypatch.setattr("pipeline.waiting.RESTART_S", (0.01, 0.02))
    woken = []

    def wake(new_events):
        woken.append(new_events)
        if len(woken) == 1:
            raise RuntimeError("a defect")

    outbox = Outbox(store, SystemClock(), wake, group_s=0.001)
    await outbox.commit(decision(1))
    await outbox.commit(decision(2))
    assert outbox.counts.crashes == 1
    assert stored_ids(store) == ["gate-1", "gate-2"]
    await outbox.close()


async def test_closing_does_not_wait_for_a_try_that_hangs(faulty):
    from concurrent.futures import Future

    faulty.gate = Future()
    outbox = Outbox(faulty, SystemClock(), group_s=0.0)
    commit = asyncio.create_task(outbox.commit(decision(1)))
    await until(lambda: outbox.writing)
    async with asyncio.timeout(5):
        await outbox.close(deadline_s=0.1)
        with pytest.raises(StoreUnavailable, match="closed before"):
            await commit
    faulty.gate.set_result(None)
