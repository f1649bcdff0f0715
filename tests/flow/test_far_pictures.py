"""Pictures of streams on other nodes without a fleet, and the page of a service that is in none."""

import asyncio
import io

import pytest
from PIL import Image

from pipeline.api.far import FarNodes, FarTiles
from pipeline.api.node_pictures import offer_pictures
from pipeline.api.problems import Problem
from pipeline.clock import SystemClock
from pipeline.errors import ConfigError
from pipeline.service.share import PicturePlace
from tests.api import LIVE as STREAM
from tests.api import running as single
from tests.fleet_page import page


async def test_nodes_are_shown_in_a_fleet_only(tmp_path, unused_tcp_port):
    async with single(tmp_path, unused_tcp_port, streams={"gate": STREAM}) as service:
        assert (await service.client.get("/v1/status")).json()["in_fleet"] is False
        assert 'id="nodes"' not in await page(service, "/system")
        wall = await page(service, "/")
        assert 'name="node"' not in wall
        assert 'data-part="node"' not in wall
        assert '<div id="node-row" hidden>' in await page(service, "/streams/gate")


class CountedNodes(FarNodes):
    """Counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    async def tiles(self, where, seen, width):
        self.asked.append(set(seen))
        return await super().tiles(where, seen, width)


async def test_pictures_that_are_waited_for_on_a_node_come_by_one_request(tmp_path, unused_tcp_port):
    streams = {name: STREAM for name in ("gate", "dock", "yard")}
    async with single(tmp_path, unused_tcp_port, streams=streams) as service:
        async with asyncio.timeout(30):
            while len(service.reconciler.service.attachments) < 3:
                await asyncio.sleep(0.05)
        nodes = CountedNodes()
        async with offer_pictures(service.reconciler, SystemClock(), "n", "127.0.0.1", 0) as place:
            far = FarTiles(SystemClock(), nodes, lambda slug: None if slug == "nowhere" else place)
            found = await asyncio.gather(*(far.next(slug, 320, 0, 10.0) for slug in streams))
            assert all(Image.open(io.BytesIO(one.jpeg)).size == (160, 96) for one in found)
            assert set(streams) in nodes.asked
            later = await far.next("gate", 320, found[0].number, 10.0)
            assert later.number != found[0].number
            assert later.captured_at > found[0].captured_at
            assert await far.next("nowhere", 320, 0, 10.0) is None
            count = len(nodes.asked)
            await asyncio.sleep(0.6)
            assert len(nodes.asked) == count  # nobody waits any more
            unknown = {f"x{number}" for number in range(300)}
            assert set(await asyncio.gather(*(far.next(slug, 960, 0, 2.0) for slug in unknown))) == {None}
            assert max(map(len, nodes.asked[count:])) <= 128  # more than a node takes at once
            assert set().union(*nodes.asked[count:]) == unknown
        await nodes.close()


async def test_a_node_that_does_not_answer_is_named(tmp_path, unused_tcp_port):
    nodes = FarNodes()
    async with single(tmp_path, unused_tcp_port, streams={"gate": STREAM}) as service:
        async with offer_pictures(service.reconciler, SystemClock(), "n", "127.0.0.1", 0) as place:
            with pytest.raises(Problem, match="the node n is starting"):  # it has another token now
                await nodes.tiles(PicturePlace("n", place.url, "wrong"), {"gate": 0}, 320)
            with pytest.raises(Problem, match=r"there is no stream 'nowhere'.*\(on n\)"):
                await nodes.get(place, "/v1/streams/nowhere/snapshot.jpg", {"width": 320})
            taken = int(place.url.rpartition(":")[2])
            with pytest.raises(ConfigError, match=f"pictures of the node m cannot be offered on 127.0.0.1:{taken}"):
                await offer_pictures(service.reconciler, SystemClock(), "m", "127.0.0.1", taken).__aenter__()
        with pytest.raises(Problem, match="the node n, which runs this, does not answer"):
            await nodes.tiles(place, {"gate": 0}, 320)
        assert await FarTiles(SystemClock(), nodes, {"gate": place}.get).next("gate", 320, 0, 0.2) is None
        await nodes.close()
