"""Engines of real footage, `gaze`, so many minutes, all cameras but one: what trains each, and how they compare."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from allocator_engine.manifest import SHIPPED, read, write
from allocator_engine.model.checkpoint import Checkpoint, load, save
from allocator_engine.model.network import Shape
from allocator_engine.train.start import begin
from pipeline.config.site import parse_site
from pipeline.errors import ConfigError
from pipeline.lab import real_engine
from pipeline.lab.cli.main import app
from pipeline.lab.real_engine import WantedEngines, train_engines
from pipeline.lab.real_tasks import RealTasks
from pipeline.lab.site_engine import CHECKPOINT, GENERAL, ShortTraining
from pipeline.lab.site_footage import seconds_of
from tests.detector import BrightNetworks, folder_of_networks, footage

pytestmark = pytest.mark.timeout(300)  # processes start slowly on busy cores


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    return footage(tmp_path_factory.mktemp("footage"))


@pytest.fixture(autouse=True)
def sees(monkeypatch):
    monkeypatch.setattr("pipeline.mllm.detector.backend.open_networks", lambda folder, threads: BrightNetworks())
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def trainings(monkeypatch) -> list:
    """The trainings that were wanted, each with its clips; in the place of each engine lies a copy of the shipped."""
    wanted = []

    def make_engine(clips, asked, training, work, out, on_step):
        wanted.append((training, clips))
        shutil.copytree(SHIPPED, out)
        noted = {"number": str(len(wanted))}
        write(replace(read(SHIPPED), trained_on=noted, mark=""), out / "engine.json")

    monkeypatch.setattr(real_engine, "make_engine", make_engine)
    return wanted


def run(labelled: Path, *arguments: str):
    command = ("evaluate", "--tasks", "real", "--footage", str(labelled), "--families", "qa", "--equal", "rates")
    return CliRunner().invoke(app, [*command, "--budgets", "0.25", *arguments])


def cameras(clips) -> set[str]:
    return {clip.file.stem for clip in clips}


def test_each_camera_gives_the_same_share_of_so_many_minutes_and_none_where_it_is_left_out(labelled):
    source = RealTasks(labelled, closed=True)
    assert source.cameras == ("hall", "yard")
    assert seconds_of(source.training()) == 48.0
    half = source.training(0.4)
    assert {camera: seconds_of([c for c in half if c.file.stem == camera]) for camera in cameras(half)} == {
        "hall": 12.0,
        "yard": 12.0,
    }
    assert {clip.start_s for clip in half} == {0.0}
    assert cameras(source.training(without="hall")) == {"yard"}
    with pytest.raises(ConfigError, match=r"0\.8 minutes of recordings are wanted, and 0\.8 are there"):
        source.training(0.8)


def test_every_engine_that_is_wanted_is_trained_once_on_its_own_clips_and_compared_by_its_name(
    labelled, trainings, tmp_path
):
    command = ("--allocators", "learned,gaze,fixed", "--minutes", "0.4", "--leave-out", "--resume", str(tmp_path))
    done = run(labelled, *command, "--grounding", "5", "--steps", "7")
    assert done.exit_code == 0, done.output + repr(done.exception)
    said = json.loads(done.stdout.splitlines()[-1])
    names = {"learned", "gaze", "fixed", "learned:0.4min", "learned:0.4min-from-nothing", "learned:all-from-nothing"}
    assert {point["allocator"] for point in said["points"]} == names | {"learned:general"}
    assert "By minutes of recordings" in done.stdout
    usual = ShortTraining(5, 7)
    whole, half = 48.0, 24.0
    assert [(training, seconds_of(clips), cameras(clips)) for training, clips in trainings] == [
        (usual, whole, {"hall", "yard"}),
        (replace(usual, listens=False), whole, {"hall", "yard"}),
        (usual, half, {"hall", "yard"}),
        (replace(usual, general=False), half, {"hall", "yard"}),
        (replace(usual, general=False), whole, {"hall", "yard"}),
        (usual, half, {"yard"}),
        (usual, half, {"hall"}),
    ]
    again = run(labelled, *command, "--grounding", "5", "--steps", "7", "--json")
    assert json.loads(again.stdout.splitlines()[-1])["points"] == said["points"]
    assert len(trainings) == 7, "what was made before is taken as it is"


def test_an_engine_that_is_named_needs_no_training(labelled, trainings):
    done = run(labelled, "--allocators", "learned,fixed", "--engine", str(SHIPPED), "--json")
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert not trainings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--minutes", "1,much"), "--minutes is '1,much'; expected minutes"),
        (("--minutes", "0"), "--minutes is '0'; expected minutes"),
        (("--minutes", "0.4", "--allocators", "fixed"), "let it be among --allocators, without --engine"),
        (("--minutes", "0.4", "--engine", str(SHIPPED)), "let it be among --allocators, without --engine"),
        (("--minutes", "9"), "9 minutes of recordings are wanted, and 0.8 are there"),
        (("--minutes", "0.4,9", "--leave-out"), "9 minutes of recordings are wanted, and 0.8 are there"),
        (("--budgets", "2"), "--budgets is '2'; expected shares"),
        (("--families", "jokes"), "--families names 'jokes'"),
        (("--equal", "pay"), "--equal is 'pay'"),
        (("--gaze", str(SHIPPED)), "listens to queries; expected an engine that was trained without them"),
    ],
)
def test_trainings_that_cannot_be_meant_are_refused_by_name(labelled, trainings, arguments, message, tmp_path):
    done = run(labelled, "--resume", str(tmp_path), *arguments)
    assert isinstance(done.exception, ValueError)
    assert message in " ".join(str(done.exception).split())
    assert not trainings


@pytest.mark.parametrize("kept", ["hall", "yard"])
def test_a_camera_that_is_alone_cannot_be_left_out_and_nothing_is_trained_before(labelled, trainings, tmp_path, kept):
    alone = shutil.copytree(labelled, tmp_path / "alone")
    (alone / "real" / "labels" / {"hall": "yard.boxes.csv", "yard": "clips.json"}[kept]).unlink()
    done = run(alone, "--allocators", "learned,gaze,fixed", "--leave-out", "--resume", str(tmp_path / "kept"))
    assert isinstance(done.exception, ConfigError)
    assert f"nothing to train on without {kept}" in str(done.exception)
    assert not trainings


def test_cameras_of_which_nothing_is_asked_that_is_understood_train_nothing(labelled, trainings, tmp_path):
    alone = shutil.copytree(labelled, tmp_path / "alone")
    labels = alone / "real" / "labels"
    (labels / "yard.boxes.csv").unlink()
    stated = json.loads((labels / "clips.json").read_text())
    stated["hall.mp4"].pop("a person is in view")
    (labels / "clips.json").write_text(json.dumps(stated))
    done = run(alone, "--allocators", "learned,fixed", "--resume", str(tmp_path / "kept"))
    assert isinstance(done.exception, ConfigError)
    assert "nothing is asked of 1 labelled recordings that the MLLM understands" in str(done.exception)
    assert not trainings


@pytest.mark.parametrize("option", [("--minutes", "1"), ("--leave-out",), ("--steps", "3"), ("--grounding", "3")])
def test_options_of_real_footage_are_refused_elsewhere(option):
    done = CliRunner().invoke(app, ["evaluate", *option])
    assert f"{option[0]} is about what is trained on real footage" in str(done.exception)


def test_the_yard_has_no_engine_that_was_trained_without_text_unless_one_is_named():
    done = CliRunner().invoke(app, ["evaluate", "--seeds", "0:1", "--allocators", "gaze"])
    assert "the allocator gaze needs an engine" in str(done.exception)
    assert "--gaze" in str(done.exception)


def test_gaze_begins_with_the_weights_of_the_shipped_engine_and_learns_without_queries(labelled, tmp_path, monkeypatch):
    exported = []

    def export(checkpoint: Path) -> None:
        found = load(checkpoint)
        exported.append((found.network.shape.listens, found.notes["start"]))
        for file in ("engine.onnx", "encoder.onnx", CHECKPOINT):
            shutil.copy(SHIPPED / file, checkpoint.parent / file)
        write(read(SHIPPED), checkpoint.parent / "engine.json")

    monkeypatch.setattr("allocator_engine.export.export", export)
    mllm = parse_site({"mllm": f"detector:{folder_of_networks(tmp_path / 'models')}"}).mllm
    small = ShortTraining(1, 1, prompts=1, group=2)
    steps = []
    wanted = WantedEngines(learned=False, gaze=True, training=small)
    found = train_engines(labelled, mllm, tmp_path, wanted, lambda what, done, of: steps.append((what, done, of)))
    assert set(found.others) == {"gaze"}
    assert found.learned is None
    assert [listens for listens, _ in exported] == [False]
    assert exported[0][1] != "nothing"
    assert steps == [("training gaze", 1, 2), ("training gaze", 2, 2)]


def test_a_learner_without_text_takes_the_weights_of_one_that_listens_and_no_others():
    silent, said = begin(Shape(listens=False), 1, GENERAL)
    assert "begins from shipped" in said
    assert not silent.network.shape.listens
    weights, shipped = silent.network.state_dict(), load(GENERAL).network.state_dict()
    assert all(torch.equal(weights[name], shipped[name]) for name in shipped)
    _, said = begin(Shape(listens=False, width=64), 1, GENERAL)
    assert "another shape" in said


def test_a_learner_that_listens_does_not_take_the_weights_of_one_that_does_not(tmp_path):
    silent, _ = begin(Shape(listens=False), 1)
    save(Checkpoint(silent.network, silent.encoder, {}), tmp_path / CHECKPOINT)
    listening, said = begin(Shape(), 2, tmp_path / CHECKPOINT)
    assert "another shape" in said
    weights, known = listening.network.state_dict(), silent.network.state_dict()
    assert any(not torch.equal(weights[name], known[name]) for name in known)
    _, said = begin(Shape(listens=False), 2, tmp_path / CHECKPOINT)
    assert f"begins from {tmp_path.name}" in said, "one that does not listen takes them"
