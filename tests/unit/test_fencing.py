"""Each stream has one owner: of two who believe to be it, the one with the newer token commits, the other nothing."""

import asyncio
from contextlib import closing

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.clock import SystemClock
from pipeline.delivery import ownership
from pipeline.delivery.nodes import NodeBook
from pipeline.delivery.outbox import Outbox
from pipeline.delivery.store import Store
from pipeline.delivery.tables import OUTBOX, OWNER_LEASE, STREAM_OWNER
from pipeline.errors import ConfigError, NotOwner, StreamTaken
from pipeline.testing import ManualClock
from tests.unit.test_store import decision, ids
from tests.unit.test_store import server as server
from tests.unit.test_store import url as url

LEASE_S = 600.0


def member(address, holder, leased=True):
    store = Store(address, ManualClock(), holder=holder)
    if leased:
        NodeBook(store.database, ManualClock()).renew(holder, LEASE_S)
    return store


def run_out(store, holder):
    """Let a lease run out, as the database's clock does while its holder is away."""
    with store.database.writing() as connection:
        connection.execute(sa.update(OWNER_LEASE).where(OWNER_LEASE.c.holder == holder).values(until_s=0.0))


def token_of(store, stream="gate"):
    with store.database.reading() as connection:
        return connection.scalar(sa.select(STREAM_OWNER.c.token).where(STREAM_OWNER.c.stream_id == stream))


def test_an_owner_whose_lease_ran_out_while_it_was_away_commits_nothing_on_what_others_took(url):
    with closing(member(url, "a")) as first, closing(member(url, "b")) as second:
        for stream in ("gate", "yard"):
            first.take(stream)
        first.commit([decision("1", state="first")])
        late = first.rows_of(decision("2", state="late"))
        with pytest.raises(StreamTaken, match="gate is decided on by a"):
            second.take("gate")
        run_out(second, "a")
        second.take("gate")
        with pytest.raises(StreamTaken, match=r"gate \(b\)") as refused:
            first.write([late, first.rows_of(decision("3", stream="yard"))])
        assert refused.value.streams == ("gate",)
        assert isinstance(refused.value, NotOwner)
        assert second.load("gate").state == "first"
        assert first.load("yard") is None
        assert first.commit([decision("3", stream="yard")]) == 1
        with pytest.raises(StreamTaken, match="a has not taken the stream gate"):
            first.commit([decision("4")])
        assert ids(second.history.events()) == ["3", "1"]


def test_who_lets_go_need_not_be_outwaited_and_tokens_only_rise(url):
    with closing(member(url, "a")) as first, closing(member(url, "b")) as second:
        first.take("gate")
        assert token_of(first) == 1
        first.let_go("gate")
        second.take("gate")
        assert token_of(first) == 2
        first.let_go("gate")
        with pytest.raises(StreamTaken):
            first.take("gate")
        assert second.commit([decision("1")]) == 1
        second.let_go("gate")
        second.take("gate")
        assert token_of(first) == 3


def test_a_process_by_itself_decides_by_the_same_tokens(url):
    with closing(Store(url, ManualClock(), exclusive=True)) as store:
        store.take("gate")
        stale = store.rows_of(decision("1", state="stale"))
        store.take("gate")
        with pytest.raises(StreamTaken):
            store.write([stale])
        assert store.commit([decision("1", state="newer")]) == 1
        assert (store.load("gate").state, token_of(store)) == ("newer", 2)


def test_a_fleet_and_a_process_by_itself_keep_each_other_out(server):
    both = closing(member(server, "a")), closing(member(server, "b"))
    with both[0], both[1], pytest.raises(ConfigError, match="held by another process"):
        Store(server, ManualClock(), exclusive=True)
    with closing(Store(server, ManualClock(), exclusive=True)), pytest.raises(ConfigError, match="held by another"):
        member(server, "a")


def test_one_that_took_the_whole_store_ends_the_fleet_on_it(server):
    with closing(member(server, "a")) as first:
        first.take("gate")
        with first.database.engine.begin() as connection:
            ownership.take(connection)  # as after a lost connection, whose lock is lost with it
        with pytest.raises(NotOwner) as refused:
            first.commit([decision("1")])
        assert not isinstance(refused.value, StreamTaken)


def test_a_takeover_waits_for_the_commit_under_way_and_no_longer_than_its_owner_may_idle(server):
    with closing(member(server, "a")) as first, closing(member(server, "b")) as second:
        first.take("gate")
        run_out(second, "a")
        frozen = first.database.engine.connect()
        frozen.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 500")  # else SHARED_IDLE_S
        ownership.check_streams(frozen, [("gate", 1)])
        second.take("gate")  # the server ends the frozen transaction first
        assert token_of(second) == 2
        frozen.invalidate()
        frozen.close()
        with pytest.raises(StreamTaken):
            first.commit([decision("1")])


async def test_in_a_group_of_many_streams_those_that_were_taken_fail_alone(tmp_path):
    path = str(tmp_path / "store.db")
    with closing(member(path, "a")) as first, closing(member(path, "b")) as second:
        for stream in ("gate", "yard", "dock"):
            first.take(stream)
        lost = []
        outbox = Outbox(first, SystemClock(), on_fatal=lost.append)
        waiting = [asyncio.create_task(outbox.commit(decision(s, stream=s))) for s in ("gate", "yard", "dock")]
        await asyncio.sleep(0)  # all are on their way, with their tokens
        run_out(second, "a")
        second.take("yard")
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one).__name__ for one in outcomes] == ["NoneType", "StreamTaken", "NoneType"]
        assert outcomes[1].streams == ("yard",)
        assert (outbox.counts.stale, outbox.counts.decisions, outbox.waiting, lost) == (1, 2, 0, [])
        await outbox.close()
        assert sorted(ids(second.history.events())) == ["dock", "gate"]


class Ownership(RuleBasedStateMachine):
    """Three processes over two streams: each takes, decides, is frozen between deciding and committing, loses its
    lease, lets go, ends and begins anew. What they may do is told from a model of the rules alone."""

    address = ""

    @initialize()
    def begin(self):
        self.starts = self.decided = 0
        self.stores, self.tokens = {}, {}
        self.leased, self.owner = set(), {}
        self.waiting, self.committed = [], []
        self.highest = {"gate": 0, "yard": 0}
        for process in range(3):
            self.start(process)

    def start(self, process):
        self.starts += 1
        holder = f"{id(self)}-{process}-{self.starts}"
        self.stores[process] = member(self.address, holder, leased=False)

    def teardown(self):
        if hasattr(self, "stores"):
            with self.stores[0].database.writing() as connection:
                connection.execute(sa.delete(STREAM_OWNER))
                connection.execute(sa.delete(OWNER_LEASE))
            for store in self.stores.values():
                store.close()

    def holder(self, process):
        return self.stores[process].holder

    processes = st.integers(0, 2)
    streams = st.sampled_from(["gate", "yard"])

    @rule(process=processes)
    def sign_of_life(self, process):
        store = self.stores[process]
        NodeBook(store.database, ManualClock()).renew(store.holder, LEASE_S)
        self.leased.add(store.holder)

    @rule(process=processes)
    def lease_runs_out(self, process):
        run_out(self.stores[process], self.holder(process))
        self.leased.discard(self.holder(process))

    @rule(process=processes, stream=streams)
    def take(self, process, stream):
        holder, before = self.holder(process), self.owner.get(stream)
        may = before is None or before == holder or before not in self.leased
        try:
            self.stores[process].take(stream)
        except StreamTaken:
            assert not may
            return
        assert may
        self.owner[stream] = holder
        self.highest[stream] += 1
        self.tokens[holder, stream] = self.highest[stream]

    @rule(process=processes, stream=streams)
    def let_go(self, process, stream):
        holder = self.holder(process)
        self.stores[process].let_go(stream)
        token = self.tokens.pop((holder, stream), None)
        if token == self.highest[stream] and self.owner.get(stream) == holder:
            self.owner[stream] = None

    @rule(process=processes, stream=streams)
    def decide(self, process, stream):
        """A decision is made; it is committed after whatever happens meanwhile."""
        holder, number = self.holder(process), self.decided
        self.decided += 1
        made = decision(f"{id(self)}-{number}", stream=stream, state=f'"{number}"')
        try:
            rows = self.stores[process].rows_of(made)
        except StreamTaken:
            assert (holder, stream) not in self.tokens
            return
        assert rows.token == self.tokens[holder, stream]
        self.waiting.append((process, self.stores[process], stream, rows))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def commit(self, data):
        process, store, stream, rows = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        if store is not self.stores[process]:
            return  # its process has ended
        before = store.load(stream)
        try:
            store.write([rows])
        except StreamTaken:
            assert rows.token < self.highest[stream]
            assert store.load(stream) == before
            if self.tokens.get((store.holder, stream)) == rows.token:
                del self.tokens[store.holder, stream]
            return
        assert rows.token == self.highest[stream]
        assert store.load(stream).state == rows.state["state"]
        self.committed.append((stream, rows.token, store.holder))

    @rule(process=processes)
    def restart(self, process):
        holder = self.holder(process)
        self.tokens = {key: token for key, token in self.tokens.items() if key[0] != holder}
        self.stores[process].close()
        self.start(process)

    @invariant()
    def no_two_owners_decisions_interleave(self):
        for stream in ("gate", "yard"):
            of_stream = [(token, holder) for one, token, holder in self.committed if one == stream]
            assert [token for token, _ in of_stream] == sorted(token for token, _ in of_stream)
            assert len({token for token, _ in of_stream}) == len(set(of_stream))

    @invariant()
    def tokens_are_those_of_the_model(self):
        for stream, highest in self.highest.items():
            assert (token_of(self.stores[0], stream) or 0) == highest


def explore(address, examples):
    class Here(Ownership):
        pass

    Here.address = address
    case = Here.TestCase
    case.settings = settings(max_examples=examples, stateful_step_count=25, deadline=None)
    case("runTest").runTest()


def test_whatever_happens_no_two_owners_decisions_interleave(tmp_path):
    explore(str(tmp_path / "store.db"), 15)


def test_nor_do_they_on_a_server(server):
    explore(server, 4)


def test_who_follows_the_events_of_several_processes_misses_none_that_is_committed_late(server):
    with closing(member(server, "a")) as first, closing(member(server, "b")) as second:
        first.take("gate")
        second.take("yard")
        late = first.rows_of(decision("1"))
        with first.database.beside() as slow:
            slow.execute(sa.insert(OUTBOX), [late.events[0][1]])  # its number is given, and it is not committed
            second.commit([decision("2", stream="yard")])
            assert ids(second.history.events()) == ["2"]
            assert ids(second.history.events_after(0, 10)) == []
        assert ids(second.history.events_after(0, 10)) == ["1", "2"]
