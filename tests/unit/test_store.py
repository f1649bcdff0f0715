import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pipeline.core.outcome import Decision, HopRecord
from pipeline.delivery.history import PRUNED_AT_ONCE, EventFilter, Keep
from pipeline.delivery.labels import LabelBook
from pipeline.delivery.store import Store, StoredStream
from pipeline.delivery.tables import OUTBOX
from pipeline.errors import ConfigError, StoreUnavailable
from pipeline.sinks.cloudevents import dump_json
from pipeline.testing import ManualClock
from pipeline.types import Answer, Event, TraceContext
from tests.services import require

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def event(identity, stream="gate", **data):
    return Event(identity, "watch.opened", stream, TIME, data, "fire")


def decision(*identities, stream="gate", state="{}", resume_s=1.0):
    return Decision(stream, state, tuple(event(identity, stream) for identity in identities), resume_s)


def record(n):
    answer = Answer("fire", 0.25, 0.9375, relooked=True)
    return HopRecord(float(n), n + 1.0, 100, 90, 80, 0, None, ((n + 0.5, 0.5), (n + 1.0, 0.0)), (answer,))


def answered(n, stream="gate"):
    return Decision(stream, "{}", (), n + 1.0, record(n))


def ids(stored):
    return [item.event.id for item in stored]


def postgresql_url():
    url = os.environ.get("TEST_POSTGRESQL_URL")
    require(bool(url), "TEST_POSTGRESQL_URL names an empty PostgreSQL database")
    return url


@pytest.fixture
def server():
    """The URL of a PostgreSQL database, which is empty again afterwards."""
    yield (url := postgresql_url())
    from pipeline.delivery.tables import tables

    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    tables.drop_all(engine)
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return request.getfixturevalue("server")


@pytest.fixture
def store(url):
    store = Store(url, ManualClock())
    yield store
    store.close()


def test_a_stream_is_found_as_its_newest_decision_left_it(store, url):
    assert store.load("gate") is None
    store.commit([decision(state='{"n": 1}', resume_s=1.0), decision(state='{"n": 2}', resume_s=2.0)])
    store.commit([decision(stream="yard", state="{}", resume_s=9.5)])
    store.close()
    again = Store(url, ManualClock())
    assert again.load("gate") == StoredStream('{"n": 2}', 2.0, TIME)
    assert again.load("yard") == StoredStream("{}", 9.5, TIME)
    again.close()


def test_events_come_back_whole_and_in_the_order_of_commits(store):
    store.register_sinks(["a"])
    first = Event("1", "watch.opened", "gate", TIME, {"question": "火?", "n": 1, "deep": [{"x": None}]}, "fire")
    second = Event("2", "stream.lost", "gate", TIME, {})
    assert store.commit([Decision("gate", "{}", (first, second), 1.0), decision("3", stream="yard")]) == 3
    assert [item.event for item in store.pending_events("a", 2)] == [first, second]
    assert ids(store.pending_events("a", 10)) == ["1", "2", "3"]


def test_the_trace_of_an_event_is_kept_with_it_and_is_no_part_of_it(store):
    store.register_sinks(["kafka"])
    one, other = (TraceContext(f"00-{'0af7' * 8}-{'b7ad' * 4}-01", state) for state in ("", "vendor=1"))
    events = [replace(event("e-1"), trace=one), replace(event("e-2"), trace=other), event("e-3")]
    store.commit([Decision("gate", "{}", tuple(events), 1.0)])
    again = replace(event("e-1"), trace=other)
    assert store.commit([Decision("gate", "{}", (again,), 1.0)]) == 0
    assert [item.event.trace for item in store.pending_events("kafka", 10)] == [one, other, None]
    assert store.conflicts == 0


def test_each_sink_has_its_own_list_of_what_is_left(store):
    store.register_sinks(["a", "b"])
    store.commit([decision("1", "2", "3")])
    store.delivered("a", [item.seq for item in store.pending_events("a", 2)])
    assert (store.pending("a"), store.pending("b"), store.pending("nobody")) == (1, 3, 0)
    assert ids(store.pending_events("a", 10)) == ["3"]


def test_an_event_committed_again_is_neither_stored_nor_delivered_twice(store):
    store.register_sinks(["a"])
    assert store.commit([decision("1", "1"), decision("1", "2")]) == 2
    store.delivered("a", [item.seq for item in store.pending_events("a", 10)])
    assert store.commit([decision("2", "3", resume_s=5.0)]) == 1
    assert ids(store.pending_events("a", 10)) == ["3"]
    assert store.load("gate").resume_s == 5.0


def test_a_new_sink_gets_only_what_comes_after_it(store):
    store.register_sinks(["a"])
    store.commit([decision("1")])
    store.register_sinks(["a", "b"])
    store.commit([decision("2")])
    assert ids(store.pending_events("b", 10)) == ["2"]
    assert ids(store.pending_events("a", 10)) == ["1", "2"]


def test_what_waits_for_a_forgotten_sink_is_dropped(store):
    store.register_sinks(["a", "b"])
    store.commit([decision("1", "2")])
    assert store.sinks_owed() == ("a", "b")
    assert store.forget_sink("b") == 2
    assert store.sinks_owed() == ("a",)


def test_what_is_read_together_is_of_one_state_whatever_is_committed_meanwhile(store):
    count = sa.select(sa.func.count()).select_from(OUTBOX)
    with store.database.reading() as connection:
        before = connection.scalar(count)
        store.commit([decision("late")])
        assert connection.scalar(count) == before
    with store.database.reading_once() as connection:
        assert connection.scalar(count) == before + 1


def test_data_that_json_cannot_hold_leaves_nothing_behind(store):
    bad = Decision("yard", "{}", (event("2", "yard", score=float("nan")),), 1.0)
    with pytest.raises(ValueError):
        store.commit([decision("1"), bad])
    assert store.load("gate") is None
    assert store.history.events() == []


def test_the_history_can_be_paged_and_narrowed_to_a_stream(store):
    store.commit([decision("1", "2", "3"), decision("4", stream="yard")])
    newest = store.history.events(limit=2)
    assert ids(newest) == ["4", "3"]
    assert ids(store.history.events(limit=2, before_seq=newest[-1].seq)) == ["2", "1"]
    assert ids(store.history.events(EventFilter(streams=frozenset({"yard"})))) == ["4"]


def test_pruning_keeps_the_newest_events_and_whatever_is_not_delivered(store):
    store.register_sinks(["a", "b"])
    store.commit([decision(*(str(n) for n in range(10)))])
    everything = [item.seq for item in store.pending_events("a", 10)]
    store.delivered("a", everything)
    store.delivered("b", everything[1:])
    assert store.prune(Keep(events_bytes=3 * len("{}"))) == 6
    assert ids(store.history.events()) == ["9", "8", "7", "0"]


@pytest.mark.parametrize("sinks", [["a"], []])
def test_the_history_stays_bounded_without_anyone_asking(tmp_path, sinks):
    store = Store(str(tmp_path / "store.db"), ManualClock(), keep=Keep(events_bytes=50 * len("{}")))
    store.register_sinks(sinks)
    for start in range(0, 2000, 100):
        store.commit([decision(*(str(n) for n in range(start, start + 100)))])
        for sink in sinks:
            store.delivered(sink, [item.seq for item in store.pending_events(sink, 100)])
    assert 50 <= len(store.history.events(limit=5000)) <= 50 + 400
    store.close()


def test_answers_are_kept_with_their_decision_by_age_and_size(url):
    clock = ManualClock()
    store = Store(url, clock, keep=Keep(answers_s=60.0))
    for n in range(3):
        store.commit([answered(n), answered(n, "yard"), decision(str(n))])
        clock.advance(50.0)
    kept = store.history.answers()
    assert [(item.stream_id, item.record["end_s"]) for item in kept[:3]] == [("yard", 3), ("gate", 3), ("yard", 2)]
    assert kept[0].record["answers"] == {"fire": [0.25, 0.9375, 1]}
    assert kept[0].record["frames"] == [[2.5, 0.5], [3.0, 0.0]]
    assert [item.seq for item in store.history.answers_after(kept[1].seq, 10)] == [kept[0].seq]
    assert {item.stream_id for item in store.history.answers(["gate"])} == {"gate"}
    assert [item.record["end_s"] for item in store.history.answers(["gate"], before_seq=kept[1].seq)] == [2, 1]
    store.prune()
    assert [item.record["end_s"] for item in store.history.answers(["gate"])] == [3]
    store.prune(Keep(answers_bytes=0))
    assert store.history.answers() == []
    store.close()


def test_answers_stay_bounded_without_anyone_asking(tmp_path):
    one = len(dump_json(record(0).as_json()))
    store = Store(str(tmp_path / "store.db"), ManualClock(), keep=Keep(answers_bytes=20 * one))
    for n in range(50):
        store.commit([answered(n, f"camera-{i}") for i in range(40)])
    assert 20 <= len(store.history.answers(limit=5000)) <= 20 + 300
    store.close()


def test_a_full_file_gives_up_answers_before_events(tmp_path):
    store = Store(str(tmp_path / "store.db"), ManualClock(), max_bytes=320 * 1024)
    store.commit([decision("first")])
    for n in range(3000):
        store.commit([answered(n)])
    assert ids(store.history.events()) == ["first"]
    assert store.load("gate").resume_s == 3000
    store.close()


def test_a_clock_that_jumps_ahead_for_a_moment_takes_little_of_the_history(tmp_path):
    clock = ManualClock()
    store = Store(str(tmp_path / "store.db"), clock)
    for n in range(3):
        store.commit([decision(*(f"{n}-{k}" for k in range(1000)))])
    clock.advance(400 * 86_400)
    store.commit([decision("late")])
    store.prune()
    assert len(store.history.events(limit=5000)) >= 3001 - PRUNED_AT_ONCE
    store.close()


def test_events_are_found_by_every_filter(url):
    store = Store(url, ManualClock())
    others = (
        Event("a", "watch.opened", "gate", TIME, {}, "fire"),
        Event("b", "watch.cleared", "gate", TIME + timedelta(hours=1), {}, "fire"),
        Event("c", "stream.lost", "yard", TIME + timedelta(hours=2), {}),
        Event("d", "watch.opened", "dock", TIME + timedelta(hours=3), {}, "smoke"),
    )
    store.commit([Decision("gate", "{}", others, 1.0)])
    LabelBook(store.database, ManualClock()).mark(others[0], "true", "", "ann")

    def found(**wanted):
        return "".join(ids(store.history.events(EventFilter(**wanted))))

    assert found() == "dcba"
    assert found(streams=frozenset({"gate", "dock"})) == "dba"
    assert found(streams=frozenset()) == ""
    assert found(watch="fire") == "ba"
    assert found(types=frozenset({"stream.lost", "watch.cleared"})) == "cb"
    assert found(since=TIME + timedelta(hours=1), until=TIME + timedelta(hours=3)) == "cb"
    assert found(label="true") == "a"
    assert store.history.event("a").label == "true"
    assert store.history.event("nobody") is None
    last = store.history.event("b").seq
    assert ids(store.history.events_after(last, 10)) == ["c", "d"]
    assert store.history.last_seqs() == (last + 2, 0)
    store.close()


def test_a_full_file_refuses_whole_decisions_and_recovers_when_events_are_delivered(tmp_path):
    store = Store(str(tmp_path / "store.db"), ManualClock(), max_bytes=320 * 1024)
    store.register_sinks(["a"])
    refused = None
    taken = 0
    while not refused:
        try:
            store.commit([Decision("gate", "{}", (event(str(taken), text="x" * 4000),), float(taken))])
            taken += 1
        except StoreUnavailable as error:
            refused = error
    assert "full" in str(refused)
    assert taken > 10
    assert store.load("gate").resume_s == taken - 1
    assert store.pending("a") == taken
    store.delivered("a", [item.seq for item in store.pending_events("a", 20)])
    store.commit([Decision("gate", "{}", (event(str(taken), text="x" * 4000),), float(taken))])
    assert ids(store.pending_events("a", 1000)) == [str(n) for n in range(20, taken + 1)]
    store.close()


def test_a_file_held_by_another_program_is_unavailable_not_broken(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.delivery.database.BUSY_TIMEOUT_S", 0.05)
    store = Store(str(tmp_path / "store.db"), ManualClock())
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        store.commit([decision("1")])
    other.execute("ROLLBACK")
    assert store.commit([decision("1")]) == 1
    store.close()
    other.close()


def test_commits_are_durable_before_they_return(tmp_path):
    store = Store(str(tmp_path / "store.db"), ManualClock())
    with store.database.reading() as connection:
        modes = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert modes == ["wal", 2]
    store.close()


def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "store.db"
    Store(str(path), ManualClock()).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    connection.close()
    with pytest.raises(ConfigError, match="99"):
        Store(str(path), ManualClock())


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("do not lose me" * 100)
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        Store(str(path), ManualClock())
    assert path.read_text() == "do not lose me" * 100


@pytest.mark.parametrize("table", ["photos (id)", "meta (name, worth)", "outbox (id)"])
def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path, table):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE {table}")
    connection.close()
    with pytest.raises(ConfigError, match="another program"):
        Store(str(path), ManualClock())
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone() == (1,)
    connection.close()


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="folder"):
        Store(str(tmp_path / "file" / "store.db"), ManualClock())
    with pytest.raises(ConfigError, match=str(tmp_path)):
        Store(str(tmp_path), ManualClock())


@pytest.mark.parametrize(
    ("url", "named"),
    [("mysql://host/db", "mysql"), ("sqlite://", "memory"), ("no such://x", "no such"), ("", "memory")],
)
def test_another_kind_of_database_is_refused(url, named):
    with pytest.raises(ConfigError, match=named):
        Store(url, ManualClock())


def test_a_server_that_is_away_is_unavailable_and_its_password_is_not_shown():
    require(importlib.util.find_spec("psycopg") is not None, "psycopg, of the extra postgresql, is installed")
    with pytest.raises(StoreUnavailable) as caught:
        Store("postgresql://me:hunter2@127.0.0.1:1/db", ManualClock())
    assert "hunter2" not in str(caught.value)


def test_a_second_exclusive_process_is_refused_and_told_who_holds_the_store(tmp_path):
    path = str(tmp_path / "store.db")
    holding = (
        "import sys; from pipeline.clock import SystemClock; from pipeline.delivery.store import Store\n"
        "store = Store(sys.argv[1], SystemClock(), exclusive=True); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", holding, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=str(holder.pid)):
        Store(path, ManualClock(), exclusive=True)
    reader = Store(path, ManualClock())
    assert reader.load("gate") is None
    reader.close()
    holder.kill()
    holder.communicate()
    Store(path, ManualClock(), exclusive=True).close()
    Store(path, ManualClock(), exclusive=True).close()


def test_no_address_of_a_stream_or_server_is_stored(tmp_path):
    store = Store(str(tmp_path / "store.db"), ManualClock())
    store.register_sinks(["a"])
    store.commit([decision("1")])
    with store.database.reading() as connection:
        rows = [
            [str(value) for value in row]
            for table in ("meta", "stream_state", "outbox", "delivery")
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}")
        ]
    assert "://" not in json.dumps(rows)
    store.close()


def test_a_database_has_one_exclusive_user_at_a_time(url):
    first = Store(url, ManualClock(), exclusive=True)
    with pytest.raises(ConfigError, match="held by"):
        Store(url, ManualClock(), exclusive=True)
    first.close()
    Store(url, ManualClock(), exclusive=True).close()
