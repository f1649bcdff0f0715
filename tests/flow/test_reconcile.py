"""What runs becomes what is wanted, and nothing that is not concerned notices."""

import asyncio
import json
import urllib.request
from dataclasses import replace

import pytest

from pipeline.clock import SystemClock
from pipeline.errors import ConfigError
from pipeline.service.service import Service
from pipeline.testing import MemorySink
from tests.flow.test_service import WATCH, site_of, types, until

LIVE = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "realtime": True}


def of(sink, stream, kind):
    return [event for event in sink.events if event.stream_id == stream and event.type == kind]


def opened(sink, *streams):
    return lambda: all("watch.opened" in types(sink, stream) for stream in streams)


@pytest.mark.parametrize(("wanted", "reason"), [({}, "detached"), ({"a": LIVE | {"paused": True}}, "paused")])
async def test_a_stream_that_is_stopped_clears_its_open_watches_and_says_why(tmp_path, wanted, reason):
    sink = MemorySink("memory")
    async with Service(site_of(tmp_path, {"a": LIVE}), SystemClock(), [sink]) as service:
        await until(opened(sink, "a"))
        await service.reconcile(site_of(tmp_path, wanted))
        assert "a" not in service.supervisors
        await until(lambda: "stream.ended" in types(sink, "a"))
    assert types(sink, "a")[-2:] == ["watch.cleared", "stream.ended"]
    said = {"detached": "stream removed", "paused": "stream paused"}[reason]
    assert of(sink, "a", "watch.cleared")[-1].data["reason"] == said
    assert of(sink, "a", "stream.ended")[0].data["reason"] == reason


async def test_a_drained_stream_goes_on_with_its_watch_open(tmp_path):
    sink = MemorySink("memory")
    for _ in range(2):
        async with Service(site_of(tmp_path, {"a": LIVE}), SystemClock(), [sink]) as service:
            await until(lambda: service.attachments["a"].run.counts.hops >= 2 if service.attachments else False)
    assert [event.data["reason"] for event in of(sink, "a", "stream.ended")] == ["drained", "drained"]
    assert types(sink, "a").count("watch.opened") == 1


async def test_what_was_open_on_a_stream_that_went_while_the_service_was_down_is_cleared(tmp_path):
    sink = MemorySink("memory")
    async with Service(site_of(tmp_path, {"a": LIVE, "b": LIVE}), SystemClock(), [sink]):
        await until(opened(sink, "a", "b"))
    for _ in range(2):
        async with Service(site_of(tmp_path, {"b": LIVE}), SystemClock(), [sink]):
            await until(lambda: of(sink, "a", "watch.cleared"))
    assert [event.data["reason"] for event in of(sink, "a", "watch.cleared")] == ["stream removed"]
    assert of(sink, "b", "watch.cleared") == []


async def test_a_paused_stream_is_resumed_where_it_stood(tmp_path):
    sink = MemorySink("memory")
    async with Service(site_of(tmp_path, {"a": LIVE | {"paused": True}, "b": LIVE}), SystemClock(), [sink]) as service:
        await until(opened(sink, "b"))
        kept = service.attachments["b"]
        assert types(sink, "a") == []
        await service.reconcile(site_of(tmp_path, {"a": LIVE, "b": LIVE}))
        await until(opened(sink, "a"))
        assert service.attachments["b"] is kept


async def test_watches_stand_on_the_streams_they_select_and_on_those_attached_later(tmp_path):
    watches = {
        "dock": {"question": "a lorry?", "streams": ["tag:dock"]},
        "gate": {"question": "a car?", "streams": ["a"]},
        "all": {"question": "a fire?"},
        "asleep": {"question": "a dog?", "paused": True},
    }
    streams = {"a": LIVE, "b": LIVE | {"tags": ["dock", "north"]}}
    async with Service(site_of(tmp_path, streams, watches), SystemClock()) as service:

        def standing(stream):
            return {query.id for query in service._board.on(stream)}

        assert (standing("a"), standing("b")) == ({"gate", "all"}, {"dock", "all"})
        kept = service.supervisors["a"]
        later = streams | {"a": LIVE | {"tags": ["dock"], "display_name": "Gate"}, "c": LIVE | {"tags": ["dock"]}}
        await service.reconcile(site_of(tmp_path, later, watches))
        assert (standing("a"), standing("c")) == ({"gate", "all", "dock"}, {"dock", "all"})
        assert service.supervisors["a"] is kept


async def test_a_stream_that_is_slow_to_stop_holds_up_no_other(tmp_path):
    async with Service(site_of(tmp_path, {"slow": LIVE, "b": LIVE}), SystemClock()) as service:
        stop, let_go = service.supervisors["slow"].stop, asyncio.Event()

        async def stop_late(deadline_s, hurried, reason):
            await let_go.wait()
            await stop(deadline_s, hurried, reason)

        service.supervisors["slow"].stop = stop_late
        turning = await service.begin_reconciling(site_of(tmp_path, {"c": LIVE}))
        await until(lambda: sorted(service.supervisors) == ["c", "slow"])
        again = await service.begin_reconciling(site_of(tmp_path, {"slow": LIVE | {"sample_fps": 4}, "c": LIVE}))
        let_go.set()
        await turning
        await again
        assert service.supervisors["slow"].stream.sample_fps == 4


async def test_a_stream_that_gave_up_is_left_alone_by_edits_of_others(tmp_path):
    gone = str(tmp_path / "gone.mp4")
    async with Service(site_of(tmp_path, {"gone": gone}), SystemClock()) as service:
        await until(lambda: service.supervisors["gone"].failed)
        kept = service.supervisors["gone"]
        await service.reconcile(site_of(tmp_path, {"gone": gone, "b": LIVE}), retry=False)
        assert service.supervisors["gone"] is kept
        await service.reconcile(site_of(tmp_path, {"gone": gone, "b": LIVE}))
        assert service.supervisors["gone"] is not kept


async def test_sinks_come_and_go_without_a_stream_noticing(tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    site = site_of(tmp_path, {"a": LIVE}, sinks={"first": f"jsonl:{first}"})
    async with Service(site, SystemClock()) as service:
        await until(lambda: service.sink_counts["first"].published > 2)
        kept, courier = service.attachments["a"], service._relay._couriers[0]
        both = replace(
            site, sinks=site_of(tmp_path, {}, sinks={"first": f"jsonl:{first}", "second": f"jsonl:{second}"}).sinks
        )
        await service.reconcile(both)
        assert service._relay._couriers[0] is courier
        await service.reconcile(replace(both, watches={}))
        await until(lambda: service.sink_counts["second"].published > 0)
        await service.reconcile(replace(both, sinks={"second": both.sinks["second"]}))
        assert list(service.sink_counts) == ["second"]
        assert service.attachments["a"] is kept
        assert 'sink="first"' not in str(list(service.metrics.registry.collect()))
        with pytest.raises(ConfigError, match="scheme"):
            await service.reconcile(replace(both, sinks={"x": replace(both.sinks["first"], url="smoke://signals")}))
        assert list(service.sink_counts) == ["second"]
    seen = [json.loads(line)["id"] for line in first.read_text().splitlines()]
    assert len(set(seen)) == len(seen)


async def test_the_allocator_and_the_metrics_port_change_under_running_streams(tmp_path, unused_tcp_port_factory):
    before, after = unused_tcp_port_factory(), unused_tcp_port_factory()
    site = site_of(tmp_path, {"a": LIVE}, metrics={"port": before})
    async with Service(site, SystemClock()) as service:
        await until(lambda: service.attachments and service.attachments["a"].run.counts.hops > 1)
        kept, hops = service.attachments["a"], service.attachments["a"].run.counts.hops
        changed = site_of(tmp_path, {"a": LIVE}, metrics={"port": after}, defaults={"allocator": "fixed"})
        await service.reconcile(changed)
        assert service._runtime.allocator.name == "fixed"
        await until(lambda: kept.run.counts.hops > hops + 1)
        assert service.attachments["a"] is kept
        assert b"resadapt_hops_total" in await asyncio.to_thread(read_metrics, after)
        with pytest.raises(OSError):
            await asyncio.to_thread(read_metrics, before)
        with pytest.raises(ConfigError, match="allocator is 'best'"):
            await service.reconcile(site_of(tmp_path, {}, defaults={"allocator": "best"}))
        assert service.attachments["a"] is kept


def read_metrics(port):
    """What is served at a port of this machine."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        return response.read()


async def test_answers_of_every_hop_are_kept(tmp_path):
    async with Service(site_of(tmp_path, {"a": LIVE}, WATCH), SystemClock()) as service:
        await until(lambda: service.attachments and service.attachments["a"].run.counts.hops > 2)
        hops = service.attachments["a"].run.counts.hops
        kept = await asyncio.to_thread(service.store.history.answers)
        assert len(kept) >= hops
        assert set(kept[0].record["answers"]) == {"car"}
        assert kept[0].record["granted"] >= kept[0].record["spent"] > 0
