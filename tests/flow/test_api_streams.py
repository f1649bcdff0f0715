"""What comes by the API as it happens: events, answers, pictures."""

import asyncio
import json

import cv2
import numpy as np

from pipeline.delivery.history import EventFilter
from tests.api import LIVE, running
from tests.flow.test_service import until

WATCH = {"question": "is there a car?"}


async def events_of(response, count):
    """Id and data of the first server-sent events of a response."""
    found, seq = [], None
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            seq = int(line[4:])
        elif line.startswith("data: ") and seq is not None:
            found.append((seq, json.loads(line[6:])))
            seq = None
            if len(found) == count:
                break
    return found


async def test_events_come_as_they_are_decided_and_nothing_is_missed_between_two_connections(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port) as service:
        client = service.client
        async with client.stream("GET", "/v1/events/stream", params={"stream": "gate"}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            await until(lambda: service.api.app.state.events.listeners == 1)
            await client.put("/v1/watches/car", json=WATCH)
            await client.put("/v1/streams/other", json=LIVE)
            await client.put("/v1/streams/gate", json=LIVE)
            first = await events_of(response, 2)
        assert [event["type"] for _, event in first] == ["stream.attached", "mllm.meaningless"]
        await until(lambda: service.api.app.state.listeners == 0)
        await until(lambda: len(service.reconciler.history().events()) >= 6)
        async with client.stream("GET", "/v1/events/stream", headers={"Last-Event-ID": str(first[0][0])}) as response:
            again = await events_of(response, 3)
        kept = (await client.get("/v1/events", params={"limit": 1000})).json()["items"]
        behind = [event["id"] for event in reversed(kept) if event["seq"] > first[0][0]]
        assert [event["id"] for _, event in again] == behind[:3]
        wrong = await client.get("/v1/events/stream", headers={"Last-Event-ID": "yesterday"})
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (400, "Last-Event-ID")


async def test_answers_come_with_scores_and_scales(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, streams={"gate": LIVE}, watches={"car": WATCH}) as service:
        async with service.client.stream("GET", "/v1/answers/stream") as response:
            (_, answers), _ = await events_of(response, 2)
        assert answers["stream"] == "gate"
        assert set(answers["record"]["answers"]) == {"car"}
        listed = (await service.client.get("/v1/answers", params={"stream": "gate", "limit": 1})).json()
        assert listed["items"][0]["record"]["frames"]
        assert (await service.client.get("/v1/answers", params={"stream": "none"})).json()["items"] == []


async def test_a_client_that_never_reads_is_sent_away_and_holds_up_nobody(tmp_path, unused_tcp_port, monkeypatch):
    monkeypatch.setattr("pipeline.api.hub.QUEUE", 4)
    async with running(tmp_path, unused_tcp_port, streams={"gate": LIVE}, watches={"car": WATCH}) as service:
        hub = service.api.app.state.answers
        lazy = hub.listen(None)
        await anext(lazy)  # and never again
        async with service.client.stream("GET", "/v1/answers/stream") as response:
            assert len(await events_of(response, 6)) == 6
        stays = [one async for one in _to_the_end(lazy)]
        assert stays[-1] == "lagging"


async def _to_the_end(listener):
    from pipeline.api.hub import Lagging

    try:
        async for _ in listener:
            yield "item"
    except Lagging:
        yield "lagging"


async def test_listeners_are_bounded_and_leave_with_the_service(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, api={"max_listeners": 1}) as service:
        client = service.client
        async with client.stream("GET", "/v1/events/stream") as response:
            await until(lambda: service.api.app.state.listeners == 1)
            refused = await client.get("/v1/events/stream")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            await service.api.close()
            assert "the service stops" in "".join([line async for line in response.aiter_lines()])


async def test_an_event_is_shown_and_labelled(tmp_path, unused_tcp_port):
    async with running(tmp_path, unused_tcp_port, streams={"gate": LIVE}, watches={"car": WATCH}) as service:
        client = service.client
        opened = EventFilter(types=frozenset({"watch.opened"}))
        await until(lambda: service.reconciler.history().events(opened))
        (event,) = (await client.get("/v1/events", params={"type": "watch.opened"})).json()["items"]
        labelled = await client.put(f"/v1/events/{event['id']}/label", json={"label": "false"})
        assert labelled.json()["label"] == "false"
        found = (await client.get("/v1/events", params={"label": "false"})).json()["items"]
        assert [one["id"] for one in found] == [event["id"]]
        for label in ("maybe", 5, {}):
            wrong = await client.put(f"/v1/events/{event['id']}/label", json={"label": label})
            assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "label")
        for gone in ("nobody", "%00", "a%2Fb"):
            assert (await client.get(f"/v1/events/{gone}")).status_code == 404
        early = (await client.get("/v1/events", params={"until": "2000-01-01T00:00:00Z"})).json()["items"]
        assert early == []


async def test_pictures_are_of_frames_that_are_sampled_and_made_once(tmp_path, unused_tcp_port, monkeypatch):
    made = []
    from pipeline.api import live

    encode = live.encode
    monkeypatch.setattr(live, "encode", lambda *frame: made.append(frame[0].seq) or encode(*frame))
    async with running(tmp_path, unused_tcp_port, streams={"gate": LIVE}, watches={"car": WATCH}) as service:
        client = service.client
        await until(lambda: service.reconciler.service.attachments.get("gate"))
        answers = await asyncio.gather(*(client.get("/v1/streams/gate/snapshot.jpg?width=80") for _ in range(4)))
        assert {answer.headers["content-type"] for answer in answers} == {"image/jpeg"}
        picture = cv2.imdecode(np.frombuffer(answers[0].content, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (48, 80, 3)
        assert len(made) == len({answer.headers["x-captured-at"] for answer in answers})
        overlaid = await client.get("/v1/streams/gate/snapshot.jpg?overlay=true")
        assert overlaid.content[:2] == b"\xff\xd8"

        async with client.stream("GET", "/v1/streams/gate/live.mjpeg?width=80") as response:
            parts, read = 0, b""
            async for chunk in response.aiter_bytes():
                read += chunk
                if (parts := read.count(b"--frame\r\nContent-Type: image/jpeg")) >= 3:
                    break
        await until(lambda: service.api.app.state.listeners == 0)
        before = len(made)
        hops = service.reconciler.service.attachments["gate"].run.counts.hops
        await until(lambda: service.reconciler.service.attachments["gate"].run.counts.hops > hops + 1)
        assert len(made) == before
        assert parts >= 3


async def test_a_stream_that_gives_no_picture_says_so(tmp_path, unused_tcp_port, monkeypatch):
    monkeypatch.setattr("pipeline.api.live.WAIT_S", 0.5)
    away = {"url": "rtsp://127.0.0.1:1/yard"}
    async with running(tmp_path, unused_tcp_port, streams={"gate": away, "off": LIVE | {"paused": True}}) as service:
        await until(lambda: service.reconciler.service.attachments.get("gate"))
        lost = await service.client.get("/v1/streams/gate/snapshot.jpg")
        assert lost.status_code == 503
        off = await service.client.get("/v1/streams/off/snapshot.jpg")
        assert (off.status_code, "does not run" in off.json()["detail"]) == (503, True)
        probed = await service.client.post("/v1/streams/gate/probe")
        assert (probed.status_code, "refused" in probed.json()["detail"]) == (502, True)
