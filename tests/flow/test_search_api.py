"""Search by real HTTP and by the command line, with and without the API."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.errors import ConfigError
from tests.api import running
from tests.flow.test_api_auth import make
from tests.flow.test_cli_remote import asked, resadapt
from tests.flow.test_evidence_api import opened, site
from tests.pictured import seeing


def use(monkeypatch, mllm):
    monkeypatch.setattr("pipeline.service.opening.build_mllm", lambda *_: mllm)


async def local(folder, *arguments):
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "-c", str(folder / "site.yaml")])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


async def test_events_are_found_by_words_and_by_their_pictures(tmp_path, unused_tcp_port, monkeypatch):
    use(monkeypatch, seeing(lambda *_: 0.75))
    async with running(tmp_path, unused_tcp_port, **site()) as service:
        client, name = service.client, await opened(service)
        found = (await client.get("/v1/search", params={"text": "a bar"})).json()
        assert name in [one["event"]["id"] for one in found["items"]]
        assert all((one["words"], one["answer"]) == (["bar"], None) for one in found["items"])
        assert found["searched"]["matched"] < found["searched"]["events"]
        assert (found["question"], found["cost"]["vision_tokens"]) == ("", 0)
        none = (await client.get("/v1/search", params={"text": "elephant"})).json()
        assert (none["items"], none["searched"]["matched"]) == ([], 0)
        response = await client.post("/v1/search", json={"text": "is a bar in view?", "at_most": 1, "tokens": 32})
        assert response.status_code == 200, response.text
        looked = response.json()
        assert looked["question"] == "is a bar in view?"
        assert (looked["cost"]["asked"], looked["cost"]["yes"]) == (1, 1)
        assert 0 < looked["cost"]["vision_tokens"] <= 32
        first = looked["items"][0]
        assert (first["event"]["id"], first["evidence"], first["answer"]) == (
            name, True, {"score": 0.75, "mass": 1.0, "verdict": "yes"},
        )  # fmt: skip


async def test_roles_and_tags_hold_for_search(tmp_path, unused_tcp_port, monkeypatch):
    use(monkeypatch, seeing(lambda *_: 0.75))
    async with running(tmp_path, unused_tcp_port, **site()) as service:
        client, name = service.client, await opened(service)
        admin = await make(service, "root", "admin")
        viewer, analyst = [await make(service, one, one, by=admin) for one in ("viewer", "analyst")]
        stranger = await make(service, "other", "analyst", ["north"], by=admin)
        for who, read, ask, items in (
            (viewer, 200, 403, 1),
            (analyst, 200, 200, 1),
            (stranger, 200, 200, 0),
            ({}, 401, 401, 0),
        ):
            response = await client.get("/v1/search", params={"text": "bar", "limit": 1}, headers=who)
            assert response.status_code == read
            looked = await client.post("/v1/search", json={"text": "bar", "limit": 1}, headers=who)
            assert looked.status_code == ask, looked.text
            for one in (response, looked):
                if one.status_code == 200:
                    assert len(one.json()["items"]) == items
        for where in ({"stream": "gate"}, {}):
            seen = (await client.get("/v1/search", params={"text": "bar"} | where, headers=stranger)).json()
            assert seen["searched"]["events"] == 0
            assert name not in json.dumps(seen)


async def test_what_cannot_be_searched_is_a_problem_that_names_the_field(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, **site()) as service:
        client = service.client
        await opened(service)
        for wrong, field in (
            ({"text": ""}, "text"),
            ({"text": "x" * 10_000}, "text"),
            ({"since": "2999-01-01"}, "since"),
            ({"since": "soon"}, "since"),
            ({"since": "1h", "until": "2h"}, "until"),
            ({"limit": 0}, "limit"),
            ({"limit": 100_000}, "limit"),
            ({"watch": "a\0b"}, "watch"),
        ):
            for response in (
                await client.get("/v1/search", params={"text": "bar"} | wrong),
                await client.post("/v1/search", json={"text": "bar"} | wrong),
            ):
                assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field), wrong
        for wrong, field in (({"at_most": 0}, "at_most"), ({"tokens": 1}, "tokens"), ({"more": 1}, "more")):
            response = await client.post("/v1/search", json={"text": "bar"} | wrong)
            assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)
        blind = await client.post("/v1/search", json={"text": "bar"})
        assert (blind.status_code, blind.json()["errors"][0]["field"]) == (422, "ask")
        assert "null answers without looking" in blind.json()["detail"]


async def test_one_search_asks_at_a_time(tmp_path, unused_tcp_port, monkeypatch):
    mllm = seeing(lambda *_: 0.75)
    use(monkeypatch, mllm)
    async with running(tmp_path, unused_tcp_port, **site()) as service:
        await opened(service)
        going, go_on, ask = asyncio.Event(), asyncio.Event(), mllm.ask

        async def slow(context, *arguments):
            if context.stream_id.startswith("search"):
                going.set()
                await go_on.wait()
            return await ask(context, *arguments)

        monkeypatch.setattr(mllm, "ask", slow)
        first = asyncio.create_task(service.client.post("/v1/search", json={"text": "bar", "at_most": 1}))
        await going.wait()
        second = await service.client.post("/v1/search", json={"text": "bar"})
        assert (second.status_code, second.headers["retry-after"]) == (503, "5")
        go_on.set()
        assert (await first).status_code == 200
        assert (await service.client.post("/v1/search", json={"text": "bar", "at_most": 1})).status_code == 200


async def test_the_command_says_the_same_by_the_api_and_beside_it(tmp_path, unused_tcp_port, monkeypatch):
    use(monkeypatch, seeing(lambda *_: 0.75))
    async with running(tmp_path, unused_tcp_port, **site()) as service:
        name = await opened(service)
        until = service.reconciler.history().event(name).event.time.isoformat()[:19] + ".999999+00:00"
        for more in ((), ("--ask", "--at-most", "1", "--tokens", "64")):
            arguments = ("search", "bar", "--since", "2026-01-01", "--until", until, "--watch", "bar", *more)
            by_api = await asked(service, *arguments)
            lines = (await local(tmp_path, *arguments, "--json")).splitlines()
            beside = json.loads(next(line for line in lines if line.startswith("{")))
            for one in (by_api, beside):
                one["cost"].pop("seconds")
            assert by_api == beside
            assert by_api["items"][0]["event"]["id"] == name
        shown = await resadapt(service, "search", "bar", "--ask", "--at-most", "1")
        assert "asked about 1 snapshots “Is this to be seen in the picture: bar?”: 1 yes, 0 no, 0 unknown" in shown
        assert "vision tokens" in shown
        assert "0 have words of it" in await resadapt(service, "search", "elephant", "--since", "1h")
        for arguments, words in (
            (("search", ""), "text: '' has no word"),
            (("search", "x" * 10_000), "text: has 10000 characters; expected at most 500"),
            (("search", "bar", "--since", "2999-01-01"), "since: .* lies in the future"),
            (("search", "bar", "--at-most", "5"), "expected them with --ask"),
        ):
            with pytest.raises(ConfigError, match=words):
                await resadapt(service, *arguments)
            with pytest.raises(ConfigError, match=words):
                await local(tmp_path, *arguments)
        with pytest.raises(ConfigError, match="a service asks its own"):
            await resadapt(service, "search", "bar", "--ask", "--mllm", "yard")
