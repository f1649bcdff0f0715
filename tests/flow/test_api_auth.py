"""Who may use the API: keys, roles, tags, guesses."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.api.server import Serving
from pipeline.clock import SystemClock
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError
from pipeline.registry.keys import Keys
from pipeline.service.keys import create_beside
from pipeline.service.reconciler import Reconciler
from tests.api import LIVE, running, site_file

PAUSED = {**LIVE, "paused": True}


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


async def make(service, name, role, tags=(), by=None, **more):
    body = {"name": name, "role": role, "tags": list(tags), **more}
    response = await service.client.post("/v1/keys", json=body, headers=by or {})
    assert response.status_code == 201, response.text
    return bearer(response.json()["key"])


async def test_keys_with_roles_tags_and_an_end(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        client = service.client
        assert (await client.get("/v1/status")).json()["auth"] is False
        admin = await make(service, "root", "admin")
        refused = await client.get("/v1/streams")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert (await client.get("/health/live")).status_code == 200

        viewer, analyst, operator = [
            await make(service, role, role, by=admin) for role in ("viewer", "analyst", "operator")
        ]
        question = {"question": "a car?"}
        expected = {
            ("GET", "/v1/streams", None): (200, 200, 200),
            ("PUT", "/v1/watches/car", json.dumps(question)): (403, 201, 200),
            ("PUT", "/v1/streams/gate", json.dumps(PAUSED)): (403, 403, 201),
            ("GET", "/v1/keys", None): (403, 403, 403),
            ("GET", "/v1/audit", None): (403, 403, 403),
            ("POST", "/v1/apply", "{}"): (403, 403, 200),
        }
        for (method, path, body), statuses in expected.items():
            for who, status in zip((viewer, analyst, operator), statuses, strict=True):
                headers = who | {"Content-Type": "application/json"}
                response = await client.request(method, path, content=body, headers=headers)
                assert response.status_code == status, (method, path, response.text)
                if status == 403:
                    assert response.json()["errors"][0]["field"] == "role"

        hook = {"url": "https://192.0.2.1/services/T0/B0/xyz", "signed": False}
        added = await client.put("/v1/sinks/hook", json=hook, headers=operator)
        assert added.status_code == 201, added.text
        for who, url in (
            (viewer, "https://192.0.2.1/***"),
            (analyst, "https://192.0.2.1/***"),
            (operator, hook["url"]),
        ):
            one = (await client.get("/v1/sinks/hook", headers=who)).json()
            edits = (await client.get("/v1/sinks/hook/history", headers=who)).json()["items"]
            assert (one["spec"]["url"], edits[0]["after"]["url"]) == (url, url)

        keys = (await client.get("/v1/keys", headers=admin)).json()["items"]
        assert {key["name"]: key["last_used_at"] is not None for key in keys}["viewer"]
        assert (await client.delete("/v1/keys/viewer", headers=admin)).status_code == 204
        assert (await client.get("/v1/streams", headers=viewer)).status_code == 401
        assert (await client.delete("/v1/keys/viewer", headers=admin)).status_code == 404
        actors = [edit["actor"] for edit in (await client.get("/v1/audit", headers=admin)).json()["items"]]
        assert {"local", "key:root", "key:analyst", "key:operator"} == set(actors)
        everything = json.dumps(keys) + (await client.get("/v1/audit", headers=admin)).text
        stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        for key in (admin, analyst, operator):
            secret = key["Authorization"].rpartition("_")[2]
            assert secret not in everything
            assert secret.encode() not in stored


async def test_a_key_for_some_tags_reaches_only_their_streams(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        client = service.client
        for slug, tag in (("gate", "dock"), ("yard", "north")):
            await client.put(f"/v1/streams/{slug}", json={**PAUSED, "tags": [tag]})
        await client.put("/v1/watches/all", json={"question": "a fire?"})
        await client.put("/v1/watches/north", json={"question": "a fox?", "streams": ["tag:north"]})
        admin = await make(service, "root", "admin")
        dock = await make(service, "dock", "operator", ["dock"], by=admin)

        seen = (await client.get("/v1/streams", headers=dock)).json()["items"]
        assert [item["slug"] for item in seen] == ["gate"]
        watches = (await client.get("/v1/watches", headers=dock)).json()["items"]
        assert [(item["slug"], list(item["streams"])) for item in watches] == [("all", ["gate"])]
        for method, path, body, status in (
            ("GET", "/v1/streams/yard", None, 404),
            ("PATCH", "/v1/streams/yard", {"priority": 2}, 404),
            ("PUT", "/v1/streams/yard", PAUSED, 403),
            ("PUT", "/v1/streams/new", PAUSED, 403),
            ("PUT", "/v1/streams/new", {**PAUSED, "tags": ["north"]}, 403),
            ("PATCH", "/v1/streams/gate", {"tags": ["north"]}, 403),
            ("PATCH", "/v1/watches/all", {"open_at": 0.9}, 403),
            ("PUT", "/v1/watches/mine", {"question": "x?"}, 403),
            ("PUT", "/v1/watches/mine", {"question": "x?", "streams": ["gate", "yard"]}, 403),
            ("PUT", "/v1/sinks/s", {"url": "kafka://10.0.0.1:9092/t"}, 403),
            ("POST", "/v1/apply", {"streams": {"yard": PAUSED}}, 403),
            ("POST", "/v1/reload", {}, 403),
            ("GET", "/metrics", None, 403),
            ("GET", "/v1/keys", None, 403),
        ):
            response = await client.request(method, path, json=body, headers=dock)
            assert response.status_code == status, (method, path, response.text)
        assert (await client.put("/v1/streams/new", json={**PAUSED, "tags": ["dock"]}, headers=dock)).status_code == 201
        mine = {"question": "x?", "streams": ["tag:dock", "gate"]}
        assert (await client.put("/v1/watches/mine", json=mine, headers=dock)).status_code == 201
        assert (await client.get("/v1/events", headers=dock)).json()["items"] == []


async def test_guesses_are_slowed_down_for_who_guesses_only(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        admin = await make(service, "root", "admin")
        guesses = [await service.client.get("/v1/streams", headers=bearer(f"rsk_{n}_guess")) for n in range(12)]
        assert [guess.status_code for guess in guesses] == [401] * 10 + [429] * 2
        assert int(guesses[-1].headers["retry-after"]) >= 1
        assert (await service.client.get("/v1/streams", headers=admin)).status_code == 429
        assert (await service.client.get("/health/live")).status_code == 200


async def test_an_api_that_others_reach_is_not_opened_without_a_key(tmp_path, unused_tcp_port):
    path = site_file(tmp_path, api={"host": "0.0.0.0", "port": unused_tcp_port})
    with pytest.raises(ConfigError, match="resadapt key create"):
        async with Serving(Reconciler(path, SystemClock()), SystemClock()):
            pass
    key = create_beside(f"sqlite:///{tmp_path / 'service.db'}", "root", "admin", [], None, SystemClock())
    import httpx

    async with Serving(Reconciler(path, SystemClock()), SystemClock()), httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{unused_tcp_port}/v1/status"
        assert (await client.get(url)).status_code == 401
        assert (await client.get(url, headers=bearer(key))).json()["auth"] is True


async def test_a_page_of_the_internet_that_points_its_name_here_is_refused(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""):
            response = await service.client.get("/v1/streams", headers={"Host": host})
            assert response.status_code == 400, host
        for host in ("localhost", f"localhost:{unused_tcp_port}", "127.0.0.1", "[::1]:8080"):
            assert (await service.client.get("/v1/streams", headers={"Host": host})).status_code == 200, host
        simple = {"Content-Type": "text/plain"}  # what a page may send without asking
        assert (await service.client.post("/v1/streams", content=json.dumps(LIVE), headers=simple)).status_code == 415
        assert (await service.client.post("/v1/keys", content='{"name": "x"}', headers=simple)).status_code != 201


async def test_rates_are_bounded(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, api={"rate_per_s": 0.01, "burst": 5}) as service:
        statuses = [(await service.client.get("/v1/streams")).status_code for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        assert (await service.client.get("/health/ready")).status_code == 200


def test_a_key_ends(tmp_path):
    class Later(SystemClock):
        ahead = timedelta()

        def now(self):
            return datetime.now(UTC) + self.ahead

    clock = Later()
    store = Store(f"sqlite:///{tmp_path / 'store.db'}", clock)
    keys = Keys(store.database, clock)
    _, text = keys.create("ann", "viewer", expires_at=clock.now() + timedelta(days=1))
    assert keys.verify(text).name == "ann"
    assert keys.any_stands()
    for wrong in (
        text + "x",
        text[:-1],
        "rsk__",
        "rsk",
        "",
        "a_b_c",
        text.replace("rsk", "xxx"),
        "\udc80",
        text.upper(),
    ):
        assert keys.verify(wrong) is None, wrong
    clock.ahead = timedelta(days=2)
    assert keys.verify(text) is None
    assert not keys.any_stands()
    with pytest.raises(ConfigError, match="past"):
        keys.create("bob", "viewer", expires_at=clock.now() - timedelta(seconds=1))
    for name, role, tags in (("a/b", "viewer", ()), ("bob", "king", ()), ("bob", "viewer", ("A B",))):
        with pytest.raises(ConfigError):
            keys.create(name, role, tags)
    store.close()
