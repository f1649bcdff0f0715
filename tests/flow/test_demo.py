"""`resadapt demo`, and the shipped MLLM, through the command."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from samples.yard.questions.grammar import watch_intervals, watch_questions
from samples.yard.questions.matching import CLEAR_AT, CONFIRM, OPEN_AT, match
from samples.yard.world.codec import write_video
from samples.yard.world.facts import FrameFacts
from samples.yard.world.scene import Scene
from samples.yard.world.segments import sampled_times_s
from tests.checkpoints import untrained_yard
from tests.engines import engine

pytestmark = pytest.mark.timeout(300)  # processes start slowly on busy cores

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
SCHEMA = json.loads((ROOT / "pipeline" / "sinks" / "event.schema.json").read_text())
SUMMARY = {"f1", "precision", "recall", "onset_delay_p50_s", "tokens_per_s", "realtime_factor", "mllm_share"}


def resadapt(*arguments, cwd):
    return subprocess.run(  # noqa: PLW1510 - the exit code is what is tested
        [*COMMAND, *map(str, arguments)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=110
    )


def test_with_json_the_events_come_first_and_the_summary_last(tmp_path):
    arguments = ["--seconds", 4, "--mllm", "null", "--engine", engine(), "--budget", 0.5, "--json"]
    done = resadapt("demo", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        jsonschema.validate(event, SCHEMA)
    kinds = [event["type"].removeprefix("io.github.resadapt_stream.") for event in events]
    assert kinds.count("stream.attached") == kinds.count("stream.ended") == 2
    assert [event["data"]["allocator"] for event in events if event["type"].endswith("attached")] == ["learned"] * 2
    assert len({event["subject"] for event in events if event.get("subject")}) == 6
    assert set(last) == {"summary"}
    assert set(last["summary"]) == SUMMARY
    assert 0 < last["summary"]["realtime_factor"] <= 1.1
    ended = [event["data"]["counts"] for event in events if event["type"].endswith("stream.ended")]
    rate = 0.5 * 112
    assert all(0 < counts["spent"] <= rate * 4 + 10 * rate for counts in ended)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_it_with_the_table_so_far(tmp_path):
    with subprocess.Popen(
        [*COMMAND, "demo", "--seconds", "20", "--mllm", "null"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        shown = ""
        while "watch.opened" not in shown:
            shown += process.stdout.readline()
            assert process.poll() is None, shown
        process.send_signal(signal.SIGINT)
        table, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "drained" in table
    assert "Traceback" not in said
    assert "missed" in table
    assert "Your own camera next" in table
    report = tmp_path / "resadapt-demo.html"
    assert report.name in table
    assert "<svg" in report.read_text()
    assert "<th>missed</th>" in report.read_text(), "the events stand against the truth"
    assert "<th>precision</th>" not in report.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--seconds", "3"], "expected 4 to 600"), (["--allocator", "best", "--mllm", "null"], "fixed, motion")],
)
def test_a_demo_that_cannot_be_is_refused_in_one_line(tmp_path, arguments, said):
    done = resadapt("demo", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_watch_that_the_mllm_never_understands_is_named_once_and_opens_nothing(tmp_path):
    scene = "synthetic:?seconds=25&width=160&height=96&fps=4"
    question = "is there a car in view?"
    done = resadapt("run", scene, "--watch", question, "--mllm", f"transformers:{untrained_yard()}", "--json",
                    cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    warnings = [json.loads(line) for line in done.stderr.splitlines() if "watch_not_understood" in line]
    assert [warning["question"] for warning in warnings] == [question]
    assert ".watch." not in done.stdout


# Once somebody in a vest walks by and shows a bare head, once the barrier rises, once a truck stands at the dock, and
# once a plate can be read.
SEED, SECONDS = 800001, 32.0
MEANT = ("no-helmet", "vest", "barrier-up", "dock-occupied", "any-plate")
STRANGE = "is the elephant dancing?"


def test_the_mllm_that_comes_along_sees_what_happens_in_its_yard(tmp_path):
    """A film of a yard through the whole product: H.264, decoder, loop, MLLM, judge, store, sink. No MLLM is named."""
    scene = Scene(SEED, SECONDS)
    write_video(tmp_path / "yard.mp4", scene)
    facts: list[FrameFacts] = [scene.look(time_s).facts for time_s in sampled_times_s(SECONDS, 2.0)]
    watches = [watch for watch in watch_questions() if watch.slug in MEANT]
    for watch in watches:
        (interval,) = watch_intervals(facts, watch)
        assert 1 < interval.start_s < interval.end_s < SECONDS - 1, "it does not come and go; choose another seed"
    asked = {watch.slug: watch.text for watch in watches} | {"strange": STRANGE}
    rules = {"open_at": OPEN_AT, "clear_at": CLEAR_AT, "confirm": list(CONFIRM)}
    questions = {slug: {"question": text, **rules} for slug, text in asked.items()}
    site = {"defaults": {"allocator": "fixed"}, "watches": questions}
    (tmp_path / "site.yaml").write_text(json.dumps(site))
    done = resadapt("run", "yard.mp4", "-c", "site.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    opened = [event for event in map(json.loads, done.stdout.splitlines()) if event["type"].endswith("watch.opened")]
    for watch in watches:
        onsets_s = [event["data"]["onset_s"] for event in opened if event["subject"] == watch.slug]
        score = match(watch, facts, onsets_s)
        assert (score.found, score.missed, score.false) == (1, 0, 0), (watch.slug, onsets_s)
    assert '"subject":"strange"' not in done.stdout.replace(" ", ""), "what it does not understand opened"
