"""A service warns where more is asked of it than it has: by the API, the command line and the page. It takes it."""

import asyncio
import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.errors import StoreUnavailable
from pipeline.service import costs, plan
from pipeline.service.plan import RunningCosts
from pipeline.service.service import Service
from tests.api import LIVE, running
from tests.mllm_server import MODEL, serving
from tests.patience import until

MANY = 4
"""Streams that are not measured yet: of cameras of 1080p, a core decodes three."""


TITLE = "More is asked of this service than it has"


@pytest.fixture(autouse=True)
def one_core_on_which_nothing_is_measured_in_time(monkeypatch):
    monkeypatch.setattr(plan, "usable_cores", lambda: 1)
    monkeypatch.setattr(costs, "MEASURE_S", float("inf"))


def of_cores(warnings: list[str]) -> list[str]:
    """The warnings of cores: on a busy machine streams may be late besides."""
    return [one for one in warnings if one.startswith("cores: ")]


def needed(warning: str) -> float:
    return float(re.match(r"cores: needs (\S+) of 1 ", warning).group(1))


async def test_attaching_warns_of_what_does_not_fit_any_more(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        client, url = service.client, str(service.client.base_url)

        async def attach(name):
            command = ["stream", "attach", LIVE["url"], "--name", name, "--url", url]
            plain = await asyncio.to_thread(lambda: CliRunner().invoke(app, command))
            assert plain.exit_code == 0
            return plain

        first = await client.post("/v1/streams", json={**LIVE, "slug": "gate"})
        assert (first.status_code, of_cores(first.json()["warnings"])) == (201, [])
        assert "warning: cores: " not in (await attach("second")).stderr
        form = {"url": LIVE["url"], "slug": "third", "action": "attach"}
        few = await client.post("/attach", data=form, follow_redirects=True)
        assert few.url.path == "/streams/third"
        assert "cores: " not in few.text
        for number in range(MANY):
            assert (await client.put(f"/v1/streams/cam{number}", json=LIVE)).status_code == 201

        last = await client.post("/v1/streams", json={**LIVE, "slug": "last"})
        (said,) = of_cores(last.json()["warnings"])
        assert last.status_code == 201
        found = (await client.get("/v1/load")).json()
        assert of_cores(found["warnings"]) == [said]
        (part,) = [one for one in found["parts"] if one["part"] == "cores"]
        assert part["needs"] > part["has"]
        assert "warnings" not in (await client.get("/v1/streams/last")).json()
        paused = await client.put("/v1/streams/last", json={**LIVE, "paused": True})
        (less,) = of_cores(paused.json()["warnings"])
        assert needed(less) < needed(said)

        many = await attach("many")
        assert [line for line in many.stderr.splitlines() if line.startswith("warning: cores: ")]
        assert "warning:" not in many.stdout
        shown = await client.post("/attach", data={**form, "slug": "shown"}, follow_redirects=True)
        for screen in (shown, await client.get("/system")):
            assert TITLE in screen.text
            assert "cores: " in screen.text
        assert TITLE not in (await client.get("/streams/shown")).text


async def test_the_page_shows_what_the_edit_was_answered_with_and_no_link_can_make_it_warn(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        client = service.client
        for number in range(MANY):
            assert (await client.put(f"/v1/streams/cam{number}", json=LIVE)).status_code == 201
        spec = (await client.get("/v1/streams/cam0")).json()
        saved = await client.post(
            "/streams/cam0/edit",
            data={"url": LIVE["url"], "sample_fps": "1", "revision": str(spec["revision"])},
            follow_redirects=True,
        )
        assert saved.url.path == "/streams/cam0"
        assert "cores: " in saved.text
        assert TITLE not in (await client.get("/streams/cam1?said=saved")).text
        revision = (await client.get("/v1/streams/cam1")).json()["revision"]
        for strange in ("%", "////", "bm90IHRleHQ", "_w=="):
            cookie = {"cookie": f"resadapt_warned_cam1_{revision}={strange}"}
            assert (await client.get("/streams/cam1?said=saved", headers=cookie)).status_code == 200


async def test_an_edit_that_asks_for_more_counts_as_it_is_wanted_whatever_it_cost_before(
    tmp_path, unused_tcp_port, monkeypatch
):
    """The model works nine tenths of its time for these tokens: tenfold is too much, also while it runs as it was."""
    watches = {"car": {"question": "Is there a car?", "every_s": 60}}
    before = {**LIVE, "budget": {"rate_tokens_per_s": 10}, "sample_fps": 4}
    found = RunningCosts(None, 0.0, {"gate": 0.01}, {"gate": 10.0}, mllm_busy=0.9)
    with serving() as server:
        mllm = f"openai:{server.url}#{MODEL}"
        async with running(tmp_path, unused_tcp_port, watches=watches, mllm=mllm) as service:
            monkeypatch.setattr(Service, "costs", property(lambda self: found))

            async def warned(stream):
                reply = await service.client.put("/v1/streams/gate", json=stream)
                assert reply.is_success
                return [one for one in reply.json()["warnings"] if one.startswith("MLLM: ")]

            await warned(before)
            await until(lambda: "gate" in service.reconciler.service.site.streams, "it runs")
            assert await warned(before) == []
            assert await warned({**before, "display_name": "The gate"}) == []
            await until(lambda: service.reconciler.service.site.streams["gate"].display_name, "it has its name")
            (said,) = await warned({**before, "budget": {"rate_tokens_per_s": 100}})
            assert "mllm.servers" in said


async def test_an_edit_stands_where_the_load_cannot_be_known(tmp_path, unused_tcp_port, monkeypatch):
    def away(self):
        raise StoreUnavailable("the database is away")

    async with running(tmp_path, unused_tcp_port) as service:
        monkeypatch.setattr(Service, "costs", property(away))
        with capture_logs() as logs:
            added = await service.client.post("/v1/streams", json={**LIVE, "slug": "gate"})
        assert (added.status_code, added.json()["warnings"]) == (201, [])
        assert (await service.client.get("/v1/streams/gate")).status_code == 200
        (line,) = [one for one in logs if one["event"] == "load_not_known"]
        assert (line["stream"], line["reason"]) == ("gate", "the database is away")
        assert (await service.client.get("/v1/load")).status_code == 503


def test_the_doctor_warns_of_a_site_that_is_too_much_for_its_machine(tmp_path: Path) -> None:
    def checked(streams: int) -> str:
        cameras = ", ".join(f"s{n}: {{url: '{tmp_path}/none.mp4'}}" for n in range(streams))
        site = f"mllm: 'null'\nstore: sqlite:///{tmp_path}/s.db\nstreams: {{{cameras}}}\nsinks: {{}}\n"
        (tmp_path / "site.yaml").write_text(site)
        return CliRunner().invoke(app, ["check", "-c", str(tmp_path / "site.yaml")]).stderr

    assert "warning" not in checked(1)
    assert "warning: cores: " in checked(MANY)
