"""Evidence, explanations, replay and labels by real HTTP and by the command line, with and without the API."""

import asyncio
import csv
import io
import json

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.delivery.history import EventFilter
from pipeline.errors import ConfigError
from tests.api import running
from tests.clips import steady, write
from tests.flow.test_api_auth import bearer, make
from tests.flow.test_cli_remote import asked, resadapt
from tests.flow.test_service import until

GATE = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "realtime": True, "tags": ["dock"]}
WATCH = {"bar": {"question": "is a bar in view?"}}
EVIDENCE = {"min_free_mib": 0}


async def opened(service):
    """The id of the first opened watch, once its evidence is written."""
    wanted = EventFilter(types=frozenset({"watch.opened"}))
    await until(lambda: service.reconciler.service.metrics.value("evidence_written"))
    return service.reconciler.history().events(wanted)[-1].event.id


def site(**more):
    return {"streams": {"gate": GATE}, "watches": WATCH, "evidence": EVIDENCE} | more


async def test_an_event_shows_what_it_rests_on(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, **site()) as service:
        client, name = service.client, await opened(service)
        shown = (await client.get(f"/v1/events/{name}/evidence")).json()
        assert (shown["stream"], shown["watch"], shown["whole"], shown["held_by"]) == ("gate", "bar", True, None)
        assert shown["clip"] is None
        assert shown["clip_note"] == "its source gives no packets"
        assert "is a bar in view?" in shown["prompt"]
        for path, kind, head in (
            ("snapshot.jpg", "image/jpeg", b"\xff\xd8"),
            ("segments/0.png", "image/png", b"\x89PNG"),
            ("explain.html", "text/html; charset=utf-8", b"<!doc"),
        ):
            response = await client.get(f"/v1/events/{name}/{path}")
            assert (response.status_code, response.headers["content-type"]) == (200, kind)
            assert response.content.startswith(head)
        assert "default-src 'none'" in response.headers["content-security-policy"]
        words = (await client.get(f"/v1/events/{name}/explain")).json()
        assert words["fired"]
        assert "the model answered yes with a score of 1.00" in " ".join(words["sentences"])
        again = (await client.post(f"/v1/events/{name}/replay")).json()
        assert (again["same"], again["identical"], again["same_model"]) == (True, True, True)
        for path, status in (
            ("clip.mp4", 404), ("segments/99.png", 404), ("segments/-1.png", 404), ("segments/x.png", 422),
            ("segments/..%2F..%2Fservice.db.png", 404),
        ):  # fmt: skip
            assert (await client.get(f"/v1/events/{name}/{path}")).status_code in (status, 422), path
        for path in ("evidence", "explain", "explain.html", "snapshot.jpg", "clip.mp4", "segments/0.png"):
            for gone in ("nobody", "%00", "..%2f..", "a%2Fb"):
                assert (await client.get(f"/v1/events/{gone}/{path}")).status_code == 404
        stored = next(service.reconciler.service.evidence_files.root.rglob("*.jpg"))
        stored.write_bytes(b"something else")
        damaged = await client.get(f"/v1/events/{name}/snapshot.jpg")
        assert (damaged.status_code, damaged.json()["title"]) == (500, "evidence damaged")
        assert stored.stem in damaged.json()["detail"]


async def test_a_clip_comes_in_parts_as_players_ask_for_it(tmp_path, unused_tcp_port):
    url = str(write(tmp_path / "gate.mp4", steady(6)))
    api = {"allow_addresses": ["file:" + str(tmp_path)]}
    async with running(tmp_path, unused_tcp_port, **site(streams={"gate": {"url": url}}), api=api) as service:
        name = await opened(service)

        async def clip(**headers):
            return await service.client.get(f"/v1/events/{name}/clip.mp4", headers=headers)

        async with asyncio.timeout(20):
            while (whole := await clip()).status_code != 200:
                await asyncio.sleep(0.1)
        part = await clip(Range="bytes=4-7")
        assert (part.status_code, part.content) == (206, whole.content[4:8])
        assert part.content == b"ftyp"


async def test_roles_and_tags_hold_for_evidence_and_labels(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, **site()) as service:
        client, name = service.client, await opened(service)
        admin = await make(service, "root", "admin")
        viewer, analyst, operator = [
            await make(service, one, one, by=admin) for one in ("viewer", "analyst", "operator")
        ]
        stranger = await make(service, "other", "operator", ["north"], by=admin)
        interval = {"stream": "gate", "watch": "bar", "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:01:00Z"}
        for method, path, body, statuses in (
            ("GET", f"/v1/events/{name}/evidence", None, (200, 200, 200, 404)),
            ("GET", f"/v1/events/{name}/explain", None, (200, 200, 200, 404)),
            ("GET", f"/v1/events/{name}/segments/0.png", None, (200, 200, 200, 404)),
            ("GET", "/v1/watches/bar/explain?at=1&stream=gate", None, (200, 200, 200, 404)),
            ("POST", f"/v1/events/{name}/replay", None, (403, 200, 200, 404)),
            ("PUT", f"/v1/events/{name}/label", {"label": "false"}, (403, 200, 200, 404)),
            ("POST", "/v1/labels", interval, (403, 201, 201, 404)),
            ("PUT", f"/v1/events/{name}/hold", None, (403, 403, 200, 404)),
            ("DELETE", f"/v1/events/{name}/hold", None, (403, 403, 200, 404)),
        ):
            for who, status in zip((viewer, analyst, operator, stranger), statuses, strict=True):
                response = await client.request(method, path, json=body, headers=who)
                assert response.status_code == status, (method, path, response.text)
        assert (await client.get("/v1/labels", headers=stranger)).json()["items"] == []
        items = (await client.get("/v1/labels", headers=viewer)).json()["items"]
        assert [(one["kind"], one["by"]) for one in items] == [
            ("missed", "key:operator"), ("missed", "key:analyst"), ("false", "key:operator"),
        ]  # fmt: skip
        assert bearer("x")


async def test_labels_stay_on_record(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, **site()) as service:
        client, name = service.client, await opened(service)
        for label, note in (("true", "seen"), ("fixture", "=cmd()"), (None, "")):
            await client.put(f"/v1/events/{name}/label", json={"label": label, "note": note})
            shown = (await client.get(f"/v1/events/{name}")).json()
            assert shown["label"] == label
        assert (await client.get("/v1/labels")).json()["items"] == []
        every = (await client.get("/v1/labels", params={"withdrawn": True})).json()["items"]
        assert [(one["kind"], one["withdrawn_by"]) for one in every] == [("fixture", "local"), ("true", "local")]
        await client.put(f"/v1/events/{name}/label", json={"label": "fixture", "note": "=cmd()"})
        missed = await client.post(
            "/v1/labels",
            json={"stream": "gate", "watch": "bar", "start": "2026-01-01T01:00:00+01:00", "end": "2026-01-01T00:00:30"},
        )
        assert missed.json()["start"] == "2026-01-01T00:00:00Z"
        rows = list(csv.DictReader(io.StringIO((await client.get("/v1/labels.csv")).text)))
        assert [(row["kind"], row["note"], row["event"]) for row in rows] == [
            ("fixture", "'=cmd()", name), ("missed", "", ""),
        ]  # fmt: skip
        wrong = {"stream": "gate", "watch": "bar", "start": "2026-01-01T00:00:00Z"}
        for body, field in (
            (wrong | {"end": "2025-12-31T00:00:00Z"}, "to"),
            (wrong | {"end": "2026-02-01T00:00:00Z"}, "to"),
            (wrong | {"end": "noon"}, "end"),
            (wrong | {"start": "2999-01-01T00:00:00Z", "end": "2999-01-01T00:00:09Z"}, "from"),
            (wrong | {"end": "2026-01-01T00:00:09Z", "note": "x" * 2001}, "note"),
        ):
            refused = await client.post("/v1/labels", json=body)
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
        missing = await client.post("/v1/labels", json=wrong | {"stream": "nobody", "end": "2026-01-01T00:00:09Z"})
        assert missing.status_code == 404
        stream_event = (await client.get("/v1/events", params={"type": "stream.attached"})).json()["items"][0]["id"]
        assert (await client.put(f"/v1/events/{stream_event}/label", json={"label": "true"})).status_code == 422
        number = missed.json()["id"]
        assert (await client.delete(f"/v1/labels/{number}")).status_code == 204
        assert (await client.delete("/v1/labels/999")).status_code == 404
        assert len((await client.get("/v1/labels")).json()["items"]) == 1


async def test_a_moment_without_an_event_is_explained(tmp_path, unused_tcp_port):
    watches = {
        "bar": {"question": "is a bar in view?", "open_at": 0.9, "confirm": [3, 3]},
        "nowhere": {"question": "is a bar in view?", "streams": ["tag:none"]},
    }
    async with running(tmp_path, unused_tcp_port, **site(watches=watches)) as service:
        client = service.client
        await opened(service)

        async def words(at):
            response = await client.get("/v1/watches/bar/explain", params={"at": at})
            assert response.status_code == 200, response.text
            return response.json()

        first, third, last = [await words(at) for at in ("0.5", "2.5", "1e9")]
        assert not first["fired"]
        assert "have a score of 0.9 or more, this one included; 1 had" in " ".join(first["sentences"])
        assert third["fired"]
        assert "With it the watch opened" in " ".join(third["sentences"])
        assert "No answers of this stream are kept" in " ".join(last["sentences"])
        page = await client.get("/v1/watches/bar/explain.html", params={"at": "0.5"})
        assert "data:image/jpeg" in page.text
        for at in ("yesterday", "", "1e999", "-5"):
            refused = await client.get("/v1/watches/bar/explain", params={"at": at})
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "at")
        for which in ({}, {"stream": ""}, {"stream": "gate"}):
            refused = await client.get("/v1/watches/nowhere/explain", params={"at": "1"} | which)
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "stream")


async def test_the_command_line_says_the_same_by_the_api_and_beside_it(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, **site()) as service:
        name = await opened(service)
        beside = ("-c", str(tmp_path / "site.yaml"))

        async def local(*arguments):
            result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, *beside])
            if result.exception and not isinstance(result.exception, SystemExit):
                raise result.exception
            return result.stdout

        for arguments in (
            ("event", "explain", name),
            ("event", "evidence", name),
            ("watch", "explain", "bar", "--at", "1"),
        ):
            for _ in range(20):  # the stream goes on between the two: further scores come
                by_api = await asked(service, *arguments)
                lines = (await local(*arguments, "--json")).splitlines()
                beside_it = json.loads(next(line for line in lines if line.startswith("{")))
                if beside_it == by_api:
                    break
            assert beside_it == by_api
        html = tmp_path / "why.html"
        await resadapt(service, "event", "explain", name, "--html", str(html))
        assert "data:image/jpeg" in html.read_text()
        saved = tmp_path / "saved"
        await local("event", "evidence", name, "--save", str(saved))
        assert {path.name for path in saved.rglob("*") if path.is_file()} >= {"snapshot.jpg", "0.png", "evidence.json"}
        assert "identical" in await resadapt(service, "event", "replay", name)
        assert "identical" in await local("event", "replay", name)
        assert (await asked(service, "event", "hold", name))["held_by"] == "local"
        assert (await asked(service, "event", "hold", name, "--release"))["held_by"] is None
        assert (await asked(service, "event", "mark", name, "false", "--note", "a shadow"))["label"] == "false"
        await local("event", "mark", name, "true")
        interval = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:01:00Z")
        await resadapt(service, "watch", "missed", "bar", "--stream", "gate", *interval)
        labels = await asked(service, "label", "list")
        assert [one["kind"] for one in labels] == ["missed", "true"]
        assert (await local("label", "export")).count("\n") >= 3
        await local("label", "withdraw", str(labels[0]["id"]))
        assert len(await asked(service, "label", "list")) == 1
        for arguments, words in (
            (("event", "explain", "nobody"), "there is no event 'nobody'"),
            (("event", "mark", name, "perhaps"), "expected one of true, false, fixture, none"),
            (("watch", "explain", "nobody", "--at", "1"), "there is no watch 'nobody'"),
        ):
            with pytest.raises(ConfigError, match=words):
                await resadapt(service, *arguments)
            with pytest.raises(ConfigError, match=words):
                await local(*arguments)
        with pytest.raises(ConfigError, match="expected one of both"):
            await resadapt(service, "event", "explain", name, *beside)


def test_a_store_that_is_not_there_is_named_and_not_made(tmp_path):
    result = CliRunner().invoke(app, ["event", "explain", "x", "--store", str(tmp_path / "none.db")])
    assert isinstance(result.exception, ConfigError)
    assert "there is no store" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_run_wants_a_store_for_its_evidence(tmp_path):
    arguments = [
        "run",
        "synthetic:?seconds=1",
        "--watch",
        "a car?",
        "--mllm",
        "null",
        "--evidence",
        str(tmp_path / "e"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ConfigError)
    assert "--evidence needs --store" in str(result.exception)
