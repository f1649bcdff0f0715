"""A fleet as people see it through its head: its nodes, and the streams that run on them. `running` has its `client`
(httpx), `owners()`, `nodes()` and `database`."""

import asyncio
import io
import re
from contextlib import asynccontextmanager

import httpx
from PIL import Image

from pipeline.clock import SystemClock
from pipeline.delivery.nodes import NodeBook
from pipeline.fleet.terms import NodeReport
from tests.api import tiles


async def until(condition, seconds=40.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def page(running, path, key=None):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = await running.client.get(path, headers=headers)
    assert response.status_code == 200, response.text
    return response.text


def nodes_of(system):
    """The part of the screen System about nodes."""
    return system.partition('id="nodes"')[2].partition("</section>")[0]


async def the_screens_show_nodes(running):
    section = nodes_of(await page(running, "/system"))
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
    for verb, state in (("cordon", "cordoned"), ("uncordon", "active")):
        changed = await running.client.post(f"/system/nodes/b/{verb}")
        assert (changed.status_code, changed.headers["location"]) == (303, f"../../../system?said={verb}#nodes")
        assert (await running.nodes())["b"]["state"] == state
        assert f"state-{state}" in nodes_of(await page(running, "/system"))
    nowhere = await running.client.post("/system/nodes/nowhere/drain")
    assert (nowhere.status_code, "the nodes are a, b" in nowhere.text) == (404, True)


async def pictures_come_through_the_head(running):
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


async def pictures_of_a_node_are_for_its_head_alone(running, folder):
    reports = NodeBook(running.database, SystemClock()).reports()
    places = {name: NodeReport.from_json(text).pictures for name, text in reports.items()}
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


@asynccontextmanager
async def watched(running, slug):
    """Somebody looks at a stream meanwhile, and its pictures go on in the end."""
    pictures = []

    async def watch():
        async with running.client.stream("GET", f"/v1/streams/{slug}/live.mjpeg", params={"width": 80}) as answer:
            assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
            async for part in answer.aiter_bytes():
                pictures.append(part)

    watching = asyncio.create_task(watch())
    await until(lambda: pictures)
    assert pictures[0].startswith(b"--frame\r\n")
    yield
    count = len(pictures)
    await until(lambda: len(pictures) > count + 2)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def what_may_not_be_done_is_not_offered(running):
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


async def a_node_that_is_gone_says_what_to_do(running):
    assert "node b" in [one["what"] for one in (await running.client.get("/v1/status")).json()["troubles"]]
    section = nodes_of(await page(running, "/system"))
    assert "it gives no sign of life" in section
    assert "state-dead" in section
    assert "Check the machine" in section
