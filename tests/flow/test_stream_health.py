"""Health and masks where they live: in the loop, in the service, behind the API, on real recordings."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.clock import SystemClock
from pipeline.core.health import Checkup, HealthRules
from pipeline.core.state import StreamState
from pipeline.loop import watch_stream
from pipeline.sources.av import AvSource
from pipeline.sources.synthetic import ArrayPicture
from pipeline.testing import ScriptedSource, frame_at
from tests.api import LIVE, running
from tests.flow.test_loop import CAR, build
from tests.flow.test_service import until
from tests.services import require
from tests.unit.test_health import noisy, scene

CHECKUP = Checkup(HealthRules(frozen_s=12, blind_s=8, moved_s=12, unknown_s=10, clear_s=4))
BLACK = np.zeros((128, 224, 3), np.uint8)


def script(seconds):
    """Well until 30 s, black until 60 s, another view until 90 s."""
    shown = {0: lambda n: noisy(scene(1), n), 1: lambda n: BLACK, 2: lambda n: noisy(scene(5), n)}
    return [frame_at(n / 2, ArrayPicture(shown[n // 60](n))) for n in range(2 * seconds[0], 2 * seconds[1])]


async def lived(seconds, state=StreamState(lineage="a")):
    run, runtime = build(CAR)
    run = replace(run, state=state, checkup=CHECKUP, decided_s=float(seconds[0]))
    await watch_stream(run, ScriptedSource(script(seconds)), runtime)
    return runtime.outbox.decisions


async def test_alarms_are_events_of_the_hop_that_decided_them_and_survive_a_kill_at_any_hop():
    whole = await lived((0, 90))
    events = [event for decision in whole for event in decision.events if event.type.startswith("stream.")]
    assert [(one.type, one.data.get("of")) for one in events] == [
        ("stream.blind", None),
        ("stream.clear", "stream.blind"),
        ("stream.moved", None),
    ]
    for cut in (10, 35, 38, 40, 59, 62, 64, 66, 70, 74, 80):
        stored = StreamState.from_json(whole[cut - 1].state)
        again = await lived((cut, 90), stored)
        assert [[e.id for e in d.events if e.type.startswith("stream.")] for d in again] == [
            [e.id for e in d.events if e.type.startswith("stream.")] for d in whole[cut:]
        ]
        assert again[-1].state == whole[-1].state


async def test_without_a_checkup_nobody_looks():
    run, runtime = build(CAR)
    await watch_stream(run, ScriptedSource(script((30, 60))), runtime)
    assert not [event for event in runtime.outbox.events if event.type.startswith("stream.")]
    assert run.state.health == StreamState().health


async def test_a_black_camera_is_named_in_status_and_well_again_when_it_is_removed(tmp_path, unused_tcp_port):
    clip = tmp_path / "black.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 4, (224, 128))
    for _ in range(160):
        writer.write(BLACK)
    writer.release()
    black = {"url": str(clip), "realtime": True, "health": {"blind_s": 2}}
    api = {"allow_addresses": ["loopback", f"file:{tmp_path}"]}
    async with running(tmp_path, unused_tcp_port, api=api) as service:
        (await service.client.put("/v1/streams/gate", json=black)).raise_for_status()

        def alarms():
            attached = service.reconciler.service.attachments.get("gate")
            return attached and attached.run.state.health.on

        await until(lambda: alarms() == ("blind",))
        status = (await service.client.get("/v1/status")).json()
        assert status["streams"][0]["status"]["alarms"] == ["blind"]
        assert service.reconciler.service.metrics.value("stream_alarm", stream="gate", what="blind") == 1
        (await service.client.delete("/v1/streams/gate")).raise_for_status()

        async def kinds():
            listed = await service.client.get("/v1/events", params={"stream": "gate"})
            return [(one["type"], one["data"].get("reason")) for one in reversed(listed.json()["items"])]

        async with asyncio.timeout(10):
            while ("stream.clear", "stream removed") not in await kinds():
                await asyncio.sleep(0.05)
        assert [kind for kind, _ in await kinds() if "mllm" not in kind][:2] == ["stream.attached", "stream.blind"]


async def picture_of(client, slug):
    response = await client.get(f"/v1/streams/{slug}/snapshot.jpg")
    response.raise_for_status()
    return cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)


async def test_a_mask_that_is_drawn_on_a_running_stream_holds_from_then_on(tmp_path, unused_tcp_port):
    left = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
    async with running(tmp_path, unused_tcp_port) as service:
        client = service.client
        (await client.put("/v1/streams/gate", json=LIVE)).raise_for_status()
        await until(lambda: "gate" in service.reconciler.service.attachments)
        before = service.reconciler.service.attachments["gate"]
        open_picture = await picture_of(client, "gate")
        (await client.patch("/v1/streams/gate", json={"masks": {"hut": left}})).raise_for_status()
        await until(lambda: service.reconciler.service.attachments.get("gate") not in (None, before))
        masked = await picture_of(client, "gate")
        half = masked.shape[1] // 2
        assert masked[:, : half - 8].max() < 12 < open_picture[:, : half - 8].max()
        assert masked[:, half + 8 :].max() > 40
        run = service.reconciler.service.attachments["gate"].run
        assert run is not before.run
        assert all(segment.pixels[:, :, : segment.size[1] // 2 - 2].max() < 12 for segment in run.context.segments)


async def test_regions_are_judged_at_the_border(tmp_path, unused_tcp_port):
    dock = [[0, 0], [0.5, 0], [0.5, 1]]
    async with running(tmp_path, unused_tcp_port) as service:
        client = service.client
        crossing = {**LIVE, "zones": {"dock": [[0, 0], [1, 1], [1, 0], [0, 1]]}}
        refused = await client.put("/v1/streams/gate", json=crossing)
        assert refused.status_code == 422
        assert "zones.dock" in refused.text
        assert "crosses itself" in refused.text
        assert (await client.get("/v1/streams/gate")).status_code == 404
        (await client.put("/v1/streams/gate", json={**LIVE, "zones": {"dock": dock}})).raise_for_status()
        nowhere = await client.put("/v1/watches/car", json={"question": "is there a car?", "zone": "ramp"})
        assert nowhere.status_code == 422
        assert "expected dock" in nowhere.text
        (await client.put("/v1/watches/car", json={"question": "is there a car?", "zone": "dock"})).raise_for_status()
        await until(lambda: service.reconciler.service.runtime.watches.on("gate"))
        (query,) = service.reconciler.service.runtime.watches.on("gate")
        assert query.zone.name == "dock"
        before = service.reconciler.service.attachments["gate"]
        (await client.patch("/v1/streams/gate", json={"zones": {"dock": None}})).raise_for_status()
        await until(lambda: not service.reconciler.service.runtime.watches.on("gate"))
        assert service.reconciler.service.attachments["gate"] is before
        assert "no stream has a zone 'dock'" in (await client.get("/v1/watches/car")).json()["fault"]


async def listed(service):
    return (await service.client.get("/v1/events", params={"stream": "_service"})).json()["items"]


async def test_the_service_gives_a_sign_of_life_that_survives_restarts(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, service={"heartbeat_s": 0.5}) as service:
        async with asyncio.timeout(20):
            while len(items := await listed(service)) < 2:
                await asyncio.sleep(0.1)
    assert {one["type"] for one in items} == {"service.heartbeat"}
    async with running(tmp_path, unused_tcp_port, service={"heartbeat_s": 0.5}) as service:
        async with asyncio.timeout(20):
            while len(more := await listed(service)) < 4:
                await asyncio.sleep(0.1)
    assert len({one["data"]["n"] for one in more}) == len(more)


@pytest.mark.parametrize("name", ["car-detection", "bottle-detection", "one-by-one-person-detection"])
async def test_real_recordings_raise_no_alarm(name):
    folder = os.environ.get("TEST_CLIPS", "")
    clip = Path(folder) / f"{name}.mp4"
    require(bool(folder) and clip.exists(), f"TEST_CLIPS names no folder with {clip.name}")
    run, runtime = build()
    run = replace(run, checkup=Checkup())
    await watch_stream(run, AvSource(str(clip), name=name, clock=SystemClock()), runtime)
    assert run.decided_s > 10
    assert [event.type for event in runtime.outbox.events] == []
