"""Events of a fleet's streams in Kafka, whatever becomes of the machine that decides and of the one that sends."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from pipeline.clock import SystemClock
from pipeline.delivery.store import Store
from pipeline.delivery.tables import DELIVERY, OUTBOX, STREAM_OWNER
from tests.flow.test_fleet import LIVE, site_file
from tests.live.broker import events, strict_bootstrap_servers
from tests.unit.test_store import server as server

pytestmark = pytest.mark.timeout(300)  # processes start slowly on busy cores

ROOT = Path(__file__).parents[2]
STREAMS = [f"s{n}" for n in range(4)]


class Machines:
    """A head and its nodes, each a process of its own, and the database in which they meet."""

    def __init__(self, folder, path, address):
        self.folder, self.path = folder, path
        self.engine = sa.create_engine(sa.make_url(address).set(drivername="postgresql+psycopg"))
        self.heads = []

    def head(self, *names):
        command = [sys.executable, "-m", "tests.fleet", str(self.path), str(self.folder), *names]
        with (self.folder / f"head{len(self.heads)}.log").open("w") as log:
            self.heads.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))
        return self.heads[-1]

    def signal(self, name, signum):
        os.kill(int((self.folder / f"{name}.pid").read_text()), signum)

    def rows(self, query):
        with self.engine.connect() as connection:
            return connection.execute(query).all()

    def owners(self):
        rows = self.rows(sa.select(STREAM_OWNER.c.stream_id, STREAM_OWNER.c.holder))
        return {row.stream_id: row.holder.partition(" ")[0] for row in rows if row.stream_id in STREAMS}

    def decided(self, stream):
        """Ids of a stream's events, in the order of decision."""
        query = sa.select(OUTBOX.c.event_id).where(OUTBOX.c.stream_id == stream).order_by(OUTBOX.c.seq)
        return [row.event_id for row in self.rows(query)]

    def owed(self):
        return self.rows(sa.select(sa.func.count()).select_from(DELIVERY))[0][0]

    def more(self, count=2):
        """Wait until every stream has decided so many further events."""
        before = {stream: len(self.decided(stream)) for stream in STREAMS}
        until(lambda: all(len(self.decided(stream)) >= before[stream] + count for stream in STREAMS))


@contextmanager
def machines(folder, path, address):
    Store(address, SystemClock()).close()  # with its tables, which are looked at before the head has made them
    running = Machines(folder, path, address)
    try:
        yield running
    finally:
        for head in running.heads:
            head.kill()
            head.wait()
        for file in folder.glob("*.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)
        running.engine.dispose()


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come so far in time"
        time.sleep(0.1)


def new_topic():
    """On the broker that no other test stops."""
    name, admin = (
        f"fleet-{os.getpid()}-{time.time_ns()}",
        KafkaAdminClient(bootstrap_servers=strict_bootstrap_servers()),
    )
    admin.create_topics([NewTopic(name, 3, 1)])
    admin.close()
    return name


def test_events_reach_kafka_in_the_order_of_their_streams_when_a_node_and_the_head_are_killed(tmp_path, server):
    topic = new_topic()
    path = site_file(
        tmp_path,
        server,
        dict.fromkeys(STREAMS, LIVE),
        watches={  # one of them is open at any time
            "some": {"question": "how many cars?", "count": {"op": ">=", "value": 1}, "update_every_s": 1},
            "none": {"question": "how many cars?", "count": {"op": "<", "value": 1}, "update_every_s": 1},
        },
        sinks={"plant": f"kafka://{strict_bootstrap_servers()}/{topic}"},
    )
    with machines(tmp_path, path, server) as running:
        first = running.head("a", "b")
        until(lambda: set(running.owners().values()) == {"a", "b"} and len(running.owners()) == len(STREAMS))
        running.more()
        running.signal("b", signal.SIGKILL)
        running.more()
        first.kill()
        first.wait()
        running.more()  # nodes decide without a head, and what they decide waits
        assert running.owed() > 0
        second = running.head("a", "b")
        running.more()
        for name in ("a", "b"):
            running.signal(name, signal.SIGKILL)
        until(lambda: running.owed() == 0)
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0
        decided = {stream: running.decided(stream) for stream in STREAMS}

    found = events(topic, sum(map(len, decided.values())), bootstrap=strict_bootstrap_servers())
    arrived = {stream: list(dict.fromkeys(one.id for one in found if one.stream_id == stream)) for stream in STREAMS}
    assert arrived == decided
    contents = {(one.id, json.dumps(dict(one.data), sort_keys=True)) for one in found}
    assert len(contents) == len({one.id for one in found})
