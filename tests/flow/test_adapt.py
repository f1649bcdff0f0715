"""`resadapt-allocator adapt` from recordings to a verified engine and its report, and everything that it refuses."""

import errno
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from allocator_engine.manifest import SHIPPED, read, write
from allocator_engine.model.checkpoint import load
from pipeline.clock import SystemClock
from pipeline.lab import site_engine
from pipeline.lab.answerer import MLLMAnswerer
from pipeline.lab.cli.main import main
from pipeline.lab.site_engine import CHECKPOINT
from tests.detector import BrightNetworks, folder_of_networks, walkers

pytestmark = pytest.mark.timeout(300)  # processes start slowly on busy cores

VISITS = [(3.0, 7.0), (12.0, 16.0), (22.0, 26.0), (32.0, 36.0), (41.0, 46.0), (50.0, 54.0), (58.0, 62.0)]
SITE = """
streams:
  yard: {url: "rtsp://camera/1"}
watches:
  person: {question: "Is there a person?", open_at: 0.5, streams: [yard]}
  car: {question: "Is there a vehicle?"}
"""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    walkers(folder / "yard" / "monday.mp4", 64.0, VISITS)
    return folder


def export(checkpoint: Path) -> None:
    """Stands in for the export, which takes longer than all that is tested here: the shipped network, under these
    notes."""
    for file in ("engine.onnx", "encoder.onnx", CHECKPOINT):
        shutil.copy(SHIPPED / file, checkpoint.parent / f"{file}.shipped")
    notes = load(checkpoint).notes
    for file in ("engine.onnx", "encoder.onnx", CHECKPOINT):
        (checkpoint.parent / f"{file}.shipped").replace(checkpoint.parent / file)
    write(replace(read(SHIPPED), trained_on=notes, mark=""), checkpoint.parent / "engine.json")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in this process; its exit code, and what it said to people and to programs."""
    monkeypatch.setattr("pipeline.mllm.detector.backend.open_networks", lambda folder, threads: BrightNetworks())
    monkeypatch.setattr("allocator_engine.export.export", export)
    monkeypatch.setattr(SystemClock, "sleep", lambda self, seconds: _at_once())
    (tmp_path / "site.yaml").write_text(SITE)
    models, threads = folder_of_networks(tmp_path / "models"), torch.get_num_threads()

    def run(recordings: Path, *more: object, watches: Path | None = None):
        given = (
            "--recordings",
            recordings,
            "--watches",
            watches or tmp_path / "site.yaml",
            "--out",
            tmp_path / "engine",
        )
        command = ("adapt", *given, "--mllm", f"detector:{models}", "--steps", 1, "--grounding", 1, *more)
        monkeypatch.setattr(sys, "argv", ["resadapt-allocator", *map(str, command)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, " ".join(err.split()), out

    yield run
    torch.set_num_threads(threads)


async def _at_once() -> None:
    return


def test_recordings_become_an_engine_with_a_check_a_comparison_and_a_report(run, tmp_path, recordings, monkeypatch):
    asked = {"times": 0}
    native = MLLMAnswerer.native

    def dying(self, hops, questions):
        asked["times"] += 1
        if asked["times"] == 2:
            raise ConnectionError("nobody is there")
        return native(self, hops, questions)

    monkeypatch.setattr(MLLMAnswerer, "native", dying)
    code, said, out = run(recordings)
    assert code == 0, said + out
    assert "the MLLM does not answer (nobody is there); tried again" in said
    assert re.search(r"asking at native size: [\d,]+ vision tokens, \d of \d, \d+ s left", said)
    last = json.loads(out.splitlines()[-1])
    assert last["sound"]
    assert last["use"] is False, "from a step each nothing is learned"
    assert any("more events" in one for one in last["missing"])
    assert any("the answers to car never changed" in one for one in last["missing"])
    assert (last["seconds"], last["held_out_s"]) == (64.0, 16.0)
    assert {(point["allocator"], point["budget"]) for point in last["points"]} >= {("learned", 0.1), ("fixed", 1.0)}
    manifest = read(tmp_path / "engine")
    assert manifest.trained_on["mllm_name"].startswith("detector:")
    assert manifest.trained_on["start"] != "nothing"
    page = (tmp_path / "engine" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 32
    assert "left out" in page
    assert "do not use it yet" in page
    kept = (tmp_path / "engine.work" / "native.jsonl").read_text()
    code, said, out = run(recordings, "--mllm", f"detector:{folder_of_networks(tmp_path / 'others')}")
    assert code == 2
    assert "holds an engine for detector:" in said
    assert (tmp_path / "engine.work" / "native.jsonl").read_text() == kept


def refused(done, *named: str) -> None:
    code, said, out = done
    assert code in (2, 3), out
    for one in named:
        assert one in said, said


def nothing_is_there(tmp_path: Path) -> None:
    assert not (tmp_path / "engine").exists()
    assert not list(tmp_path.glob(".engine*"))


def test_recordings_of_another_camera_than_the_watches_name(run, tmp_path, recordings):
    other = tmp_path / "hall.yaml"
    other.write_text(SITE.replace("yard", "hall"))
    refused(run(recordings, watches=other), "yard/monday.mp4", "none of the cameras", "hall")
    nothing_is_there(tmp_path)


def test_recordings_without_an_event(run, tmp_path):
    walkers(tmp_path / "quiet" / "yard" / "a.mp4", 40.0, [])
    refused(
        run(tmp_path / "quiet"), "answers never change", "'Is there a person?' is always no", "nothing to learn from"
    )
    nothing_is_there(tmp_path)


def test_recordings_that_are_too_short_or_none(run, tmp_path):
    walkers(tmp_path / "short" / "yard" / "a.mp4", 8.0, [(2.0, 4.0)])
    refused(run(tmp_path / "short"), "8 s of recordings; expected at least 30 s")
    (tmp_path / "empty").mkdir()
    refused(run(tmp_path / "empty"), "holds no recording")
    refused(run(tmp_path / "nowhere"), "is no folder")
    nothing_is_there(tmp_path)


def test_labels_outside_of_the_recording(run, tmp_path, recordings):
    labels = tmp_path / "labels.csv"
    labels.write_text("watch,file,start_s,end_s\nperson,monday.mp4,60,75\n")
    refused(run(recordings, "--labels", labels), "yard/monday.mp4 goes from 60 to 75 s, but the recording has 64")
    labels.write_text("watch,file,start_s,end_s\nboat,monday.mp4,1,2\n")
    refused(run(recordings, "--labels", labels), "line 2", "'boat'")
    nothing_is_there(tmp_path)


def test_an_mllm_that_stays_dead(run, tmp_path, recordings, monkeypatch):
    def dead(self, hops, questions):
        raise ConnectionError("nobody is there")

    monkeypatch.setattr(MLLMAnswerer, "native", dead)
    refused(run(recordings), "nobody is there", "the same command goes on from")
    nothing_is_there(tmp_path)


def test_a_disk_that_fills_leaves_no_engine(run, tmp_path, recordings, monkeypatch):
    def full(*arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("allocator_engine.export.export", full)
    refused(run(recordings), "No space left on device")
    nothing_is_there(tmp_path)


def test_a_place_that_holds_something_else_is_left_alone(run, tmp_path, recordings):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "holiday.jpg").write_bytes(b"a picture")
    refused(run(recordings), "holds something else than an engine")
    assert (tmp_path / "engine" / "holiday.jpg").read_bytes() == b"a picture"


def test_an_engine_takes_the_place_of_another_as_a_whole(tmp_path):
    for name, text in (("made", "new"), ("out", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "engine.json").write_text(text)
    (tmp_path / "out" / "stale.txt").write_text("x")
    site_engine.replace_folder(tmp_path / "made", tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["engine.json"]
    assert (tmp_path / "out" / "engine.json").read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
