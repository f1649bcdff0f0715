"""Wordings of a watch compared on recordings: by files of labels, by those that are kept, and by the API."""

import json
import os
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import yaml
from structlog.testing import capture_logs
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.config.entries import parse_watch
from pipeline.delivery.database_faults import StoreFull
from pipeline.delivery.labels import LabelBook
from pipeline.delivery.store import Store
from pipeline.delivery.wording_tests import WordingTestBook
from pipeline.errors import ConfigError, StoreUnavailable
from pipeline.lab import tune_search
from pipeline.lab.tested import better_wordings, results_of
from pipeline.registry.entry import Change
from pipeline.registry.registry import Registry
from pipeline.testing import ManualClock, ScriptedMLLM
from tests.api import running
from tests.clips import steady, write

OWN, GOOD, WORSE = "is it so?", "is a car in view?", "is a bus in view?"
WATCH = {"question": OWN, "open_at": 0.5, "clear_at": 0.3}
SECONDS, EVERY = 96, 16
CARS = [(second + 8, second + 12) for second in range(0, SECONDS, EVERY)]
"""When a car is in view, in seconds of the recording."""
BEGAN = datetime(2026, 11, 29, 12, tzinfo=UTC)
GATE = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "paused": True}


def seen(context, query):
    """The good wording sees each car, the own one a third of them, the worse one none."""
    second = int(context.segments[-1].pts_s[-1])
    car, third = 8 <= second % EVERY < 12, second // EVERY % 3 == 0
    return {GOOD: car, OWN: car and third, WORSE: False}[query.question] * 0.8 + 0.1


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    monkeypatch.setattr("pipeline.service.opening.build_mllm", lambda *_: ScriptedMLLM(seen))
    monkeypatch.setattr("pipeline.lab.tune_search.MOST_TRIED", tune_search.LEAST_TRIED)  # enough for so few hops


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


def zoned(folder, stream):
    """A site file, that no service ran with, whose watch is about a zone that a stream has."""
    dock = {"dock": [[0, 0], [1, 0], [1, 1]]}
    site = {
        "store": f"sqlite:///{folder}/zoned.db",
        "watches": {"car": WATCH | {"zone": "dock"}},
        "streams": {stream: GATE | {"zones": dock, "hop_s": 2.0}},
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    return folder / "site.yaml"


def test_the_wording_that_agrees_with_the_labels_is_proposed(recordings, tmp_path, store, by_file):
    """By a file of labels, about a zone of the stream; and by labels that are kept of the time of the recording."""
    for more in (("-c", zoned(tmp_path, "gate"), "--labels", by_file), ("--store", store)):
        found, shown = tuned("--on", recordings, *more)
        assert found["proposed"] == GOOD
        assert found["changes"]["question"] == GOOD
        assert [one["question"] for one in found["wordings"]] == [OWN, GOOD, WORSE]
        own, good, worse = found["wordings"]
        assert good["expected"]["f1"] > 0.9 > own["expected"]["f1"]
        assert good["gain"]["interval"][0] > 0 >= worse["gain"]["f1"]
        assert (found["truths"], found["now"]["question"]) == (len(CARS), OWN)
        assert found["tokens"] > 0
        assert f"resadapt watch edit car --question {json.dumps(GOOD)}" in shown


def said_by(*arguments):
    """What a command prints, and what it prints on stderr."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout, result.stderr


def test_a_wording_that_did_better_in_a_test_is_named_when_the_watch_is_tuned(recordings, tmp_path, store, by_file):
    """Where the test was of the watch, until it is asked that, or something else."""
    test = ("watch", "test", GOOD, WORSE, "--on", recordings, "--labels", by_file, "--mllm", "null", "--watch", "car")
    site = tmp_path / "beside.yaml"
    site.write_text(yaml.safe_dump({"store": store, "streams": {"gate": GATE}, "watches": {}}))
    for _ in range(2):  # the same test again takes the place of the first
        shown, errors = said_by(*test, "-c", site)
        assert json.loads(shown.splitlines()[-1])["proposed"] == GOOD
        assert "not kept" not in errors
    opened = Store(store, ManualClock(datetime.now(UTC)))
    book = WordingTestBook(opened.database, ManualClock(datetime.now(UTC)))
    (kept,) = results_of(book, "car", parse_watch("car", WATCH))
    assert (kept.result.now.question, kept.result.names, kept.stale) == (OWN, ("gate/noon.mp4",), False)
    (better,) = better_wordings([kept], parse_watch("car", WATCH))
    assert (better.figures.question, better.truths, better.by) == (GOOD, len(CARS), "local")
    result = CliRunner().invoke(app, ["watch", "tune", "car", "--store", store])
    assert isinstance(result.exception, ConfigError), "there are labels, and no answers"
    tested = result.stdout
    assert f'tested: "{GOOD}" did better: F1 ' in tested
    assert "on gate/noon.mp4" in tested
    assert f'resadapt watch edit car --question "{GOOD}"' in tested
    Registry(opened.database, ManualClock(datetime.now(UTC))).edit(
        [Change("watch", "car", WATCH | {"question": GOOD}, "key:me", "any")], "key:me"
    )
    opened.close()
    assert "tested:" not in CliRunner().invoke(app, ["watch", "tune", "car", "--store", store]).stdout


def test_a_test_of_a_watch_takes_its_settings_from_it_and_what_cannot_be_kept_is_said(recordings, tmp_path, by_file):
    test = ("watch", "test", GOOD, "--watch", "car", "--mllm", "null", "--on", recordings, "--labels", by_file)
    for more in (("--set", "open_at=0.6"), ("--report", tmp_path / "r.html")):
        with pytest.raises(ConfigError, match="--watch takes --on"):
            said_by(*test, *more)
    shown, errors = said_by(*test, "-c", zoned(tmp_path, "gate"))
    assert json.loads(shown.splitlines()[-1])["proposed"] == GOOD
    assert "not kept for `resadapt watch tune`: there is no store" in errors


def test_what_cannot_be_compared_is_refused_by_name_before_anything_is_asked(recordings, store, by_file, tmp_path):
    beside = ("--store", store)
    for arguments, wordings, named in (
        (beside, (GOOD,), "expected --on FILE_OR_FOLDER"),
        (("--on", recordings, "--apply", *beside), (GOOD,), "resadapt watch edit"),
        (("--on", tmp_path / "none", *beside), (GOOD,), "neither a file nor a folder"),
        (("--on", recordings, *beside), ("x" * 10_000,), "10000 characters"),
        (("--on", recordings, *beside, "--labels", tmp_path / "none.csv"), (GOOD,), "none.csv cannot be read"),
        (("--on", recordings, "--store", f"sqlite:///{tmp_path}/none.db"), (GOOD,), "there is no store"),
        (("--on", recordings, "-c", zoned(tmp_path, "hall"), "--labels", by_file), (GOOD,), "of no stream that has it"),
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


async def test_the_api_compares_on_a_recording_that_is_sent(recordings, tmp_path, unused_tcp_port):
    began, clip = datetime.now(UTC) - timedelta(hours=2), (recordings / "gate" / "noon.mp4").read_bytes()
    streams = {"gate": GATE, "hall": GATE}
    async with running(tmp_path, unused_tcp_port, streams=streams, watches={"car": WATCH}) as service:

        async def compare(**params: object) -> httpx.Response:
            wanted = {"name": "noon.mp4", "wording": [GOOD], "began": began.isoformat()} | params
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
        assert (found["proposed"], found["truths"], found["kept"]) == (GOOD, len(CARS), True)
        kept = (await service.client.get("/v1/watches/car/wordings")).json()
        (item,), (better,) = kept["items"], kept["better"]
        assert (item["result"]["proposed"], item["stale"], item["result"]["names"]) == (GOOD, False, ["noon.mp4"])
        assert better["figures"]["question"] == GOOD
        assert better["figures"]["f1"] == found["wordings"][1]["expected"]["f1"]
        other = item["result"] | {"digest": "0123456789ab", "zone": "dock"}
        answer = await service.client.post("/v1/watches/car/wordings/results", json=other)
        assert (answer.status_code, len(answer.json()["items"]), len(answer.json()["better"])) == (201, 2, 1)
        for wrong in ({"digest": "no"}, {"wordings": []}, {"truths": -1}, {"names": ["x"] * 100}):
            answer = await service.client.post("/v1/watches/car/wordings/results", json=other | wrong)
            assert answer.status_code == 422, answer.text
        assert (await service.client.post("/v1/watches/bus/wordings/results", json=other)).status_code == 404
        await missed("hall")
        assert "gate, hall have labels of car" in (await compare()).text
        for params, status, said in (
            ({"stream": "gate", "name": "noon.exe"}, 422, ".mp4"),
            ({"stream": "gate", "wording": ["x" * 10_000]}, 422, "10000 characters"),
            ({"stream": "gate", "began": "soon"}, 422, "began"),
        ):
            answer = await compare(**params)
            assert (answer.status_code, said in answer.text) == (status, True), answer.text


async def test_a_comparison_that_cannot_be_kept_is_answered_all_the_same(
    recordings, tmp_path, unused_tcp_port, monkeypatch
):
    began, clip = datetime.now(UTC) - timedelta(hours=2), (recordings / "gate" / "noon.mp4").read_bytes()
    refusals = [StoreFull("the store s.db is full"), StoreUnavailable("the store s.db does not take it")]
    wanted = {"name": "noon.mp4", "wording": [GOOD], "began": began.isoformat()}

    def refuse(*_):
        raise refusals.pop()

    async with running(tmp_path, unused_tcp_port, streams={"gate": GATE}, watches={"car": WATCH}) as service:
        for start, end in CARS:
            times = {name: (began + timedelta(seconds=s)).isoformat() for name, s in (("start", start), ("end", end))}
            answer = await service.client.post("/v1/labels", json={"stream": "gate", "watch": "car"} | times)
            assert answer.status_code == 201, answer.text
        monkeypatch.setattr(WordingTestBook, "keep", refuse)
        while refusals:
            with capture_logs() as logged:
                asked = await service.client.post("/v1/watches/car/wordings", content=clip, params=wanted, timeout=60)
            assert asked.status_code == 200, asked.text
            assert (asked.json()["kept"], asked.json()["proposed"]) == (False, GOOD)
            (line,) = [line for line in logged if line["event"] == "wordings_not_kept"]
            assert (line["log_level"], line["watch"]) == ("warning", "car")
        assert (await service.client.get("/v1/watches/car/wordings")).json()["items"] == []
