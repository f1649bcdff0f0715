"""`evaluate --tasks real` from end to end: on small footage with truth, and on real footage where that is at hand."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.build import build_mllm
from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.lab.cli.main import app
from pipeline.lab.real_tasks import RealTasks
from pipeline.sources.codec_signs import read_signs
from tests.detector import BrightNetworks, footage
from tests.services import require

pytestmark = pytest.mark.timeout(300)  # processes start slowly on busy cores

ALLOCATORS = "fixed,motion,fewer,recent,codec,video,oracle"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    return footage(tmp_path_factory.mktemp("footage"))


@pytest.fixture
def sees(monkeypatch):
    monkeypatch.setattr("pipeline.mllm.detector.backend.open_networks", lambda folder, threads: BrightNetworks())


def run(*arguments: str) -> tuple[dict, str]:
    result = CliRunner().invoke(app, ["evaluate", "--tasks", "real", *arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout.splitlines()[-1]), result.stdout


def test_the_tested_part_is_the_last_of_each_cameras_time_and_the_first_trains(labelled):
    source = RealTasks(labelled, closed=True)
    assert len(source) == 2
    assert source.skipped == ("hall: Is a boat in view?",)
    for index in range(2):
        tasks = source.tasks(index)
        assert {task.family for task in tasks} == {"watch_f1", "qa"}
        (clip,) = {task.clip for task in tasks}
        hops = source.hops(clip)
        assert (hops[0].start_s, hops[-1].end_s) == (0.0, 16.0)
        certain = {span.certain_s for task in tasks for watch in task.watches for span in watch.spans}
        assert certain - {None} == {3.0, 9.0}, (
            "of the visits from 27 and from 33 s, in seconds of a part that begins at 24"
        )
        assert len({task.episode for task in tasks}) == 2, "two blocks of time"
    assert {(clip.start_s, clip.end_s) for clip in source.training()} == {(0.0, 16.0), (16.0, 24.0)}
    assert all("Is a boat in view?" not in clip.questions for clip in source.training())
    assert any("Is a boat in view?" in clip.questions for clip in RealTasks(labelled).training())


def test_an_encoder_works_where_something_moves(labelled):
    signs = [sign for sign in read_signs(labelled / "clips" / "hall.mp4") if not sign.key]
    changing = [sign.bytes for sign in signs if any(abs(sign.pts_s - at_s) < 0.05 for at_s in (2, 6, 10, 13))]
    still = [sign.bytes for sign in signs if 7.0 < sign.pts_s < 9.5]
    assert min(changing) > 2 * max(still)
    source = RealTasks(labelled, closed=True)
    activity = source.activity("hall")
    assert [len(hop) for hop in activity] == [2] * 16
    most = [max(one.bytes for one in hop) for hop in activity]
    assert min(most[hop] for hop in (3, 6, 9, 12)) > 2 * np.median(most), "somebody comes or goes"


@pytest.mark.usefixtures("sees")
def test_every_baseline_is_compared_on_footage_with_truth_and_the_table_says_what_it_can_tell(labelled, tmp_path):
    command = ("--footage", str(labelled), "--budgets", "0.05,0.25,1", "--resume", str(tmp_path))
    said, printed = run(*command, "--allocators", ALLOCATORS)
    points = {(point["allocator"], point["budget"]): point for point in said["points"]}
    assert set(points) == {(name, budget) for name in ALLOCATORS.split(",") for budget in (0.05, 0.25, 1.0)}
    native = points["fixed", 1.0]
    assert native["watch_f1"]["value"] == 1.0, "at native size what is bright is seen as soon as it is there"
    assert native["qa"]["value"] == 1.0
    assert native["watch_f1"]["n"] >= 4
    assert {"watch_f1 presence", "watch_f1 zone"} <= set(native["splits"])
    assert points["recent", 0.05]["watch_f1"]["value"] < 1.0
    assert "cannot tell" in printed
    assert "are few" in printed
    again, _ = run(*command, "--allocators", ALLOCATORS)
    assert again["points"] == said["points"], "nothing is found out twice"


@pytest.mark.usefixtures("sees")
def test_one_allocator_alone_is_a_line_of_json(labelled):
    said, _ = run("--footage", str(labelled), "--budgets", "0.1", "--allocators", "fixed", "--json")
    assert len(said["points"]) == 1
    assert said["tasks"] == "real"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tasks", "real"), "--tasks real and --footage FOLDER go together"),
        (("--footage", "x"), "--tasks real and --footage FOLDER go together"),
        (("--tasks", "real", "--footage", "nowhere"), "has no real/labels"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused_by_name(arguments, message):
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)


def test_labels_of_other_frames_than_the_recording_has_are_refused(tmp_path):
    folder = footage(tmp_path)
    labels = folder / "real" / "labels" / "clips.json"
    stated = json.loads(labels.read_text())
    stated["hall.mp4"]["frames"] *= 2
    labels.write_text(json.dumps(stated))
    with pytest.raises(ValueError, match=r"hall\.mp4 count 800 frames, but it has about 400"):
        RealTasks(folder)


@pytest.fixture
def real() -> Path:
    named = os.environ.get("TEST_REAL_FOOTAGE")
    require(bool(named), "TEST_REAL_FOOTAGE names a folder with real footage and a detector")
    require(find_spec("openvino") is not None, "openvino computes the detector's networks")
    return Path(named)


def test_the_detector_sees_less_of_real_people_in_fewer_pixels(real):
    said, _ = run("--footage", str(real), "--budgets", "0.02,1", "--allocators", "fixed", "--families", "qa")
    at = {point["budget"]: point["qa"]["value"] for point in said["points"]}
    assert at[0.02] < at[1.0] - 0.1
    assert at[1.0] > 0.8


async def test_the_real_networks_start_as_an_mllm(real):
    mllm = build_mllm(parse_site({"mllm": f"detector:{real / 'real' / 'models'}"}).mllm, SystemClock())
    await mllm.start()
    assert mllm.info.family == "detector"
    await mllm.close()
