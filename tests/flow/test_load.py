"""A service warns where more is asked of it than it has: by the API, the command line and the page. It takes it."""

import asyncio
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.service import costs
from tests.api import LIVE, running

MANY = 4
"""Streams that are not measured yet: of cameras of 1080p, a core decodes three."""


TITLE = "More is asked of this service than it has"


@pytest.fixture(autouse=True)
def one_core_on_which_nothing_is_measured_in_time(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(costs, "MEASURE_S", float("inf"))


async def test_attaching_warns_of_what_does_not_fit_any_more(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        client, url = service.client, str(service.client.base_url)

        async def attach(name):
            command = ["stream", "attach", LIVE["url"], "--name", name, "--url", url]
            plain = await asyncio.to_thread(lambda: CliRunner().invoke(app, command))
            assert plain.exit_code == 0
            return plain

        first = await client.post("/v1/streams", json={**LIVE, "slug": "gate"})
        assert (first.status_code, first.json()["warnings"]) == (201, [])
        assert "warning" not in (await attach("second")).stderr
        form = {"url": LIVE["url"], "slug": "third", "action": "attach"}
        few = await client.post("/attach", data=form, follow_redirects=True)
        assert few.url.path == "/streams/third"
        assert TITLE not in few.text
        for number in range(MANY):
            assert (await client.put(f"/v1/streams/cam{number}", json=LIVE)).status_code == 201

        last = await client.post("/v1/streams", json={**LIVE, "slug": "last"})
        (said,) = last.json()["warnings"]
        assert last.status_code == 201
        assert said.startswith("cores: ")
        assert " of 1 (" in said
        found = (await client.get("/v1/load")).json()
        assert found["warnings"] == [said]
        assert found["parts"][0]["part"] == "cores"
        assert found["parts"][0]["needs"] > found["parts"][0]["has"]
        assert "warnings" not in (await client.get("/v1/streams/last")).json()
        paused = await client.put("/v1/streams/last", json={**LIVE, "paused": True})
        assert paused.json()["warnings"] != [said], "it needs less now"

        many = await attach("many")
        assert [line for line in many.stderr.splitlines() if line.startswith("warning: cores: ")]
        assert "warning:" not in many.stdout
        shown = await client.post("/attach", data={**form, "slug": "shown"}, follow_redirects=True)
        for screen in (shown, await client.get("/system")):
            assert TITLE in screen.text
            assert "cores: " in screen.text
        assert TITLE not in (await client.get("/streams/shown")).text


def test_the_doctor_warns_of_a_site_that_is_too_much_for_its_machine(tmp_path: Path) -> None:
    def checked(streams: int) -> str:
        cameras = ", ".join(f"s{n}: {{url: '{tmp_path}/none.mp4'}}" for n in range(streams))
        site = f"mllm: 'null'\nstore: sqlite:///{tmp_path}/s.db\nstreams: {{{cameras}}}\nsinks: {{}}\n"
        (tmp_path / "site.yaml").write_text(site)
        return CliRunner().invoke(app, ["check", "-c", str(tmp_path / "site.yaml")]).stderr

    assert "warning" not in checked(1)
    assert "warning: cores: " in checked(MANY)
