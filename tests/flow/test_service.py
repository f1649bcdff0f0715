import asyncio
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from structlog.testing import capture_logs

from allocator_engine.grid import GRIDS
from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.errors import ConfigError, SourceUnavailable
from pipeline.mllm.null import NullMLLM
from pipeline.redact import scrub
from pipeline.service.doctor import examine
from pipeline.service.service import Service
from pipeline.sources.base import Notice
from pipeline.testing import MemorySink, ScriptedSource, frame_at
from pipeline.types import WatchQuery
from tests.checkpoints import context, segment
from tests.clips import steady, write
from tests.mllm_server import MODEL, Turn, serving
from tests.web_server import Page
from tests.web_server import serving as web_serving

WATCH = {"car": {"question": "is there a car?"}}


def site_of(tmp_path, streams, watches=WATCH, **more):
    """A site on the null MLLM, whose answers turn from yes to no every ten seconds of stream."""
    raw = {
        "streams": {slug: {"url": url} if isinstance(url, str) else url for slug, url in streams.items()},
        "watches": watches,
        "mllm": "null",
        "sinks": {},
        "store": f"sqlite:///{tmp_path / 'service.db'}",
        "metrics": {"port": 0},
    }
    return parse_site(raw | more)


def types(sink, stream):
    return [event.type for event in sink.events if event.stream_id == stream]


async def run_to_the_end(site):
    sink = MemorySink("memory")
    async with Service(site, SystemClock(), [sink], insist=False) as service:
        await service.finished()
    return sink


async def until(condition, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("needs_pixels", [False, True])
async def test_a_context_is_packed_unless_the_mllm_needs_its_pixels(tmp_path, needs_pixels):
    mllm, sink = NullMLLM(), MemorySink("memory")
    mllm.info = replace(mllm.info, needs_pixels=needs_pixels)
    site = site_of(tmp_path, {"a": {"url": "synthetic:?seconds=inf", "realtime": True, "context_packed": True}})
    with capture_logs() as logged:
        async with Service(site, SystemClock(), [sink], mllm=mllm) as service:
            await until(lambda: service.attachments["a"].run.counts.hops >= 2 if service.attachments else False)
            oldest = service.attachments["a"].run.context.segments[0]
    assert isinstance(oldest.held, np.ndarray) == needs_pixels
    assert [one["reason"] for one in logged if one["event"] == "context_not_packed"] == [
        "null needs all its pixels at each ask"
    ] * needs_pixels


async def test_streams_run_side_by_side_each_from_attached_to_ended(tmp_path):
    streams = {f"camera-{i}": f"synthetic:?seconds=25&width=160&height=96&fps=4&seed={i}" for i in range(6)}
    sink = await run_to_the_end(site_of(tmp_path, streams))
    for stream in streams:
        life = types(sink, stream)
        assert life[:2] == ["stream.attached", "mllm.meaningless"]
        assert life[2:-1] == ["watch.opened", "watch.cleared", "watch.opened"]
        assert life[-1] == "stream.ended"
    ids = [event.id for event in sink.events]
    assert len(set(ids)) == len(ids)


async def test_a_recording_goes_on_behind_its_last_decided_hop(tmp_path):
    site = site_of(tmp_path, {"gate": "synthetic:?seconds=25&width=160&height=96&fps=4"})
    first, second = await run_to_the_end(site), await run_to_the_end(site)
    assert types(second, "gate") == ["stream.attached", "mllm.meaningless", "stream.ended"]
    assert second.events[0].data["resume_s"] == 25.0
    assert not {event.id for event in first.events} & {event.id for event in second.events}


async def test_reconciling_starts_stops_and_restarts_only_what_changed(tmp_path):
    live = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "realtime": True}
    sink = MemorySink("memory")
    async with Service(site_of(tmp_path, {"a": live, "b": live}), SystemClock(), [sink]) as service:
        await until(lambda: {"a", "b"} <= {e.stream_id for e in sink.events if e.type == "watch.opened"})
        kept = service.attachments["a"]
        await service.reconcile(site_of(tmp_path, {"a": live, "c": live}))
        await until(lambda: "watch.opened" in types(sink, "c"))
        assert service.attachments["a"] is kept
        left = [event for event in sink.events if event.stream_id == "b"]
        opened = sum(event.type == "watch.opened" for event in left)
        assert sum(event.type == "watch.cleared" for event in left) == opened > 0
        assert (left[-1].type, left[-1].data["reason"]) == ("stream.ended", "detached")

        await service.reconcile(site_of(tmp_path, {"a": live | {"sample_fps": 4}, "c": live}))
        await until(lambda: types(sink, "a").count("stream.attached") == 2)
        assert types(sink, "a").count("stream.ended") == 1
        assert types(sink, "c").count("stream.attached") == 1
    drained = [event for event in sink.events if event.type == "stream.ended" and event.stream_id in "ac"]
    assert {event.data["reason"] for event in drained} == {"drained"}


async def test_a_watch_is_added_without_restarting_its_stream(tmp_path):
    live = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "realtime": True}
    sink = MemorySink("memory")
    async with Service(site_of(tmp_path, {"a": live}, {}), SystemClock(), [sink]) as service:
        await until(lambda: service.attachments["a"].run.counts.hops >= 1 if "a" in service.attachments else False)
        assert service.attachments["a"].run.counts.spent == 0
        await service.reconcile(site_of(tmp_path, {"a": live}))
        await until(lambda: "watch.opened" in types(sink, "a"))
    assert types(sink, "a").count("stream.attached") == 1


async def test_the_mllm_and_the_store_cannot_change_under_running_streams(tmp_path):
    async with Service(site_of(tmp_path, {}), SystemClock()) as service:
        with pytest.raises(ConfigError, match=r"mllm, store changed; that needs a restart"):
            await service.reconcile(site_of(tmp_path, {"a": "synthetic:"}, mllm="tiny", store="sqlite:///other.db"))
        assert service.attachments == {}


async def test_a_stream_that_fails_in_an_unforeseen_way_restarts_and_takes_nobody_along(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.service.supervisor.RESTART_S", (0.05, 0.1))
    sink = MemorySink("memory")
    live = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "realtime": True}
    async with Service(site_of(tmp_path, {"a": live, "b": live}), SystemClock(), [sink]) as service:
        allocate, failures = service.runtime.allocator.allocate, []

        async def failing_once(hop, queries, grant):
            if hop.stream_id == "a" and not failures:
                failures.append(hop)
                raise RuntimeError("a defect")
            return await allocate(hop, queries, grant)

        monkeypatch.setattr(service.runtime.allocator, "allocate", failing_once)
        await until(lambda: "watch.opened" in types(sink, "a") and "watch.opened" in types(sink, "b"))
        assert service.metrics.value("stream_crashes_total", stream="a") == 1
        assert types(sink, "b").count("stream.attached") == 1


async def test_a_service_that_is_stopped_at_once_stops_at_once(tmp_path):
    live = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "realtime": True}
    sink = MemorySink("memory")
    async with asyncio.timeout(5), Service(site_of(tmp_path, {"a": live}), SystemClock(), [sink]):
        pass
    assert types(sink, "a").count("stream.attached") == types(sink, "a").count("stream.ended")


async def test_reconciling_twice_at_once_ends_with_the_later_site(tmp_path):
    live = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "realtime": True}
    async with Service(site_of(tmp_path, {"a": live}), SystemClock()) as service:
        sites = [site_of(tmp_path, streams) for streams in ({"b": live}, {"c": live}, {"a": live, "c": live})]
        await asyncio.gather(*(service.reconcile(site) for site in sites))
        assert sorted(service.supervisors) == ["a", "c"]


async def test_a_stream_that_had_failed_is_tried_again_when_the_site_is_read_again(tmp_path):
    clip = tmp_path / "late.mp4"
    sink = MemorySink("memory")
    site = site_of(tmp_path, {"late": str(clip)})
    async with Service(site, SystemClock(), [sink]) as service:
        await until(lambda: "stream.ended" in types(sink, "late"))
        write(clip, steady(2.0))
        await service.reconcile(site)
        await until(lambda: "watch.opened" in types(sink, "late"))


async def test_a_restarted_stream_does_not_get_its_burst_again(tmp_path):
    budget = {"rate_tokens_per_s": 10, "burst_tokens": 4000}
    site = site_of(tmp_path, {"gate": {"url": "synthetic:?seconds=8&fps=4", "budget": budget}})
    async with Service(site, SystemClock(), insist=False) as service:
        await service.finished()
        first = service.attachments["gate"].run.counts.spent
    longer = site_of(tmp_path, {"gate": {"url": "synthetic:?seconds=16&fps=4", "budget": budget}})
    async with Service(longer, SystemClock(), insist=False) as service:
        await service.finished()
        second = service.attachments["gate"].run.counts.spent
    assert first > 500
    assert second <= 80


async def test_a_person_is_told_at_once_that_a_camera_does_not_answer(tmp_path):
    with pytest.raises(SourceUnavailable, match="connection refused"):
        await run_to_the_end(site_of(tmp_path, {"gate": "rtsp://127.0.0.1:1/yard"}))


async def test_a_service_keeps_trying_and_tells_once(tmp_path):
    sink = MemorySink("memory")
    site = site_of(tmp_path, {"gate": "rtsp://u:s3cret@127.0.0.1:1/yard?token=s3cret"})
    async with Service(site, SystemClock(), [sink]) as service:
        await until(lambda: service.metrics.value("stream_attempts_failed_total", stream="gate") >= 3)
    assert types(sink, "gate") == ["stream.attached", "mllm.meaningless", "stream.lost", "stream.ended"]


async def test_a_camera_that_refuses_the_password_is_not_asked_again_for_minutes(tmp_path):
    sink = MemorySink("memory")
    with web_serving() as camera:
        camera.pages["/cam"] = Page(status=401, headers={"WWW-Authenticate": 'Basic realm="cam"'})
        site = site_of(tmp_path, {"gate": camera.url("/cam", "operator:XQZwrong@")})
        async with Service(site, SystemClock(), [sink]) as service:
            await until(lambda: "stream.lost" in types(sink, "gate"))
            await asyncio.sleep(1.5)  # two attempts at least, by the back-off of other losses
            await asyncio.wait_for(service.reconcile(site_of(tmp_path, {})), 10)  # and nobody waits for its pause
    assert len(camera.asked) <= 2  # without a password, and with it
    (lost,) = [event for event in sink.events if event.type == "stream.lost"]
    assert "401" in lost.data["reason"]
    assert "XQZ" not in str([event.data for event in sink.events])


async def test_a_missing_file_that_a_person_names_is_an_error_without_events(tmp_path):
    sink = MemorySink("memory")
    with pytest.raises(ConfigError, match=r"gone\.mp4 is not a file"):
        async with Service(
            site_of(tmp_path, {"gone": str(tmp_path / "gone.mp4")}), SystemClock(), [sink], insist=False
        ) as service:
            await service.finished()
    assert sink.events == []


async def test_a_missing_file_ends_its_stream_and_no_other(tmp_path):
    sink = MemorySink("memory")
    streams = {"gone": str(tmp_path / "gone.mp4"), "here": "synthetic:?seconds=25&width=160&height=96&fps=4"}
    async with Service(site_of(tmp_path, streams), SystemClock(), [sink]):
        await until(lambda: "stream.ended" in types(sink, "here") and "stream.ended" in types(sink, "gone"))
    (ended,) = [e for e in sink.events if e.type == "stream.ended" and e.stream_id == "gone"]
    assert ended.data["reason"] == "failed"
    assert "gone.mp4" in ended.data["error"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://operator:s3cret@127.0.0.1:1/yard?token=s3cret", "rtsp://***@127.0.0.1:1/yard?***"),
        ("rtsp://operator:p@ss/s3cret@127.0.0.1:1/yard", "rtsp://***@127.0.0.1:1/yard"),
        ("rtsp://127.0.0.1:1/user=u&password=s3cret&stream=0.sdp", "rtsp://127.0.0.1:1/user=u&password=***&stream"),
    ],
)
async def test_credentials_stay_out_of_events_store_and_logs(tmp_path, caplog, url, shown):
    sink = MemorySink("memory")
    site = site_of(tmp_path, {"gate": url})
    async with Service(site, SystemClock(), [sink]) as service:
        await until(lambda: service.metrics.value("stream_losses_total", stream="gate") >= 1)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"s3cret" not in written
    assert "s3cret" not in caplog.text + repr(sink.events)
    assert shown in repr(sink.events)


PLACES = {
    "typed": "rtsp://operator:{0}@127.0.0.1:1/yard",
    "password": "rtsp://operator:${{P}}@127.0.0.1:1/yard",
    "login": "rtsp://${{P}}@127.0.0.1:1/yard",
    "path": "http://127.0.0.1:1/${{P}}/live",
    "query": "http://127.0.0.1:1/live?key=${{P}}&x=1",
    "srt": "srt://127.0.0.1:1?passphrase=${{P}}",
}


@pytest.mark.parametrize(
    "secret", ["p@XQZ/w#KJV%1", "XQZ?KJV:WKQ", "XQZ&KJV=WKQ", "[XQZ]{KJV}", "XQZ KJV", "%41XQZ'KJV\""]
)
async def test_no_part_of_any_password_in_any_place_is_shown_by_a_run(tmp_path, caplog, capfd, monkeypatch, secret):
    monkeypatch.setenv("P", secret)
    sink = MemorySink("memory")
    streams = {slug: place.format(secret) for slug, place in PLACES.items()}
    site = site_of(tmp_path, streams)
    async with Service(site, SystemClock(), [sink]) as service:
        await until(lambda: all(service.metrics.value("stream_losses_total", stream=slug) >= 1 for slug in streams))
    found = await examine(site, SystemClock())
    said = "".join(scrub(finding.detail) for finding in found if finding.what.startswith("stream "))
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).decode(errors="replace")
    for part in ("XQZ", "KJV", "WKQ"):
        assert part not in said + written + caplog.text + repr(sink.events) + "".join(capfd.readouterr())
    assert {event.stream_id for event in sink.events if event.type == "stream.lost"} == set(streams)


async def test_a_second_process_on_the_same_store_is_refused(tmp_path):
    async with Service(site_of(tmp_path, {}), SystemClock()):
        with pytest.raises(ConfigError, match="is held by process"):
            async with Service(site_of(tmp_path, {}), SystemClock()):
                pass


async def test_nothing_stays_open_behind_a_start_that_failed(tmp_path):
    for _ in range(2):
        with pytest.raises(ConfigError, match="allocator is 'best'"):
            async with Service(site_of(tmp_path, {}, defaults={"allocator": "best"}), SystemClock()):
                pass


async def test_metrics_are_offered_and_a_taken_port_is_refused(tmp_path, unused_tcp_port):
    streams = {"gate": "synthetic:?seconds=5&width=160&height=96&fps=4"}
    site = site_of(tmp_path, streams, metrics={"port": unused_tcp_port})
    async with Service(site, SystemClock()) as service:
        await service.finished()
        with urllib.request.urlopen(f"http://127.0.0.1:{unused_tcp_port}/metrics") as reply:
            text = reply.read().decode()
        (tmp_path / "other").mkdir()
        with pytest.raises(ConfigError, match=f"127.0.0.1:{unused_tcp_port}"):
            async with Service(site_of(tmp_path / "other", {}, metrics={"port": unused_tcp_port}), SystemClock()):
                pass
    assert 'resadapt_hops_total{stream="gate"} 5.0' in text
    assert 'resadapt_answers_total{stream="gate",verdict="yes"} 5.0' in text


async def test_what_goes_wrong_with_the_mllm_is_seen_in_a_scrape(tmp_path, unused_tcp_port):
    with serving() as server:
        mllm = {"use": f"openai:{server.url}#{MODEL}"}
        site = site_of(tmp_path, {}, mllm=mllm, metrics={"port": unused_tcp_port})
        async with Service(site, SystemClock()) as service:
            server.habits.next.append(Turn(429, headers={"Retry-After": "0"}))
            await service.runtime.mllm.ask(context(segment(GRIDS["qwen3_vl"], 0.0)), [WatchQuery("car", "a car?")])
            url = f"http://127.0.0.1:{unused_tcp_port}/metrics"
            text = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    assert "# TYPE resadapt_mllm_trouble_total counter" in text
    assert 'resadapt_mllm_trouble_total{what="retried"} 1.0' in text
    assert 'resadapt_mllm_trouble_total{what="died"} 0.0' in text


async def test_a_hop_that_hangs_is_cut_at_the_drain_deadline_and_decided_after_the_next_start(tmp_path, monkeypatch):
    site = site_of(tmp_path, {"gate": "synthetic:?seconds=5&width=160&height=96&fps=4"}, drain_s=0.3)
    sink = MemorySink("memory")
    async with Service(site, SystemClock(), [sink]) as service:

        async def hang(context, queries, limit=None):
            await asyncio.sleep(3600)

        monkeypatch.setattr(service.runtime.mllm, "ask", hang)
        await until(lambda: "mllm.meaningless" in types(sink, "gate"))
    assert "watch.opened" not in types(sink, "gate")
    assert "watch.opened" in types(await run_to_the_end(site), "gate")


async def test_what_a_source_finds_out_is_sent_out_among_the_decisions_of_its_stream(tmp_path, monkeypatch):
    told = Notice("stream.damaged", "half of its pictures were damaged", "set rtsp_transport to tcp", {"share": 0.5})
    script = [
        frame_at(0.0),
        frame_at(0.5),
        told,
        frame_at(1.0),
        frame_at(1.5),
        Notice("stream.mended", "whole again"),
        frame_at(2.0),
    ]
    monkeypatch.setattr("pipeline.service.supervisor.build_source", lambda *_: ScriptedSource(script))
    sink = await run_to_the_end(site_of(tmp_path, {"gate": "synthetic:"}))
    assert types(sink, "gate") == [
        "stream.attached", "mllm.meaningless", "watch.opened", "stream.damaged", "stream.mended", "stream.ended"
    ]  # fmt: skip
    damaged, mended = (event for event in sink.events if event.type in ("stream.damaged", "stream.mended"))
    assert damaged.data == {
        "n": 3, "stream_s": 1.0, "reason": told.reason, "advice": told.advice, "share": 0.5,
    }  # fmt: skip
    assert mended.data == {"n": 4, "stream_s": 2.0, "reason": "whole again"}
    assert len({event.id for event in sink.events}) == len(sink.events)


async def test_the_bounds_of_a_stream_reach_its_source(tmp_path):
    path = write(tmp_path / "clip.mp4", steady(1))
    with pytest.raises(ConfigError, match="max_pixels 100"):
        await run_to_the_end(site_of(tmp_path, {"gate": {"url": str(path), "max_pixels": 100}}))
    with pytest.raises(ConfigError, match="no video track 1"):
        await run_to_the_end(site_of(tmp_path, {"gate": {"url": str(path), "video_track": 1}}))
