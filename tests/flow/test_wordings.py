"""Wordings of a watch compared on recordings: by files of labels, by those that are kept, and by the API."""

import asyncio
import json
import os
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.delivery.labels import LabelBook
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError
from pipeline.registry.entry import Change
from pipeline.registry.registry import Registry
from pipeline.testing import ManualClock, ScriptedMLLM
from tests.api import running
from tests.clips import steady, write

OWN, GOOD, WORSE = "is it so?", "is a car in view?", "is a bus in view?"
WATCH = {"question": OWN, "open_at": 0.5, "clear_at": 0.3}
SECONDS, EVERY = 160, 20
CARS = [(second + 10, second + 15) for second in range(0, SECONDS, EVERY)]
"""When a car is in view, in seconds of the recording."""
BEGAN = datetime(2026, 11, 29, 12, tzinfo=UTC)
GATE = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "paused": True}


def seen(context, query):
    """The own wording sees every other car, and shadows between them; the good one sees each car."""
    second = int(context.segments[-1].pts_s[-1])
    car, odd, shadow = 10 <= second % EVERY < 15, second // EVERY % 2, 2 <= second % EVERY < 5
    return {GOOD: car, OWN: (car and odd) or shadow, WORSE: shadow}[query.question] * 0.8 + 0.1


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    monkeypatch.setattr("pipeline.service.opening.build_mllm", lambda *_: ScriptedMLLM(seen))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "gate").mkdir()
    file = folder / "gate" / "noon.mp4"
    write(file, steady(float(SECONDS), fps=2), size=(64, 96))
    ended = (BEGAN + timedelta(seconds=SECONDS)).timestamp()
    os.utime(file, (ended, ended))
    return folder


@pytest.fixture
def store(tmp_path):
    """The URL of a store with the watch and what it missed: each car."""
    url, clock = f"sqlite:///{tmp_path}/s.db", ManualClock(BEGAN + timedelta(hours=1))
    opened = Store(url, clock)
    changes = [Change("watch", "car", WATCH, "key:me", "absent"), Change("stream", "gate", GATE, "key:me", "absent")]
    Registry(opened.database, clock).edit(changes, "key:me")
    book = LabelBook(opened.database, clock)
    for start, end in CARS:
        book.missed("gate", "car", *(BEGAN + timedelta(seconds=second) for second in (start, end)), "", "me")
    opened.close()
    return url


@pytest.fixture
def by_file(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("file,start_s,end_s\n" + "".join(f"noon.mp4,{start},{end}\n" for start, end in CARS))
    return path


def tuned(*arguments, wordings=(GOOD, WORSE)):
    words = [part for one in wordings for part in ("--wording", one)]
    command = ["watch", "tune", "car", *map(str, arguments), *words, "--mllm", "null", "--json"]
    result = CliRunner().invoke(app, command)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1]), result.stdout


def test_the_wording_that_agrees_with_the_labels_is_proposed(recordings, store, by_file):
    """By a file of labels, and by those that are kept of the time that the recording says it is of."""
    for more in (("--labels", by_file), ()):
        found, shown = tuned("--on", recordings, "--store", store, *more)
        assert found["proposed"] == GOOD
        assert found["changes"]["question"] == GOOD
        assert [one["question"] for one in found["wordings"]] == [OWN, GOOD, WORSE]
        own, good, worse = found["wordings"]
        assert good["expected"]["f1"] > 0.9 > own["expected"]["f1"]
        assert good["gain"]["interval"][0] > 0
        assert worse["gain"]["f1"] <= 0
        assert (found["truths"], found["now"]["question"]) == (len(CARS), OWN)
        assert found["tokens"] > 0
        assert f"resadapt watch edit car --question {json.dumps(GOOD)}" in shown


def test_what_cannot_be_compared_is_refused_by_name_before_anything_is_asked(recordings, store, by_file, tmp_path):
    beside = ("--store", store)
    for arguments, wordings, named in (
        (beside, (GOOD,), "expected --on FILE_OR_FOLDER"),
        (("--on", recordings, "--apply", *beside), (GOOD,), "resadapt watch edit"),
        (("--on", tmp_path / "none", *beside), (GOOD,), "neither a file nor a folder"),
        (("--on", recordings, *beside), ("x" * 10_000,), "10000 characters"),
        (("--on", recordings, *beside, "--labels", tmp_path / "none.csv"), (GOOD,), "none.csv cannot be read"),
        (("--on", recordings, "--store", f"sqlite:///{tmp_path}/none.db"), (GOOD,), "there is no store"),
    ):
        with pytest.raises(ConfigError, match=named):
            tuned(*arguments, wordings=wordings)
    later = recordings / "gate" / "noon.mp4"
    before = later.stat().st_mtime
    os.utime(later, (before + 9000, before + 9000))
    try:
        with pytest.raises(ConfigError, match=r"no label of the labels that are kept falls on a recording.*gate/noon"):
            tuned("--on", recordings, *beside)
    finally:
        os.utime(later, (before, before))


def test_a_watch_about_a_zone_is_asked_of_recordings_whose_stream_has_it(recordings, tmp_path, by_file):
    (tmp_path / "none.db").touch()
    site = {"store": f"sqlite:///{tmp_path}/none.db", "watches": {"car": WATCH | {"zone": "dock"}}}
    dock = {"zones": {"dock": [[0, 0], [1, 0], [1, 1]]}}
    for streams, fits in (({"gate": GATE | dock}, True), ({"hall": GATE | dock}, False)):
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump(site | {"streams": streams}))
        arguments = ("--on", recordings, "-c", path, "--labels", by_file)
        if fits:
            assert tuned(*arguments)[0]["proposed"] == GOOD
        else:
            with pytest.raises(ConfigError, match=r"the zone 'dock', and .*noon.mp4 is of no stream that has it"):
                tuned(*arguments)


async def test_the_api_compares_on_a_recording_that_is_sent(recordings, tmp_path, unused_tcp_port):
    began, clip = datetime.now(UTC) - timedelta(hours=2), (recordings / "gate" / "noon.mp4").read_bytes()
    streams = {"gate": GATE, "hall": GATE}
    async with running(tmp_path, unused_tcp_port, streams=streams, watches={"car": WATCH}) as service:

        async def compare(**params: object) -> httpx.Response:
            wanted = {"name": "noon.mp4", "wording": [GOOD, WORSE], "began": began.isoformat()} | params
            return await service.client.post("/v1/watches/car/wordings", content=clip, params=wanted, timeout=60)

        async def missed(stream: str) -> None:
            for start, end in CARS:
                times = {
                    name: (began + timedelta(seconds=s)).isoformat() for name, s in (("start", start), ("end", end))
                }
                answer = await service.client.post("/v1/labels", json={"stream": stream, "watch": "car"} | times)
                assert answer.status_code == 201, answer.text

        for params, said in (
            ({}, "there is no label of the watch car"),
            ({"name": "noon.exe"}, "there is no label"),
        ):
            assert said in (await compare(**params)).text
        await missed("gate")
        response = await compare()
        assert response.status_code == 200, response.text
        found = response.json()
        assert (found["proposed"], found["truths"]) == (GOOD, len(CARS))
        local, _ = await asyncio.to_thread(
            tuned, "--on", recordings, "--url", f"http://127.0.0.1:{unused_tcp_port}", "--labels", _labels(tmp_path)
        )
        assert [one["expected"] for one in local["wordings"]] == [one["expected"] for one in found["wordings"]]
        await missed("hall")
        assert "gate, hall have labels of car" in (await compare()).text
        assert (await compare(stream="hall")).json()["proposed"] == GOOD
        for params, status, said in (
            ({"stream": "gate", "name": "noon.exe"}, 422, ".mp4"),
            ({"stream": "gate", "wording": ["x" * 10_000]}, 422, "10000 characters"),
            ({"stream": "gate", "began": "soon"}, 422, "began"),
            ({"stream": "gate", "began": "2020-01-01T00:00:00Z"}, 422, "no part of the recordings was looked at"),
        ):
            answer = await compare(**params)
            assert (answer.status_code, said in answer.text) == (status, True), answer.text


def _labels(folder):
    path = folder / "labels.csv"
    path.write_text("file,start_s,end_s\n" + "".join(f"gate/noon.mp4,{start},{end}\n" for start, end in CARS))
    return path
