"""The page and the pictures of a fleet: streams run on nodes, and people look at them through the head."""

import asyncio
import io
import re
import signal

import httpx
import pytest
from PIL import Image

from pipeline.api.far import FarNodes, FarTiles
from pipeline.api.node_pictures import offer_pictures
from pipeline.api.problems import Problem
from pipeline.clock import SystemClock
from pipeline.delivery.nodes import NodeBook
from pipeline.fleet.terms import NodeReport
from pipeline.page.app import install
from pipeline.service.share import PicturePlace
from tests.api import LIVE as STREAM
from tests.api import running as single
from tests.fleet import ProcessCluster
from tests.flow.test_fleet import LIVE, fleet, site_file, until
from tests.flow.test_page import tiles
from tests.unit.test_store import server as server

pytestmark = pytest.mark.timeout(300)  # processes start slowly on busy cores


async def test_people_see_the_nodes_of_a_fleet_and_the_pictures_of_their_streams(tmp_path, server, unused_tcp_port):
    path = site_file(tmp_path, server, {"s0": LIVE, "s1": {**LIVE, "tags": ["dock"]}, "s2": LIVE})
    cluster = ProcessCluster(tmp_path, "a", "b")
    async with fleet(path, unused_tcp_port, cluster, furnish=install) as running:
        await until(lambda: set(running.owners().values()) == {"a", "b"} and len(running.owners()) == 3)
        await running.decides("s0", "s1", "s2")
        await _the_screens_show_nodes(running)
        reports = NodeBook(running.database, SystemClock()).reports()
        places = {name: NodeReport.from_json(text).pictures for name, text in reports.items()}
        await _pictures_come_through_the_head(running)
        await _pictures_of_a_node_are_for_its_head_alone(running, places, tmp_path)
        await _moving_pictures_go_on_elsewhere(running)
        await _what_may_not_be_done_is_not_offered(running)
        await _a_node_that_is_gone_says_what_to_do(running, cluster)


async def page(running, path, key=None):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = await running.client.get(path, headers=headers)
    assert response.status_code == 200, response.text
    return response.text


async def _the_screens_show_nodes(running):
    system = await page(running, "/system")
    section = system.partition('id="nodes"')[2].partition("</section>")[0]
    assert re.findall(r"<strong>(\w)</strong>", section) == ["a", "b"]
    assert section.count("state-active") == 2
    assert {verb: section.count(f"/{verb}") for verb in ("drain", "cordon", "uncordon")} == {
        "drain": 2, "cordon": 2, "uncordon": 0,
    }  # fmt: skip
    owners = running.owners()
    for node in ("a", "b"):
        wall = await page(running, f"/?node={node}")
        shown = set(re.findall(r'data-stream="(\w+)"', wall))
        assert shown == {slug for slug, owner in owners.items() if owner == node}
        assert f'<option value="{node}" selected' in wall
    assert f'id="node">{owners["s0"]}<' in await page(running, "/streams/s0")


async def _pictures_come_through_the_head(running):
    answer = await running.client.get("/v1/streams/s0/snapshot.jpg", params={"width": 80, "overlay": True})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(answer.content)).size == (80, 48)
    assert "x-captured-at" in answer.headers
    found = {}
    async with asyncio.timeout(30):
        while set(found) != {"s0", "s1", "s2"}:
            _, pictures = await tiles(running.client, "s0,s1,s2")
            found |= {name.partition(".")[0]: jpeg for name, jpeg in pictures.items()}
    assert {Image.open(io.BytesIO(jpeg)).size for jpeg in found.values()} == {(160, 96)}
    probed = await running.client.post("/v1/streams/s0/probe")
    assert (probed.status_code, f"(on {running.owners()['s0']})" in probed.json()["detail"]) == (422, True)
    missing = await running.client.get("/v1/streams/nowhere/snapshot.jpg")
    assert missing.status_code == 404


async def _pictures_of_a_node_are_for_its_head_alone(running, places, folder):
    async with httpx.AsyncClient() as client:
        for node, place in places.items():
            slug = next(slug for slug, owner in running.owners().items() if owner == node)
            for path in (
                f"/v1/streams/{slug}/snapshot.jpg",
                f"/v1/streams/{slug}/live.mjpeg",
                f"/v1/tiles?streams={slug}",
            ):
                for proof in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {place.token[:-1]}"},
                              {"Authorization": f"Basic {place.token}"}, {"X-API-Key": place.token}):  # fmt: skip
                    assert (await client.get(place.url + path, headers=proof)).status_code == 401
            for path in ("/v1/streams", "/v1/keys", "/openapi.json", "/docs", "/", "/metrics"):
                proof = {"Authorization": f"Bearer {place.token}"}
                assert (await client.get(place.url + path, headers=proof)).status_code == 404
    tokens = [place.token for place in places.values()]
    assert len(set(tokens)) == 2
    shown = "".join([await page(running, "/system"), (await running.client.get("/v1/nodes")).text])
    shown += (await running.client.get("/v1/status")).text + repr(places)
    shown += "".join(file.read_text() for file in folder.glob("*.log"))
    assert [token for token in tokens if token in shown] == []


async def _moving_pictures_go_on_elsewhere(running):
    node = running.owners()["s0"]
    other = {"a": "b", "b": "a"}[node]
    async with running.client.stream("GET", "/v1/streams/s0/live.mjpeg", params={"width": 80}) as answer:
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        parts = answer.aiter_bytes()
        assert (await anext(parts)).startswith(b"--frame\r\n")
        drained = await running.client.post(f"/system/nodes/{node}/drain")
        assert (drained.status_code, drained.headers["location"]) == (303, "../../../system?said=drain#nodes")
        async with asyncio.timeout(60):
            while running.owners()["s0"] != other:
                await asyncio.sleep(0.05)
            await running.decides("s0")
            for _ in range(40):
                await anext(parts)
    assert "It has no stream left" in await page(running, "/system")
    back = await running.client.post(f"/system/nodes/{node}/uncordon")
    assert back.status_code == 303
    nowhere = await running.client.post("/system/nodes/nowhere/drain")
    assert (nowhere.status_code, "the nodes are a, b" in nowhere.text) == (404, True)


async def _what_may_not_be_done_is_not_offered(running):
    made = (await running.client.post("/v1/keys", json={"name": "root", "role": "admin"})).json()["key"]
    running.client.headers["Authorization"] = f"Bearer {made}"
    for name, tags, sees in (("looker", [], True), ("dock", ["dock"], False)):
        body = {"name": name, "role": "viewer", "tags": tags}
        key = (await running.client.post("/v1/keys", json=body)).json()["key"]
        text = await page(running, "/system", key)
        assert ('id="nodes"' in text, "/cordon" in text) == (sees, False)
        refused = await running.client.post("/system/nodes/a/drain", headers={"Authorization": f"Bearer {key}"})
        assert refused.status_code == 403
        other = "s0" if tags else "nowhere"
        proof = {"Authorization": f"Bearer {key}"}
        assert (await running.client.get(f"/v1/streams/{other}/snapshot.jpg", headers=proof)).status_code == 404


async def _a_node_that_is_gone_says_what_to_do(running, cluster):
    cluster.gone.add("b")
    cluster.signal("b", signal.SIGKILL)
    async with asyncio.timeout(40):
        while "node b" not in (await running.client.get("/v1/status")).text:
            await asyncio.sleep(0.1)
    section = (await page(running, "/system")).partition('id="nodes"')[2].partition("</section>")[0]
    assert "gives no sign of life" in section
    assert "Check the machine" in section
    await until(lambda: set(running.owners().values()) == {"a"})
    answer = await running.client.get("/v1/streams/s0/snapshot.jpg")
    assert answer.status_code in (200, 503)


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
            far = FarTiles(SystemClock(), nodes, {**dict.fromkeys(streams, place)}.get)
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
            with pytest.raises(Problem, match="the node n is starting"):
                await nodes.tiles(PicturePlace("n", place.url, "wrong"), {"gate": 0}, 320)
        with pytest.raises(Problem, match="the node n, which runs this, does not answer"):
            await nodes.tiles(place, {"gate": 0}, 320)
        assert await far.next("gate", 320, 0, 0.2) is None
        await nodes.close()
