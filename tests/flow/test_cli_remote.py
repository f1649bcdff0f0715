"""The command line's doors to a running service."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.cli.remote import ServiceUnavailable
from pipeline.errors import ConfigError
from tests.api import LIVE, running, site_file
from tests.flow.test_service import until

SCENE = LIVE["url"]
_LOGGED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\[")  # by the service, which runs in this process


async def resadapt(service, *arguments):
    """What a command prints. Raises what ends it."""
    url = ("--url", str(service.client.base_url))

    def run():
        return CliRunner().invoke(app, [*arguments, *url])

    result = await asyncio.to_thread(run)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return "\n".join(line for line in result.stdout.splitlines() if not _LOGGED.match(line))


async def asked(service, *arguments):
    return json.loads(await resadapt(service, *arguments, "--json"))


async def test_an_operator_does_everything_from_the_command_line(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, sinks={"journal": "jsonl:" + str(tmp_path / "e.jsonl")}) as service:
        attached = await asked(
            service, "stream", "attach", SCENE, "--name", "gate", "--tag", "dock", "--set", "realtime=true",
            "--set", "budget.rate_tokens_per_s=200",
        )  # fmt: skip
        assert attached["spec"]["budget"] == {"rate_tokens_per_s": 200}
        watch = await asked(service, "watch", "add", "Is there a car?", "--tag", "dock", "--set", "open_at=0.8")
        assert (watch["slug"], watch["spec"]["streams"]) == ("is-there-a-car", ["tag:dock"])
        await until(lambda: service.reconciler.history().events())
        assert "gate" in await resadapt(service, "stream", "list")
        assert "Is there a car?" in await resadapt(service, "watch", "list")
        assert (await asked(service, "stream", "edit", "gate", "--set", "realtime="))["spec"].get("realtime") is None
        assert (await asked(service, "stream", "pause", "gate"))["spec"]["paused"]
        assert not (await asked(service, "stream", "resume", "gate"))["spec"].get("paused")
        edited = await asked(service, "watch", "edit", "is-there-a-car", "--question", "Is a car in view?")
        assert edited["revision"] == 2
        with pytest.raises(ConfigError, match="revision 2 now"):
            await asked(service, "watch", "edit", "is-there-a-car", "--set", "open_at=0.7", "--revision", "1")
        await asked(service, "watch", "pause", "is-there-a-car")
        await asked(service, "watch", "resume", "is-there-a-car")
        events = await asked(service, "event", "list", "--stream", "gate", "--type", "stream.attached")
        assert (await asked(service, "event", "show", events[0]["id"]))["stream"] == "gate"
        picture = tmp_path / "gate.jpg"
        await resadapt(service, "stream", "snapshot", "gate", "-o", str(picture), "--width", "64")
        assert picture.read_bytes()[:2] == b"\xff\xd8"
        overview = await asked(service, "status")
        assert [one["slug"] for one in overview["streams"]] == ["gate"]
        assert "no key is needed" in await resadapt(service, "status")
        assert "e.jsonl" in (await asked(service, "sink", "test", "journal"))["detail"]
        await asked(service, "watch", "remove", "is-there-a-car")
        await asked(service, "stream", "detach", "gate")
        assert await asked(service, "stream", "list") == []
        with pytest.raises(ConfigError, match="there is none"):
            await asked(service, "stream", "show", "gate")
        with pytest.raises(ConfigError, match="nothing to change"):
            await asked(service, "stream", "edit", "gate")


async def test_a_site_is_applied_after_a_look_at_the_difference(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        other = tmp_path / "other.yaml"
        other.write_text(yaml.safe_dump({"streams": {"gate": {**LIVE, "paused": True}}, "mllm": "tiny"}))
        shown = await resadapt(service, "apply", "-f", str(other), "--dry-run")
        assert "+ stream gate" in shown
        assert "needs a restart of the service, and is not applied: mllm" in shown
        assert "not applied: --dry-run" in shown
        assert (await asked(service, "apply", "-f", str(other)))["applied"]
        assert "nothing to change" in await resadapt(service, "apply", "-f", str(other))
        api = {"port": unused_tcp_port, "allow_addresses": ["loopback"]}
        own = site_file(tmp_path, streams={"yard": {**LIVE, "paused": True}}, api=api)
        plan = await asked(service, "apply", "-f", str(own))
        assert [(step["slug"], step["action"]) for step in plan["steps"]] == [("yard", "add")]
        assert [one["owner"].partition(":")[0] for one in await asked(service, "stream", "list")] == ["local", "file"]


async def test_keys_are_made_used_and_revoked(tmp_path, unused_tcp_port, monkeypatch):
    async with running(tmp_path, unused_tcp_port) as service:
        root = (await resadapt(service, "key", "create", "root", "--role", "admin")).strip()
        with pytest.raises(ConfigError, match="RESADAPT_KEY"):
            await resadapt(service, "stream", "list")
        monkeypatch.setenv("RESADAPT_KEY", root)
        (tmp_path / "key").write_text(await resadapt(service, "key", "create", "ann", "--tag", "dock", "--days", "9"))
        assert "ann" in await resadapt(service, "key", "list")
        with pytest.raises(ConfigError, match="role"):
            await resadapt(service, "key", "list", "--key", f"@{tmp_path / 'key'}")
        await resadapt(service, "key", "revoke", "ann")
        with pytest.raises(ConfigError, match="revoked"):
            await resadapt(service, "stream", "list", "--key", f"@{tmp_path / 'key'}")


def test_a_service_that_is_not_there_is_one_line(unused_tcp_port, monkeypatch):
    monkeypatch.setenv("RESADAPT_URL", f"http://me:s3cret@127.0.0.1:{unused_tcp_port}")
    result = CliRunner().invoke(app, ["status"])
    assert isinstance(result.exception, ServiceUnavailable)
    assert "resadapt serve" in str(result.exception)
    assert "s3cret" not in str(result.exception)
    for wrong in (
        ["status", "--url", "smoke://x"],
        ["status", "--key", "@/nowhere"],
        ["stream", "attach", "x", "--set", "y"],
    ):
        assert isinstance(CliRunner().invoke(app, wrong).exception, ConfigError), wrong


def test_init_writes_a_site_that_can_be_read_and_no_other(tmp_path):
    path = tmp_path / "site.yaml"
    options = ["init", str(path), "--camera", "synthetic:", "--watch", "Is there a car?", "--mllm", "null"]
    assert CliRunner().invoke(app, options).exit_code == 0
    assert yaml.safe_load(path.read_text())["watches"]["watch-1"]["question"] == "Is there a car?"
    assert isinstance(CliRunner().invoke(app, options).exception, ConfigError)
    before = path.read_text()
    wrong = CliRunner().invoke(app, [*options, "--force", "--watch", ""])
    assert isinstance(wrong.exception, ConfigError)
    assert path.read_text() == before
    typed = CliRunner().invoke(app, ["init", str(tmp_path / "typed.yaml")], input="synthetic:\nIs there a car?\n\n")
    assert typed.exit_code == 0, typed.output
    assert yaml.safe_load((tmp_path / "typed.yaml").read_text())["mllm"] == "yard"


@pytest.mark.timeout(240)
def test_serve_offers_its_api_from_the_start_and_keeps_what_was_added(tmp_path, unused_tcp_port):
    site_file(tmp_path, api={"port": unused_tcp_port, "allow_addresses": ["loopback"]})
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "serve", "-c", "site.yaml"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    url = f"http://127.0.0.1:{unused_tcp_port}"
    for names in ([], ["gate"]):
        with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
            wait_until_ready(url, process)
            found = [one["slug"] for one in httpx.get(f"{url}/v1/streams", timeout=30).json()["items"]]
            assert found == names
            httpx.put(f"{url}/v1/streams/gate", json=LIVE, timeout=30)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def wait_until_ready(url, process):
    for _ in range(600):
        try:
            if httpx.get(f"{url}/health/startup", timeout=30).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None
        time.sleep(0.1)
    pytest.fail("the service did not start")
