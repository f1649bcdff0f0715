"""What a service does when something it needs is away, lost, taken or too slow; and that it says so."""

import asyncio
import json
import sqlite3
import urllib.error
import urllib.request

import pytest
from structlog.testing import capture_logs

from pipeline.clock import SystemClock
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError, MLLMUnavailable, NotOwner, StoreDamaged, StoreUnavailable
from pipeline.service.service import Service
from pipeline.sinks.memory import MemorySink
from tests.flow.test_service import run_to_the_end, site_of, types, until
from tests.mllm_server import MODEL, serving

LIVE = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "realtime": True}


@pytest.fixture(autouse=True)
def short_retries(monkeypatch):
    monkeypatch.setattr("pipeline.service.opening.RETRY_S", (0.05, 0.1))


async def test_a_store_that_is_away_at_the_start_is_waited_for(tmp_path, monkeypatch):
    refusals = iter(range(3))

    def away(*arguments, **more):
        if next(refusals, None) is not None:
            raise StoreUnavailable("told to refuse")
        return Store(*arguments, **more)

    monkeypatch.setattr("pipeline.service.opening.Store", away)
    sink = MemorySink("memory")
    service = Service(site_of(tmp_path, {"gate": LIVE}), SystemClock(), [sink])
    with capture_logs() as logs:
        async with service:
            await until(lambda: "watch.opened" in types(sink, "gate"))
            assert service.health().ready
    assert [entry["tries"] for entry in logs if entry["event"] == "waiting_for_store"] == [1, 2, 3]


async def test_an_mllm_that_is_away_at_the_start_is_waited_for_and_health_says_so(tmp_path, unused_tcp_port):
    with serving() as server:
        url = server.url
    mllm = {"use": f"openai:{url}#{MODEL}"}
    service = Service(site_of(tmp_path, {}, mllm=mllm, metrics={"port": unused_tcp_port}), SystemClock())
    starting = asyncio.create_task(service.__aenter__())
    await until(lambda: service.health().troubles)
    assert [trouble.what for trouble in service.health().troubles] == ["mllm"]
    assert await asyncio.to_thread(asked, unused_tcp_port, "live") == 200
    assert await asyncio.to_thread(asked, unused_tcp_port, "ready") == 503
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(MLLMUnavailable):
        async with Service(site_of(tmp_path, {}, mllm=mllm), SystemClock(), insist=False):
            pass


def asked(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/{path}") as reply:
            assert json.load(reply)["live"]
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


async def test_health_shows_what_is_away_and_what_that_takes(tmp_path):
    sink = MemorySink("memory")
    sink.fail(1_000_000)
    site = site_of(tmp_path, {"gate": "rtsp://127.0.0.1:1/yard", "yard": LIVE}, drain_s=0.2)
    async with Service(site, SystemClock(), [sink]) as service:
        await until(lambda: len(service.health().troubles) == 2)
        health = service.health()
        assert {trouble.what for trouble in health.troubles} == {"sink memory", "stream gate"}
        assert (health.live, health.ready, health.phase) == (True, True, "serving")
    assert not service.health().ready


@pytest.mark.parametrize(("loss", "error"), [("taken", NotOwner), ("removed", StoreDamaged)])
async def test_a_service_that_lost_its_store_stops_deciding_by_name_and_sends_no_more(tmp_path, loss, error):
    sink = MemorySink("memory")
    async with Service(site_of(tmp_path, {"gate": LIVE}), SystemClock(), [sink]) as service:
        await until(lambda: "watch.opened" in types(sink, "gate"))
        before = len(sink.events)
        if loss == "taken":
            with sqlite3.connect(tmp_path / "service.db") as other:
                other.execute("UPDATE meta SET value = '1000' WHERE key = 'owner'")
            other.close()
        else:
            (tmp_path / "service.db").unlink()
        with pytest.raises(error):
            await asyncio.wait_for(service.broken(), 20)
        assert not service.health().live
    assert len(sink.events) == before
    assert "stream.ended" not in types(sink, "gate")


async def test_a_store_that_is_found_gone_by_reading_alone_ends_the_service_too(tmp_path):
    async with Service(site_of(tmp_path, {}), SystemClock(), [MemorySink("memory")]) as service:
        (tmp_path / "service.db").unlink()
        await service.reconcile(site_of(tmp_path, {"gate": LIVE}))
        with pytest.raises(StoreDamaged):
            await asyncio.wait_for(service.broken(), 20)
    assert not (tmp_path / "service.db").exists()


async def test_open_watches_of_a_stream_that_was_removed_while_nothing_ran_are_cleared(tmp_path):
    first = await run_to_the_end(site_of(tmp_path, {"gate": "synthetic:?seconds=5&width=160&height=96&fps=4"}))
    assert types(first, "gate").count("watch.opened") == 1
    sinks = [MemorySink("memory"), MemorySink("memory")]
    for sink in sinks:
        async with Service(site_of(tmp_path, {}), SystemClock(), [sink]):
            await asyncio.sleep(0.05)
    assert [(event.type, event.data["reason"]) for event in sinks[0].events] == [("watch.cleared", "stream removed")]
    assert sinks[1].events == []


async def test_what_is_wrong_with_a_name_is_refused_before_anything_is_loaded_or_made(tmp_path, monkeypatch):
    def loaded(*_):
        raise AssertionError("it was loaded")

    monkeypatch.setattr("pipeline.service.service.build_allocator", loaded)
    monkeypatch.setattr("pipeline.service.opening.build_mllm", loaded)
    wrong = [
        ({"defaults": {"allocator": "best"}}, "allocator is 'best'"),
        ({"streams": {"gate": {"url": "gopher://camera/1"}}}, r"streams\.gate.*gopher"),
        ({"sinks": {"j": "jsonl:"}}, "names no file"),
        ({"sinks": {"j": "ftp://host/x"}}, "ftp"),
        ({"sinks": {"j": f"jsonl:{tmp_path}"}}, r"sinks\.j: .*directory"),
        ({"store": "mysql://host/db"}, "mysql"),
    ]
    for more, said in wrong:
        with pytest.raises(ConfigError, match=said):
            async with Service(site_of(tmp_path, **({"streams": {}} | more)), SystemClock()):
                pass


async def test_a_sink_that_is_away_at_the_start_delays_nothing_but_its_events(tmp_path):
    sinks = {"hook": {"url": "http://127.0.0.1:1/hook", "secret": "s"}}
    sink = MemorySink("memory")
    site = site_of(tmp_path, {"gate": LIVE}, sinks=sinks, drain_s=0.3)
    async with Service(site, SystemClock(), [sink]) as service:
        await until(lambda: "watch.opened" in types(sink, "gate"))
    assert service.left["hook"] == len(sink.events)


async def test_a_drain_that_is_hurried_ends_at_once(tmp_path, monkeypatch):
    sink = MemorySink("memory")
    async with asyncio.timeout(20):
        async with Service(site_of(tmp_path, {"gate": LIVE}, drain_s=3600), SystemClock(), [sink]) as service:

            async def hang(context, queries, limit=None):
                await asyncio.sleep(3600)

            monkeypatch.setattr(service.runtime.mllm, "ask", hang)
            await until(lambda: "mllm.meaningless" in types(sink, "gate"))
            asyncio.get_running_loop().call_later(0.3, service.hurry)
    assert "stream.ended" not in types(sink, "gate")
