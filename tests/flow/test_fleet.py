"""A fleet: streams are on its nodes, move with them, and are decided on once, whatever happens to a node."""

import asyncio
import itertools
import re
import signal
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import sqlalchemy as sa
import yaml
from structlog.testing import capture_logs
from typer.testing import CliRunner

from pipeline.api.server import Serving, bare
from pipeline.cli.main import app
from pipeline.clock import SystemClock
from pipeline.delivery.nodes import NodeBook, NodeOffer
from pipeline.delivery.store import Store
from pipeline.delivery.tables import FLEET_NODE, HOP_ANSWERS, STREAM_OWNER
from pipeline.errors import ConfigError, NotOwner
from pipeline.fleet.head import FleetHead
from pipeline.fleet.terms import version
from pipeline.page.app import install
from pipeline.service.service import Service
from pipeline.service.share import WorkShare
from tests import fleet_page
from tests.api import running as single
from tests.fleet import CutOffCluster, ProcessCluster
from tests.fleet_page import until
from tests.flow.test_cli_remote import asked, resadapt
from tests.flow.test_service import site_of
from tests.unit.test_store import server as server

pytestmark = pytest.mark.timeout(600)  # processes start slowly on busy cores

LIVE = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "realtime": True}


def site_file(folder, store, streams, **more):
    raw = {
        "mllm": "null",
        "store": store,
        "streams": streams,
        "watches": {"car": {"question": "is there a car?"}},
        "sinks": {"journal": f"jsonl:{folder / 'events.jsonl'}"},
        "metrics": {"port": 0},
        "evidence": {"enabled": False},
        "api": {"rate_per_s": 10_000, "burst": 10_000},
        "drain_s": 5,
    }
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(raw | more))
    return path


@dataclass
class Fleet:
    head: FleetHead
    cluster: ProcessCluster
    client: httpx.AsyncClient

    @property
    def database(self):
        return self.head.reconciler.registry.database

    def rows(self, query):
        with self.database.reading() as connection:
            return connection.execute(query).all()

    def owners(self):
        """The node that holds each stream, by its name."""
        query = sa.select(STREAM_OWNER.c.stream_id, STREAM_OWNER.c.holder)
        return {row.stream_id: row.holder.partition(" ")[0] for row in self.rows(query) if row.stream_id[0] != "_"}

    def hops(self):
        """Ends of the hops that were decided, in the order of decision, by stream."""
        found = defaultdict(list)
        for row in self.rows(sa.select(HOP_ANSWERS.c.stream_id, HOP_ANSWERS.c.end_s).order_by(HOP_ANSWERS.c.seq)):
            found[row.stream_id].append(row.end_s)
        return found

    async def decides(self, *streams, more=1):
        """Wait until these have decided so many further hops."""
        before = self.hops()
        await until(lambda: all(len(self.hops()[one]) >= len(before[one]) + more for one in streams))

    async def nodes(self):
        return {one["name"]: one for one in (await self.client.get("/v1/nodes")).json()["items"]}


@asynccontextmanager
async def fleet(path, port, cluster, end_nodes=True, extend=bare):
    raw = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(raw | {"api": raw["api"] | {"port": port}}))
    head = FleetHead(path, SystemClock(), cluster)
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20)
    try:
        async with Serving(head.reconciler, SystemClock(), extend), client:
            head.begin()
            yield Fleet(head, cluster, client)
            await head.close(end_nodes)
    finally:
        await cluster.close()


def each_hop_once(hops):
    """True if no second was decided twice or left out: the hop under way at a hand-over ends there, a shorter one."""
    return all(0 < b - a <= 1 for ends in hops.values() for a, b in itertools.pairwise([0.0, *ends]))


async def test_streams_move_with_their_nodes_and_each_hop_is_decided_once(tmp_path, server, unused_tcp_port):
    streams = {f"s{n}": LIVE for n in range(4)} | {"dock": LIVE | {"node": "dock"}}
    path = site_file(tmp_path, server, streams)
    cluster = ProcessCluster(tmp_path, "a", "b", tags={"b": {"dock"}})
    async with fleet(path, unused_tcp_port, cluster, extend=install) as running:
        await until(lambda: set(running.owners().values()) == {"a", "b"} and len(running.owners()) == 5)
        await running.decides(*streams)
        assert running.owners()["dock"] == "b"
        held = Counter(running.owners().values())
        assert max(held.values()) <= 3
        shown = (await running.client.get("/v1/status")).json()
        assert {one["slug"]: one["status"]["node"] for one in shown["streams"]} == running.owners()
        assert {one["state"] for one in (await running.nodes()).values()} == {"active"}
        await fleet_page.the_screens_show_nodes(running)
        await fleet_page.pictures_come_through_the_head(running)
        await fleet_page.pictures_of_a_node_are_for_its_head_alone(running, tmp_path)

        # A node that is killed: its streams go on elsewhere, but for one that only it may run.
        lost = [slug for slug, node in running.owners().items() if node == "b" and slug != "dock"]
        cluster.gone.add("b")
        cluster.signal("b", signal.SIGKILL)
        await until(lambda: all(running.owners()[slug] == "a" for slug in lost))
        await running.decides(*lost)
        assert (await running.nodes())["b"]["state"] == "dead"
        await until_status(running, "dock", "no node has the tag 'dock'")
        await fleet_page.a_node_that_is_gone_says_what_to_do(running)

        # It comes back, and takes its share.
        cluster.gone.clear()
        await until(lambda: Counter(running.owners().values())["b"] >= 2)
        await running.decides(*streams)

        # One that is frozen past its lease and woken does not decide on what others have taken meanwhile.
        frozen = [slug for slug, node in running.owners().items() if node == "a"]
        cluster.signal("a", signal.SIGSTOP)
        await until(lambda: all(running.owners()[slug] == "b" for slug in frozen))
        await running.decides(*frozen)
        cluster.signal("a", signal.SIGCONT)
        await until(lambda: "a" in running.owners().values())
        await running.decides(*streams)

        # Drained, it hands over; uncordoned, it gets streams again.
        async with fleet_page.watched(running, next(slug for slug, node in running.owners().items() if node == "a")):
            assert (await asked(running, "node", "drain", "a"))["state"] == "drained"
            await until(lambda: set(running.owners().values()) == {"b"})
            await running.decides(*streams)
        assert "It has no stream left" in await fleet_page.page(running, "/system")
        assert re.search(r"^a +drained +0 ", await resadapt(running, "node", "list"), re.MULTILINE)
        assert (await asked(running, "node", "cordon", "a"))["state"] == "cordoned"
        assert (await asked(running, "node", "uncordon", "a"))["state"] == "active"
        await until(lambda: "a" in running.owners().values())
        await running.decides(*streams)

        # A stream that is removed is cleared by whoever had it.
        removed = await running.client.delete("/v1/streams/s0")
        assert removed.status_code == 409  # it is written in the site file
        answer = await running.client.post("/v1/streams", json={"slug": "new", "url": LIVE["url"], "realtime": True})
        assert answer.status_code == 201, answer.text
        await until(lambda: running.owners().get("new") in ("a", "b"))
        await running.decides("new")
        await running.client.delete("/v1/streams/new")
        await until(lambda: running.owners()["new"] == "")
        ends = [one.event.data for one in running.head.reconciler.history().events() if one.event.stream_id == "new"]
        assert ends[0]["reason"] == "detached"
        await fleet_page.what_may_not_be_done_is_not_offered(running)
        hops = running.hops()
    assert each_hop_once(hops)
    assert set(running_owners_after(server).values()) == {""}


async def until_status(running, slug, reason):
    async with asyncio.timeout(60):
        while (await running.client.get(f"/v1/streams/{slug}")).json()["status"]["reason"] != reason:
            await asyncio.sleep(0.1)


def running_owners_after(address):
    engine = sa.create_engine(sa.make_url(address).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        found = {row.stream_id: row.holder for row in connection.execute(sa.select(STREAM_OWNER))}
    engine.dispose()
    return {slug: holder for slug, holder in found.items() if slug[0] != "_"}


async def test_nodes_go_on_without_a_head_and_the_next_one_takes_them_over(tmp_path, server, unused_tcp_port_factory):
    path = site_file(tmp_path, server, {"s": LIVE})
    cluster = ProcessCluster(tmp_path, "a")
    first = FleetHead(path, SystemClock(), cluster)
    try:
        async with first.reconciler:
            first.begin()
            await until(lambda: Fleet(first, cluster, None).owners() == {"s": "a"})
            second = FleetHead(path, SystemClock(), cluster)
            with pytest.raises(ConfigError, match=r"another head leads the fleet .* by head \("):
                await second.reconciler.__aenter__()
            await first.close(end_nodes=False)
        kept = cluster.processes["a"]
        assert kept.returncode is None
        third = FleetHead(path, SystemClock(), CutOffCluster(cluster.machines))
        async with third.reconciler:
            # It reaches the database but not the node, which goes on where it is, with the site that it knows.
            third.begin()
            running = Fleet(third, cluster, None)
            with capture_logs() as logs:
                await running.decides("s", more=3)
                await until(lambda: any(one["event"] == "node_lost" for one in logs))
                await third.reload()
            assert "no route" in next(one["reason"] for one in logs if one["event"] == "node_not_reloaded")
            assert running.owners() == {"s": "a"}
            assert (kept.returncode, [one for one in logs if one["event"] == "placed"]) == (None, [])
            with third.reconciler.registry.database.beside() as connection:
                connection.execute(
                    sa.update(STREAM_OWNER).where(STREAM_OWNER.c.stream_id == "_head").values(token=99, holder="x")
                )
            with pytest.raises(NotOwner, match="another head leads this fleet now"):
                await asyncio.wait_for(third.reconciler.service.broken(), 20)
            assert each_hop_once(running.hops())
            await third.close(end_nodes=False)
    finally:
        await cluster.close()


async def test_nodes_that_are_unfit_get_no_streams_and_say_why(tmp_path, server, unused_tcp_port):
    path = site_file(tmp_path, server, {"s": LIVE})
    cluster = ProcessCluster(tmp_path, "old", versions={"old": "0.0 (schema 1)"})
    async with fleet(path, unused_tcp_port, cluster) as running:
        book = NodeBook(running.database, SystemClock())
        for name, skew_s in (("late", -600.0), ("right", 0.0)):
            book.join(NodeOffer(name, f"{name} (here)", version(), 8.0), 600.0)
            book.sign(name, f"{name} (here)", 600.0, skew_s)
        async with asyncio.timeout(60):
            while "old" not in (nodes := await running.nodes()) or nodes["right"]["streams"] != 1:
                await asyncio.sleep(0.1)
        assert [nodes[name]["state"] for name in ("late", "old", "right")] == ["unfit", "unfit", "active"]
        assert nodes["late"]["reason"].startswith("its clock is 600 s behind the database's")
        assert "0.0 (schema 1)" in nodes["old"]["reason"]
        assert nodes["old"]["reason"].endswith(": install the same on both")
        # Where all clocks are off, it is the database's that is wrong.
        with running.database.beside() as connection:
            connection.execute(sa.delete(FLEET_NODE).where(FLEET_NODE.c.name == "right"))
        async with asyncio.timeout(60):
            while (await running.nodes())["late"]["streams"] != 1:
                await asyncio.sleep(0.1)
        missing = await running.client.post("/v1/nodes/nowhere/drain")
        assert (missing.status_code, "the nodes are late, old" in missing.json()["detail"]) == (404, True)


def test_a_fleet_whose_store_is_a_file_is_refused_by_name(tmp_path):
    path = site_file(tmp_path, f"sqlite:///{tmp_path / 'fleet.db'}", {"s": LIVE})
    with pytest.raises(ConfigError, match=r"store is 'sqlite:.*a fleet meets in its store"):
        FleetHead(path, SystemClock(), ProcessCluster(tmp_path))


async def test_a_service_without_a_fleet_has_no_nodes_and_says_so(tmp_path, unused_tcp_port):
    async with single(tmp_path, unused_tcp_port) as service:
        assert await asked(service, "node", "list") == []
        with pytest.raises(ConfigError, match="this service has none: it runs without --cluster"):
            await asked(service, "node", "drain", "edge-3")


def test_a_cluster_is_refused_by_name_before_it_is_looked_for(tmp_path):
    path = site_file(tmp_path, f"sqlite:///{tmp_path / 'fleet.db'}", {"s": LIVE})
    for arguments, reason in (
        (["--cluster", "auto"], "--cluster needs a site file"),
        (["-c", str(path), "--cluster", "auto"], "a fleet meets in its store"),
    ):
        result = CliRunner().invoke(app, ["serve", *arguments])
        assert isinstance(result.exception, ConfigError)
        assert reason in str(result.exception)


async def test_a_stream_that_another_process_takes_stops_alone_without_an_event(tmp_path):
    site = site_of(tmp_path, {"a": LIVE, "b": LIVE}, evidence={"enabled": False})
    async with Service(site, SystemClock(), share=WorkShare("streams", "one")) as service:
        await until(
            lambda: all(run.run.counts.hops > 1 for run in service.attachments.values()) and service.attachments
        )
        other = Store(str(tmp_path / "service.db"), SystemClock(), holder="two")
        await asyncio.to_thread(NodeBook(other.database, SystemClock()).renew, "two", 600.0)
        with capture_logs() as logs:
            await asyncio.to_thread(other.take, "a")
            await until(lambda: service.supervisors["a"].overtaken)
            decided = await asyncio.to_thread(other.load, "a")
            hops = service.attachments["b"].run.counts.hops
            await until(lambda: service.attachments["b"].run.counts.hops > hops + 1)
        assert [(one["stream"], "a (two)" in one["reason"]) for one in logs if one["event"] == "stream_taken"] == [
            ("a", True)
        ]
        assert "a (two)" in service.stream_status("a", None).reason
        assert service.health().live
        assert await asyncio.to_thread(other.load, "a") == decided
        kinds = [one.event.type for one in service.store.history.events() if one.event.stream_id == "a"]
        assert "stream.ended" not in kinds

        # It is begun anew once the other one has let go.
        await service.assign()
        await until(lambda: "decided on by two" in service.stream_status("a", None).reason)
        await asyncio.to_thread(other.let_go, "a")
        await until(lambda: service.stream_status("a", None).state == "up")
        other.close()
