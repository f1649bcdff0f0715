"""Sinks of a running service: filters and limits by the API, the canary, and sinks named on a command line."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.cli.remote import ServiceUnavailable
from pipeline.errors import ConfigError
from pipeline.sinks.cloudevents import decode, decode_batch
from tests.api import LIVE, running
from tests.flow.test_cli import resadapt as run_resadapt
from tests.flow.test_cli_remote import asked, resadapt
from tests.flow.test_service import until
from tests.live import mqtt_broker

SCENE = "synthetic:?seconds=25&width=160&height=96&fps=4"
SECRET = "whsec-hunter2"


@contextmanager
def receiving():
    """A receiver of webhooks: its URL, the requests (headers and events), and the statuses with which it answers."""
    requests, statuses = [], []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if body:
                requests.append((dict(self.headers), decode_batch(body)))
            self.send_response(statuses[-1] if statuses else 204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_OPTIONS = answer

        def log_message(self, *arguments):
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hooks/token-hunter2", requests, statuses
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
async def service(tmp_path, unused_tcp_port, monkeypatch):
    monkeypatch.setenv("SINK_SECRET", SECRET)
    api = {"allow_addresses": ["loopback", f"file:{tmp_path}"]}
    async with running(tmp_path, unused_tcp_port, api=api) as found:
        yield found


async def test_a_sink_of_the_api_gets_what_its_filter_lets_through(service, tmp_path):
    client, path = service.client, tmp_path / "dock.jsonl"
    await client.put("/v1/watches/fire", json={"question": "is there a fire?"})
    added = await client.put("/v1/sinks/dock", json={
        "url": f"jsonl:{path}", "filter": {"types": ["stream.attached"], "streams": ["tag:dock"], "watches": []},
    })  # fmt: skip
    assert added.status_code == 201, added.text
    await until(lambda: service.reconciler.service.sink("dock"))
    await client.put("/v1/streams/gate", json=LIVE)
    await client.put("/v1/streams/dock", json={**LIVE, "tags": ["dock"]})
    await until(lambda: path.exists() and path.read_bytes().splitlines())
    await until(lambda: service.reconciler.service.sink_counts["dock"].filtered)
    assert {decode(line).stream_id for line in path.read_bytes().splitlines()} == {"dock"}
    shown = (await client.get("/v1/sinks/dock")).json()
    assert (shown["published"], shown["filtered"] > 0, shown["spec"]["filter"]["streams"]) == (1, True, ["tag:dock"])
    assert 'resadapt_sink_filtered{sink="dock"}' in (await client.get("/metrics")).text


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"filter": {"watches": ["smoke"]}}, "filter.watches"),
        ({"filter": {"streams": ["gate"]}}, "filter.streams"),
        ({"rate_limit": {"events": 0}}, "rate_limit.events"),
        ({"rate_limit": {"events": 5, "per": "day"}}, "rate_limit.per"),
        ({"filter": {"colour": "red"}}, "filter.colour"),
        ({"url": "mqtt://127.0.0.1/a/#"}, None),
        ({"url": "mqtt://127.0.0.1/a", "topic": "{nothing}"}, "topic"),
        ({"url": "mqtt://127.0.0.1/a", "password": "written-out"}, "password"),
        ({"url": "mqtt://u:written-out@127.0.0.1/a"}, "url"),
        ({"url": "mqtt://169.254.169.254/a"}, "url"),
        ({"url": "notify:slack://a/b/c"}, None),
        ({"url": "notify:${HOME}"}, "url"),
        ({"url": "webhook:http://169.254.169.254/x", "signed": False}, "url"),
        ({"url": "webhook:ftp://127.0.0.1/x", "signed": False}, None),
    ],
)
async def test_what_cannot_be_a_sink_is_a_problem_that_names_the_field(service, tmp_path, spec, field):
    answer = await service.client.put("/v1/sinks/s", json={"url": f"jsonl:{tmp_path}/x", **spec})
    if answer.status_code == 201:  # what only building it shows is the sink's own trouble
        await until(lambda: ("sink", "s") in service.reconciler.faults)
        assert "expected" in (await service.client.get("/v1/sinks/s")).json()["last_error"]
        return
    assert answer.status_code == 422
    assert "written-out" not in answer.text
    if field:
        assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_the_canary_says_whether_events_could_go_there_and_with_send_sends_one(service):
    with receiving() as (url, requests, statuses):
        added = await asked(
            service, "sink", "add", url, "--name", "pager", "--set", "secret=${SINK_SECRET}",
            "--set", "filter.types=[watch.*]", "--set", "rate_limit.events=1",
        )  # fmt: skip
        assert added["spec"]["rate_limit"] == {"events": 1}
        await until(lambda: service.reconciler.service.sink("pager"))
        assert "events go to http://127.0.0.1" in await resadapt(service, "sink", "test", "pager")
        assert requests == []
        for _ in range(2):
            assert "a test event was taken" in (await asked(service, "sink", "test", "pager", "--send"))["detail"]
        assert [event.type for _, events in requests for event in events] == ["sink.test"] * 2
        assert all("X-Resadapt-Signature" in headers for headers, _ in requests)
        assert "pager" in await resadapt(service, "sink", "list")
        edited = await asked(service, "sink", "edit", "pager", "--set", "rate_limit=")
        assert "rate_limit" not in edited["spec"]
        await until(lambda: not service.reconciler.service.site.sinks["pager"].rate_limit)

        statuses.append(503)
        with pytest.raises(ServiceUnavailable, match="cannot take events now: 503"):
            await resadapt(service, "sink", "test", "pager", "--send")
        with pytest.raises(ConfigError, match="there is no sink 'nobody'"):
            await resadapt(service, "sink", "test", "nobody")
        await resadapt(service, "sink", "remove", "pager")
        assert await asked(service, "sink", "list") == []


async def test_a_sink_that_cannot_run_says_why_when_it_is_tried(service, monkeypatch):
    monkeypatch.setenv("SINK_URL", "pigeon://hunter2-token")
    await service.client.put("/v1/sinks/team", json={"url": "notify:${SINK_URL}"})
    await until(lambda: ("sink", "team") in service.reconciler.faults)
    answer = await service.client.post("/v1/sinks/team/test")
    assert (answer.status_code, "no service that apprise knows" in answer.text) == (502, True)
    assert "hunter2" not in answer.text


async def test_an_mqtt_sink_of_the_api_announces_the_watches_that_stand(service, tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    with mqtt_broker.running(folder) as broker:
        client = service.client
        await client.put("/v1/streams/gate", json={**LIVE, "display_name": "Main gate"})
        await client.put("/v1/watches/fire", json={"question": "is there a fire?"})
        await client.put("/v1/sinks/home", json={"url": f"mqtt://127.0.0.1:{broker.port}/plant"})
        with mqtt_broker.Subscriber(broker) as subscriber:
            await until(lambda: subscriber.of("plant/status") == [b"online"], 20)
            await until(lambda: subscriber.below("homeassistant/"), 20)
            (found,) = [json.loads(payload) for payload in subscriber.below("homeassistant/")]
            assert (found["name"], found["device"]["name"]) == ("is there a fire?", "Main gate")
            await client.delete("/v1/watches/fire")
            await until(lambda: b"" in subscriber.below("homeassistant/"), 20)
            tried = await client.post("/v1/sinks/home/test", params={"send": True})
            assert tried.status_code == 200, tried.text
            await until(lambda: subscriber.of("plant/events/home/sink.test"), 20)


def test_a_run_sends_to_webhooks_and_brokers_named_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    folder = tmp_path / "broker"
    folder.mkdir()
    with (
        receiving() as (url, requests, _),
        mqtt_broker.running(folder) as broker,
        mqtt_broker.Subscriber(broker) as subscriber,
    ):
        done = run_resadapt(
            "run", SCENE, "--watch", "is there a car in view?", "--mllm", "null", "--name", "gate",
            "--sink", f"webhook:{url}", "--sink", f"mqtt://127.0.0.1:{broker.port}/plant",
            "--sink-secret", "${HOOK_SECRET}", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        mqtt_broker.until(lambda: subscriber.of("plant/status") == [b"online", b"offline"])
        published = [decode(payload).id for payload in subscriber.below("plant/events/")]
    sent = [event for _, events in requests for event in events]
    assert [event.id for event in sent] == published
    assert sent[-1].type == "stream.ended"
    assert all("X-Resadapt-Signature" in headers for headers, _ in requests)
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--sink", "mqtt://broker/a/+"], 2, "+ and # are for those who subscribe"),
        (["--sink", "mqtt://u:hunter2@broker/a"], 2, "url holds a password"),
        (["--sink", "notify:slack://hunter2/b/c"], 2, "url holds a secret"),
        (["--sink", "https://h/x", "--sink-secret", "hunter2"], 2, "--sink-secret is written out"),
        (["--sink", "jsonl:e.jsonl", "--sink-secret", "${X}"], 2, "no --sink is one"),
        (["--sink", "webhook:ftp://h/x"], 2, "expected https://host/path"),
    ],
)
def test_a_sink_of_the_command_line_that_cannot_be_is_refused(tmp_path, arguments, code, said):
    done = run_resadapt("run", SCENE, "--watch", "is it so?", "--mllm", "null", *arguments, cwd=tmp_path)
    assert (done.returncode, said in done.stderr, "hunter2" in done.stderr) == (code, True, False), done.stderr
