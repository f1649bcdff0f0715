"""Questions tried on recordings from the command line, and what is refused by name with nothing written."""

import json

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.config.mllm import NullConfig, YardConfig
from pipeline.errors import ConfigError, ResadaptError
from pipeline.lab.backtest import MOST_THREADS, with_all_cores
from pipeline.lab.labels import OpenSpan, agree
from pipeline.service.here import usable_cores
from samples.yard.world.codec import write_video
from samples.yard.world.scene import Scene


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    write_video(folder / "gate.mp4", Scene(7, 24.0))
    return folder


def tried(*arguments):
    result = CliRunner().invoke(app, ["watch", "test", *map(str, arguments), "--mllm", "null", "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_wordings_are_tried_side_by_side_against_labels(recordings, tmp_path):
    (tmp_path / "labels.csv").write_text("file,start_s,end_s\ngate.mp4,0,10\ngate.mp4,20,24\n")
    report = tmp_path / "r.html"
    found = tried(
        "is it so?", "<b>is it?</b>", "--on", recordings, "--labels", tmp_path / "labels.csv", "--report", report
    )
    assert [one["question"] for one in found["wordings"]] == ["is it so?", "<b>is it?</b>"]
    assert (found["precision"], found["recall"], found["f1"]) == (1.0, 1.0, 1.0), "yes for ten seconds, no for ten"
    assert found["delay_p50_s"] <= 2.0
    assert found["tokens"] > 0
    assert found["realtime_factor"] > 0
    page = report.read_text()
    assert "data:image/jpeg;base64," in page
    assert "<b>is it" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<th>precision</th>" in page


def test_where_nothing_is_live_an_mllm_in_the_process_takes_each_core():
    assert with_all_cores(YardConfig()).threads == min(usable_cores(), MOST_THREADS)
    assert with_all_cores(YardConfig(threads=3)) == YardConfig(threads=3)
    assert with_all_cores(NullConfig()) == NullConfig()


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ("file,start_s,end_s\ngate.mp4,5,900\n", "labels inside"),
        ("file,start_s,end_s\nother.mp4,5,9\n", "line 2: file is 'other.mp4'"),
        ("file,start_s,end_s\ngate.mp4,9,5\n", "an end later"),
        ("file,start_s,end_s\ngate.mp4,soon,5\n", "start_s is 'soon'"),
        ("when\n5\n", "columns are file, start_s, end_s"),
    ],
)
def test_labels_that_do_not_fit_are_refused_and_no_report_is_written(recordings, tmp_path, labels, named):
    (tmp_path / "labels.csv").write_text(labels)
    with pytest.raises(ConfigError, match=named):
        tried("is it so?", "--on", recordings, "--labels", tmp_path / "labels.csv", "--report", tmp_path / "r.html")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["labels.csv"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("is it so?",), "expected --on"),
        (("is it so?", "--on", "{empty}"), "holds no recording"),
        (("is it so?", "--on", "{empty}/none.mp4"), "neither a file nor a folder"),
        (("x" * 10_000, "--on", "{recordings}"), "10000 characters"),
        (("is it so?", "--on", "{recordings}", "--count", "many"), "--count is 'many'"),
        (("is it so?", "--on", "{recordings}", "--choice", "red"), "two values"),
        (("is it so?", "--on", "{recordings}", "--report", "{empty}/none/r.html"), "no folder"),
        (("is it so?", "--on", "{recordings}", "--kept", "1h"), "expected --on"),
    ],
)
def test_what_cannot_be_tried_is_refused_by_name(recordings, tmp_path, arguments, named):
    with pytest.raises(ConfigError, match=named):
        tried(*(one.format(empty=tmp_path, recordings=recordings) for one in arguments))
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_is_cut_off_is_tried_as_far_as_it_goes_or_named(recordings, tmp_path):
    whole = (recordings / "gate.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResadaptError, match="cut"):
        tried("is it so?", "--on", tmp_path)
    (tmp_path / "gate.mp4").write_bytes(whole)
    found = tried("is it so?", "--on", tmp_path)
    assert list(found["ended_early"]) == ["cut.mp4"]
    assert 20 <= found["seconds"] <= 25


def test_events_agree_with_labels_by_overlap():
    labels = {"a": [OpenSpan(10, 20), OpenSpan(40, 50)], "b": []}
    events = {"a": [OpenSpan(12, 15, 13), OpenSpan(16, 19, 17), OpenSpan(30, 32, 31)], "b": [OpenSpan(1, 2, 2)]}
    found = agree(events, labels)
    assert (found.precision, found.recall, found.delay_p50_s) == (0.5, 0.5, 3.0)
    assert set(found.intervals) == {"precision", "recall", "f1"}
    assert all(low <= 0.5 <= high for low, high in found.intervals.values())
    nothing = agree({}, labels)
    assert (nothing.precision, nothing.recall, nothing.f1) == (None, 0.0, None)
