"""The API by real HTTP: entries, revisions, owners, faults."""

import asyncio
import json

import pytest

from tests.api import LIVE, running, site_file
from tests.flow.test_service import until

PROBLEM = "application/problem+json"


@pytest.fixture
async def service(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as found:
        yield found


def fields(response):
    return [error["field"] for error in response.json()["errors"]]


async def up(service, slug):
    async def is_up():
        return (await service.client.get(f"/v1/streams/{slug}")).json()["status"]["state"] == "up"

    async with asyncio.timeout(20):
        while not await is_up():
            await asyncio.sleep(0.05)


async def test_a_stream_is_attached_watched_paused_resumed_and_detached(service):
    client = service.client
    added = await client.post("/v1/streams", json={"slug": "gate", "tags": ["dock"], **LIVE})
    assert (added.status_code, added.headers["location"], added.headers["etag"]) == (201, "/v1/streams/gate", '"1"')
    watch = await client.post("/v1/watches", json={"question": "Is there a car?", "streams": ["tag:dock"]})
    assert watch.json()["slug"] == "is-there-a-car"
    await up(service, "gate")
    await until(lambda: service.reconciler.service.attachments["gate"].run.answers)
    shown = (await client.get("/v1/watches/is-there-a-car")).json()
    assert shown["streams"]["gate"]["verdict"] in ("yes", "no")

    assert (await client.post("/v1/streams/gate/pause")).json()["spec"]["paused"] is True
    await until(lambda: "gate" not in service.reconciler.service.supervisors)
    assert (await client.get("/v1/streams/gate")).json()["status"]["state"] == "paused"
    await client.post("/v1/streams/gate/resume")
    await up(service, "gate")
    assert (await client.delete("/v1/streams/gate")).status_code == 204
    await until(lambda: "gate" not in service.reconciler.service.supervisors)
    events = (await client.get("/v1/events", params={"stream": "gate", "type": "stream.ended"})).json()["items"]
    assert [event["data"]["reason"] for event in events] == ["detached", "paused"]
    history = (await client.get("/v1/audit")).json()["items"]
    assert [edit["actor"] for edit in history] == ["local"] * 5


async def test_an_edit_concerns_nobody_else(service):
    for slug in ("a", "b"):
        await service.client.put(f"/v1/streams/{slug}", json=LIVE)
        await up(service, slug)
    kept = service.reconciler.service.supervisors["a"]
    await service.client.patch("/v1/streams/b", json={"sample_fps": 4})
    supervisors = service.reconciler.service.supervisors
    await until(lambda: "b" in supervisors and supervisors["b"].stream.sample_fps == 4)
    assert service.reconciler.service.supervisors["a"] is kept


async def test_putting_the_same_again_changes_nothing(service):
    first = await service.client.put("/v1/streams/gate", json=LIVE)
    again = await service.client.put("/v1/streams/gate", json=LIVE)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["etag"] == again.headers["etag"]
    edited = {**LIVE, "priority": 2}
    assert (await service.client.put("/v1/streams/gate", json=edited)).headers["etag"] == '"2"'


async def test_of_two_operators_the_second_is_told_what_happened(service):
    client = service.client
    await client.put("/v1/watches/fire", json={"question": "is there a fire?"})
    seen = (await client.get("/v1/watches/fire")).headers["etag"]
    first = await client.patch("/v1/watches/fire", json={"open_at": 0.8}, headers={"If-Match": seen})
    second = await client.patch("/v1/watches/fire", json={"open_at": 0.6}, headers={"If-Match": seen})
    assert (first.status_code, second.status_code) == (200, 412)
    assert "revision 2 now" in second.json()["detail"]
    assert (await client.get("/v1/watches/fire")).json()["spec"]["open_at"] == 0.8
    deleted = await client.delete("/v1/watches/fire", headers={"If-Match": seen})
    assert deleted.status_code == 412
    only_new = await client.put("/v1/watches/fire", json={"question": "x?"}, headers={"If-None-Match": "*"})
    assert only_new.status_code == 409


async def test_edits_that_name_no_revision_are_all_made(service):
    await service.client.put("/v1/watches/fire", json={"question": "is there a fire?"})
    patches = [{"open_at": 0.9}, {"clear_at": 0.1}, {"priority": 3}, {"cooldown_s": 5}]
    answers = await asyncio.gather(*(service.client.patch("/v1/watches/fire", json=patch) for patch in patches))
    assert {answer.status_code for answer in answers} == {200}
    spec = (await service.client.get("/v1/watches/fire")).json()["spec"]
    assert {name: value for patch in patches for name, value in patch.items()}.items() <= spec.items()


async def test_null_in_a_patch_takes_a_field_back_to_its_default(service):
    await service.client.put(
        "/v1/streams/gate", json={**LIVE, "budget": {"rate_tokens_per_s": 100, "burst_tokens": 50}}
    )
    patched = await service.client.patch("/v1/streams/gate", json={"budget": {"burst_tokens": None}, "realtime": None})
    assert patched.json()["spec"]["budget"] == {"rate_tokens_per_s": 100}
    assert "realtime" not in patched.json()["spec"]


WRONG = [
    ("streams", {"slug": "a/b", **LIVE}, 422, "slug"),
    ("streams", {"slug": "../../etc", **LIVE}, 422, "slug"),
    ("streams", {"slug": 5, **LIVE}, 422, "slug"),
    ("streams", {"slug": "gate"}, 422, "url"),
    ("streams", {"slug": "gate", **LIVE, "colour": "red"}, 422, "colour"),
    ("streams", {"slug": "gate", **LIVE, "sample_fps": "often"}, 422, "sample_fps"),
    ("streams", {"slug": "gate", **LIVE, "budget": {"burst_tokens": 1}}, 422, "budget.burst_tokens"),
    ("streams", {"slug": "gate", "url": "smoke://signals"}, 422, "url"),
    ("streams", {"slug": "gate", "url": "synthetic:?width=0"}, 422, "url"),
    ("watches", {"question": ""}, 422, "question"),
    ("watches", {"question": "x" * 10_000}, 422, "question"),
    ("watches", {"question": "a car?", "streams": ["gone"]}, 422, "streams"),
    ("watches", {"question": "a car?", "streams": ["a/b"]}, 422, "streams.0"),
    ("watches", {"question": "a car?", "open_at": 0.2}, 422, "clear_at"),
    ("watches", {"question": "a car?", "confirm": [3, 2]}, 422, "confirm"),
    ("sinks", {"slug": "x", "url": "smoke:signals"}, 422, "url"),
]
"""Path, body, status, and the field that is named."""


async def test_what_is_wrong_is_named_and_nothing_is_written(service):
    for path, body, status, field in WRONG:
        response = await service.client.post(f"/v1/{path}", json=body)
        assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM), response.text
        assert fields(response) == [field], response.text
        assert len(response.json()["detail"]) < 600
    assert (await service.client.get("/v1/audit")).json()["items"] == []


BODIES = [
    (b"{", "application/json", 400),
    (b"[1]", "application/json", 422),
    (b'{"question": NaN}', "application/json", 400),
    (b"[" * 100_000, "application/json", 400),
    (b'{"question": "x?"}', "text/plain", 415),
    (b"\xff\xfe", "application/json", 400),
    (b"x" * (5 * 2**20), "application/json", 413),
]
"""Content, content type, status."""


async def test_bodies_that_are_none_are_refused(service):
    for content, kind, status in BODIES:
        response = await service.client.post("/v1/watches", content=content, headers={"Content-Type": kind})
        assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM), (content[:20], kind)


async def test_a_body_without_a_length_is_bounded_too(service):
    async def endless():
        for _ in range(100):
            yield b"x" * 65_536

    headers = {"Content-Type": "application/json"}
    response = await service.client.post("/v1/watches", content=endless(), headers=headers)
    assert response.status_code == 413


async def test_a_missing_entry_is_a_problem_that_names_what_there_is(service):
    await service.client.put("/v1/streams/gate", json=LIVE)
    for response in (
        await service.client.get("/v1/streams/yard"),
        await service.client.patch("/v1/streams/yard", json={}),
        await service.client.delete("/v1/streams/yard"),
        await service.client.get("/v1/streams/yard/snapshot.jpg"),
    ):
        assert (response.status_code, response.headers["content-type"]) == (404, PROBLEM)
        assert "gate" in response.json()["detail"]
    assert (await service.client.get("/v2/streams")).status_code == 404
    assert (await service.client.put("/v1/streams")).status_code == 405


async def test_lists_are_paged_and_filtered(service):
    for n in range(5):
        tags = ["dock"] if n % 2 else []
        await service.client.put(
            f"/v1/streams/s{n}", json={**LIVE, "tags": tags, "paused": True, "site": f"site {n % 2}"}
        )
    first = (await service.client.get("/v1/streams", params={"limit": 2})).json()
    assert ([item["slug"] for item in first["items"]], first["next"]) == (["s0", "s1"], "s1")
    rest = (await service.client.get("/v1/streams", params={"limit": 3, "cursor": "s1"})).json()
    assert ([item["slug"] for item in rest["items"]], rest["next"]) == (["s2", "s3", "s4"], None)
    tagged = (await service.client.get("/v1/streams", params={"tag": "dock"})).json()
    assert [item["slug"] for item in tagged["items"]] == ["s1", "s3"]
    assert len((await service.client.get("/v1/streams", params={"site": "site 0"})).json()["items"]) == 3
    assert (await service.client.get("/v1/streams", params={"paused": False})).json()["items"] == []
    wrong = await service.client.get("/v1/streams", params={"limit": 0})
    assert (wrong.status_code, fields(wrong)) == (422, ["limit"])


async def test_what_a_site_file_says_is_edited_there_and_survives_beside_what_was_added(tmp_path, unused_tcp_port):
    streams = {"gate": {**LIVE, "paused": True}}
    async with running(tmp_path, unused_tcp_port, streams=streams) as service:
        await service.client.put("/v1/streams/yard", json={**LIVE, "paused": True})
        for response in (
            await service.client.patch("/v1/streams/gate", json={"priority": 2}),
            await service.client.delete("/v1/streams/gate"),
            await service.client.put("/v1/streams/gate", json=LIVE),
            await service.client.post("/v1/streams/gate/resume"),
        ):
            assert response.status_code == 409
            assert "site.yaml" in response.json()["detail"]
    async with running(tmp_path, unused_tcp_port, streams={"shed": {**LIVE, "paused": True}}) as service:
        items = (await service.client.get("/v1/streams")).json()["items"]
        assert [item["slug"] for item in items] == ["shed", "yard"]
        assert [item["owner"].partition(":")[0] for item in items] == ["file", "local"]


async def test_the_site_file_is_reloaded_with_a_preview(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, streams={"gate": {**LIVE, "paused": True}}) as service:
        api = {"port": unused_tcp_port, "allow_addresses": ["loopback"]}
        site_file(tmp_path, streams={"yard": {**LIVE, "paused": True}}, api=api)
        preview = (await service.client.post("/v1/reload", params={"dry_run": True})).json()
        assert [(step["slug"], step["action"]) for step in preview["steps"]] == [("gate", "remove"), ("yard", "add")]
        assert [item["slug"] for item in (await service.client.get("/v1/streams")).json()["items"]] == ["gate"]
        assert (await service.client.post("/v1/reload")).json()["applied"]
        assert [item["slug"] for item in (await service.client.get("/v1/streams")).json()["items"]] == ["yard"]
        site_file(tmp_path, mllm="tiny", api=api)
        assert (await service.client.post("/v1/reload", params={"dry_run": True})).json()["restarts"] == ["mllm"]
        refused = await service.client.post("/v1/reload")
        assert (refused.status_code, "restart" in refused.json()["detail"]) == (422, True)
        assert [item["slug"] for item in (await service.client.get("/v1/streams")).json()["items"]] == ["yard"]


async def test_a_site_is_applied_after_a_look_at_the_difference(service):
    client = service.client
    await client.put("/v1/streams/gate", json={**LIVE, "paused": True})
    await client.put("/v1/watches/old", json={"question": "old?"})
    site = {
        "streams": {"gate": {**LIVE, "paused": True, "priority": 2}, "yard": {**LIVE, "paused": True}},
        "watches": {"car": {"question": "a car?", "streams": ["yard"]}},
        "mllm": "tiny",
        "metrics": {"port": 1},
    }
    plan = (await client.post("/v1/apply", params={"dry_run": True, "prune": True}, json=site)).json()
    steps = {(step["kind"], step["slug"]): (step["action"], step["fields"]) for step in plan["steps"]}
    assert steps["stream", "gate"] == ("change", ["priority"])
    assert steps["stream", "yard"][0] == "add"
    assert steps["watch", "old"] == ("remove", [])
    assert (plan["restarts"], plan["process"], plan["applied"]) == (["mllm"], ["metrics"], False)
    assert len((await client.get("/v1/audit")).json()["items"]) == 2
    assert (await client.post("/v1/apply", params={"prune": True}, json=site)).json()["applied"]
    again = (await client.post("/v1/apply", params={"dry_run": True}, json=site)).json()
    assert {step["action"] for step in again["steps"]} == {"leave"}
    assert [item["slug"] for item in (await client.get("/v1/watches")).json()["items"]] == ["car"]


async def test_of_a_site_with_one_fault_nothing_is_applied(service):
    site = {"streams": {"a": LIVE, "b": {**LIVE, "sample_fps": -1}}}
    response = await service.client.post("/v1/apply", json=site)
    assert (response.status_code, fields(response)) == (422, ["sample_fps"])
    assert "streams.b" in response.json()["detail"]
    assert (await service.client.get("/v1/streams")).json()["items"] == []


async def test_health_metrics_and_the_documentation_are_there(service):
    assert (await service.client.get("/health/live")).json()["ok"]
    assert (await service.client.get("/health/ready")).status_code == 200
    assert (await service.client.get("/health/startup")).status_code == 200
    assert "resadapt_hops_total" in (await service.client.get("/metrics")).text
    assert (await service.client.get("/docs")).status_code == 200
    overview = (await service.client.get("/v1/status")).json()
    assert (overview["mllm"], overview["auth"]) == ("null", False)
    assert "no key is needed" in overview["notice"]


@pytest.mark.parametrize(("characters", "reason"), [(20_000, b"is no SLUG"), (20_001, b"20000 characters")])
async def test_the_longest_query_that_is_documented_is_read(service, characters, reason):
    query = "%F0%9F%93%B7" * characters  # the longest way to write a character
    head = f"GET /v1/tiles?streams={query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", service.client.base_url.port)
    writer.write(head.encode())
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 422")
    assert reason in answer
    writer.close()


async def test_edits_of_another_process_are_seen(service):
    from pipeline.clock import SystemClock
    from pipeline.delivery.store import Store
    from pipeline.registry.entry import Change
    from pipeline.registry.registry import Registry

    other = Store(service.reconciler.service.site.store, SystemClock())
    await asyncio.to_thread(
        Registry(other.database, SystemClock()).edit, [Change("stream", "gate", LIVE, "ann")], "ann"
    )
    other.close()
    await until(lambda: "gate" in service.reconciler.service.supervisors)


async def test_an_entry_that_cannot_run_says_why_and_takes_nobody_along(service, monkeypatch):
    monkeypatch.setenv("SINK_SECRET", "s3cret")
    sink = {"url": "https://127.0.0.1:1/x", "secret": "${SINK_SECRET}"}
    assert (await service.client.put("/v1/sinks/hook", json=sink)).status_code == 201
    await until(lambda: "hook" in service.reconciler.service.sink_counts)
    monkeypatch.delenv("SINK_SECRET")
    await service.client.put("/v1/sinks/hook", json={**sink, "url": "https://127.0.0.1:2/x"})
    await service.client.put("/v1/streams/gate", json=LIVE)
    await until(lambda: "gate" in service.reconciler.service.supervisors)
    shown = (await service.client.get("/v1/sinks/hook")).json()
    assert "SINK_SECRET is not set" in shown["last_error"]
    assert "s3cret" not in json.dumps(shown)
