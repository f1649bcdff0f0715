import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from tests.checkpoints import untrained_yard
from tests.engines import engine
from tests.services import require

pytestmark = pytest.mark.timeout(300)  # processes start slowly on busy cores

COMMAND = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]
SCENE = "synthetic:?seconds=25&width=160&height=96&fps=4"
ROOT = Path(__file__).parents[2]


def resadapt(*arguments, cwd, **more):
    return subprocess.run(  # noqa: PLW1510 - the exit code is what is tested
        [*COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=100,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, **more,
    )  # fmt: skip


def test_with_json_every_line_of_stdout_is_an_event_and_nothing_else(tmp_path):
    done = resadapt("run", SCENE, "--watch", "is there a car in view?", "--mllm", "null", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    schema = json.loads((files("pipeline.sinks") / "event.schema.json").read_text())
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        jsonschema.validate(event, schema)
    assert [event["type"].removeprefix("io.github.resadapt_stream.") for event in events] == [
        "stream.attached", "mllm.meaningless", "watch.opened", "watch.cleared", "watch.opened", "stream.ended",
    ]  # fmt: skip
    assert {event.get("subject") for event in events} == {None, "is-there-a-car-in-view"}
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_is_named_allocates(tmp_path):
    arguments = ["--watch", "is there a car in view?", "--mllm", "null", "--engine", engine(), "--json"]
    done = resadapt("run", SCENE, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, *_, last = [json.loads(line)["data"] for line in done.stdout.splitlines()]
    assert first["allocator"] == "learned"
    assert (last["counts"]["hops"], last["counts"]["fallbacks"]) == (25, 0)


def test_a_person_gets_events_and_a_summary_on_stdout_and_a_journal(tmp_path):
    done = resadapt("run", SCENE, "--watch", "フォークリフトの近くに人がいますか？", "--mllm", "null", cwd=tmp_path)
    assert done.returncode == 0
    assert "watch.opened" in done.stdout
    assert "フォークリフト" in done.stdout
    assert "\x1b" not in done.stdout, "a pipe gets no colours and no live table"
    table = done.stdout[done.stdout.index("asked") :].splitlines()
    assert table[1].split()[-2:] == ["2", "1"], "opened and cleared"
    assert "of the 14,000 that the budget allowed" in table[2]
    assert len((tmp_path / "resadapt-events.jsonl").read_text().splitlines()) == 6


def test_what_is_read_by_people_holds_no_json(tmp_path):
    untrained = f"transformers:{untrained_yard()}"
    done = resadapt("run", SCENE, "--watch", "is there a car in view?", "--mllm", untrained, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "watch_not_understood" in done.stderr
    assert "{" not in done.stdout + done.stderr
    assert "was answered unknown every time" in done.stdout


def test_the_yards_mllm_answers_unnamed_about_the_yard_only(tmp_path):
    watch = ("--watch", "is there a car in view?")
    for command in (["run", SCENE, *watch], ["serve", "-c", "site.yaml"]):
        (tmp_path / "site.yaml").write_text(f"streams: {{gate: {{url: '{SCENE}'}}}}\nmetrics: {{port: 0}}\n")
        done = resadapt(*command, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "no MLLM is named" in done.stderr
        assert "--mllm yard" in done.stderr
    assert not (tmp_path / "resadapt-events.jsonl").exists()


def test_rules_given_on_the_command_line_hold_for_every_watch(tmp_path):
    rules = ["--open-at", "0.6", "--clear-at", "0.5", "--confirm", "2/3"]
    ask = ["run", SCENE, "--watch", "a?", "--watch", "b?", "--mllm", "null", "--json"]
    ruled, plain = (resadapt(*ask, *more, cwd=tmp_path) for more in (rules, []))
    assert ruled.returncode == plain.returncode == 0
    assert cleared_in(plain.stdout) == [10.0, 10.0]
    assert cleared_in(ruled.stdout) == [11.0, 11.0], "the second of three answers confirms"


def cleared_in(lines):
    """Start of the hop that cleared each watch, in stream seconds."""
    events = [json.loads(line) for line in lines.splitlines()]
    return [event["data"]["hop_start_s"] for event in events if event["type"].endswith("watch.cleared")]


def test_a_reader_who_leaves_ends_a_run_without_a_traceback(tmp_path):
    scene = "synthetic:?seconds=inf&width=160&height=96&fps=4"
    for more in ([], ["--json"]):
        arguments = [*COMMAND, "run", scene, "--watch", "a?", "--mllm", "null", "--realtime", *more]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
        ) as process:
            assert process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read()
            assert process.wait(30) == 141, said  # as a shell tells of SIGPIPE
        assert "Traceback" not in said
        assert "BrokenPipe" not in said


@pytest.mark.parametrize("command", [[], *([name] for name in ("run", "serve", "probe", "check", "demo")), ["bench"]])
def test_each_command_has_a_short_help(command, tmp_path):
    done = resadapt(*command, "-h", cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage" in done.stdout
    if command not in ([], ["bench"]):
        assert f"Example: resadapt {command[0]}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "nowhere.mp4", "--watch", "x", "--mllm", "null"], 2, "nowhere.mp4 is not a file"),
        (["run", SCENE, "--mllm", "null"], 2, "nothing to watch for"),
        (["run", SCENE, "--watch", "", "--mllm", "null"], 2, "question"),
        (["run", SCENE, "--watch", "x" * 10_000, "--mllm", "null"], 2, "2000"),
        (
            ["run", SCENE, "--watch", "x", "--mllm", "gpt"],
            2,
            "openai:URL#MODEL, detector:FOLDER, tiny or null",
        ),
        (["run", SCENE, "--watch", "x", "--mllm", "transformers:/nowhere"], 2, "/nowhere does not exist"),
        (["run", SCENE, "--watch", "x", "--mllm", "null", "--allocator", "best"], 2, "fixed, motion, learned"),
        (
            ["run", SCENE, "--watch", "x", "--mllm", "null", "--allocator", "learned", "--engine", "nowhere"],
            2,
            "there is no engine nowhere",
        ),
        (["run", SCENE, "--watch", "x", "--mllm", "null", "--sink", "ftp://h/x"], 2, "kafka://host:port/topic"),
        (["run", SCENE, "--watch", "x", "--mllm", "null", "--rate", "-1"], 2, "rate_tokens_per_s"),
        (["run", SCENE, "--watch", "x", "--mllm", "null", "-c", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["run", "rtsp://u:s3cret@127.0.0.1:1/x", "--watch", "x", "--mllm", "null"], 3, "connection refused"),
        (["probe", "rtsp://u:s3cret@127.0.0.1:1/x"], 3, "connection refused"),
        (["probe", "nowhere.mp4"], 2, "nowhere.mp4"),
        (["run", SCENE, "--watch", "x", "--mllm", "null", "--confirm", "2of3"], 2, "expected K/N such as 2/3"),
        (["run", SCENE, "--watch", "x", "--mllm", "null", "--confirm", "3/2"], 2, "k of at most n"),
        (["run", SCENE, "--watch", "x", "--mllm", "null", "--open-at", "1.5"], 2, "open_at"),
        (["run", "nowhere.mp4", "--watch", "x"], 2, "nowhere.mp4 is not a file"),
        (["serve", "-c", "nowhere.yaml", "--log-level", "INFO"], 2, "nowhere.yaml"),
        (["probe", "nowhere.mp4", "--seconds", "-3"], 2, "--seconds is -3; expected more than 0"),
        (["run", SCENE, "--watch", "x", "--mllm", "null", "--log-level", "loud"], 2, "debug, info, warning, error"),
        (["serve", "-c", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["run", "u:s3cret@127.0.0.1/x", "--watch", "x", "--mllm", "null"], 2, "***@127.0.0.1/x lacks its scheme"),
        (["probe", "rtsp://u:[s3cret]@127.0.0.1:1/x"], 3, "cannot be opened"),
        (["probe", "rtsp://u:my", "s3cret@127.0.0.1/x"], 2, "expected one stream, and got 1 more"),
        (["run", SCENE, "rtsp://u:s3cret@h/1", "--watch", "x"], 2, "expected one stream, and got 1 more"),
        (["run", SCENE, "--watch", "x", "--mllm", "null", "--sink", "h.example/s3cret"], 2, "no scheme that is known"),
        (
            ["run", SCENE, "--watch", "x", "--mllm", "openai:http://u:a#s3cret@127.0.0.1:9/v1#Qwen3-VL-2B"],
            3,
            "cannot be reached",
        ),
        (["run", SCENE, "--watch", "x", "--mllm", "http://u:s3cret@127.0.0.1:9/v1"], 2, "mllm.use is 'http://***@"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_with_its_exit_code(tmp_path, arguments, code, said):
    done = resadapt(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


def test_the_doctor_says_one_line_for_each_part(tmp_path):
    (tmp_path / "site.yaml").write_text(
        f"streams:\n  gate: {{url: '{SCENE}'}}\n  gone: {{url: 'rtsp://u:s3cret@127.0.0.1:1/x'}}\n"
        "mllm: 'null'\nsinks: {journal: 'jsonl:events.jsonl', away: 'kafka://127.0.0.1:1/events'}\n"
    )
    done = resadapt("check", "-c", "site.yaml", cwd=tmp_path)
    said = [(mark, part.strip()) for mark, part in (line.split(maxsplit=1) for line in done.stdout.splitlines())]
    assert done.returncode == 3, done.stderr
    for expected, (mark, part) in zip(
        [("ok", "stream gate"), ("FAIL", "stream gone"), ("ok", "mllm"), ("ok", "allocator"), ("ok", "sink journal"),
         ("FAIL", "sink away"), ("ok", "store"), ("ok", "metrics")], said, strict=True,
    ):  # fmt: skip
        assert mark == expected[0]
        assert part.startswith(expected[1])
    assert "s3cret" not in done.stdout


def journal_of(folder):
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def size(path):
    return path.stat().st_size if path.exists() else 0


def watch_events(events):
    """By id, in order of first arrival: what was decided, without what differs between two stores."""
    found = {event["id"]: (event["type"], event["data"]["n"], event["data"]["hop_start_s"]) for event in events
             if ".watch." in event["type"]}  # fmt: skip
    return list(found.values())


def test_killed_at_any_moment_a_run_repeats_nothing_new_and_misses_nothing(tmp_path):
    """kill -9 again and again; in the end the journal has just the events of a run that nobody disturbed."""
    scene = "synthetic:?seconds=120&width=160&height=96&fps=4"
    command = ["run", scene, "--name", "yard", "--watch", "is there a car?", "--mllm", "null", "--sink"]
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    undisturbed.mkdir()
    disturbed.mkdir()
    assert resadapt(*command, "jsonl:events.jsonl", cwd=undisturbed).returncode == 0

    moments = random.Random(7)
    arguments = [*COMMAND, *command, "jsonl:events.jsonl", "--store", "run.db"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for _ in range(4):
        with subprocess.Popen(arguments, cwd=disturbed, stderr=subprocess.DEVNULL, env=environment) as process:
            before = size(disturbed / "events.jsonl")
            while size(disturbed / "events.jsonl") == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0.0, 0.4))
            process.kill()
    assert resadapt(*arguments[3:], cwd=disturbed).returncode == 0

    expected, got = watch_events(journal_of(undisturbed)), watch_events(journal_of(disturbed))
    assert got == expected
    assert len(expected) == 12


def wait_for(folder, kind, seconds=100.0):
    journal, deadline = folder / "events.jsonl", time.monotonic() + seconds
    while not (journal.exists() and kind in journal.read_text()):
        assert time.monotonic() < deadline, f"no {kind} within {seconds} s"
        time.sleep(0.05)


def test_sigterm_drains_a_service(tmp_path):
    (tmp_path / "site.yaml").write_text(
        "streams: {gate: {url: 'synthetic:?seconds=inf&width=160&height=96&fps=4', realtime: true}}\n"
        "watches: {car: {question: 'is there a car?'}}\n"
        "mllm: 'null'\nsinks: {journal: 'jsonl:events.jsonl'}\nmetrics: {port: 0}\napi: {port: 0}\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*COMMAND, "serve", "-c", "site.yaml"], cwd=tmp_path, env=environment) as process:
        wait_for(tmp_path, "watch.opened")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    kinds = Counter(event["type"].rpartition("stream.")[2] for event in journal_of(tmp_path))
    assert kinds["attached"] == kinds["ended"] == 1
    assert journal_of(tmp_path)[-1]["data"]["reason"] == "drained"


def test_a_site_file_gives_a_run_its_defaults_watches_and_sinks(tmp_path):
    (tmp_path / "site.yaml").write_text(
        "defaults: {sample_fps: 4, allocator: fixed, budget: {rate_tokens_per_s: 20}}\n"
        "streams: {elsewhere: {url: 'rtsp://127.0.0.1:1/x'}}\n"
        "watches: {car: {question: 'is there a car?', streams: [elsewhere]}}\n"
        "mllm: 'null'\nsinks: {journal: 'jsonl:kept.jsonl'}\n"
    )
    done = resadapt("run", SCENE, "-c", "site.yaml", "--burst", "50", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *_, ended = [json.loads(line) for line in done.stdout.splitlines()]
    assert ended["data"]["counts"]["frames"] == 100
    assert ended["data"]["counts"]["spent"] <= 20 * 25 + 50
    assert (tmp_path / "kept.jsonl").read_text() == done.stdout


def test_a_real_clip_is_watched_with_a_real_architecture(tmp_path):
    folder = os.environ.get("TEST_CLIPS")
    require(bool(folder), "TEST_CLIPS names a folder with real camera clips")
    clip = Path(str(folder)) / "car-detection.mp4"
    done = resadapt("run", clip, "--watch", "is there a car in view?", "--mllm", "tiny", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    attached, meaningless, *watched, ended = [json.loads(line) for line in done.stdout.splitlines()]
    assert attached["data"]["mllm"] == {"name": "tiny", "family": "qwen3_vl", "meaningful": False}
    assert meaningless["type"].endswith("mllm.meaningless")
    assert watched, "a random model changes its mind at least once"
    counts = ended["data"]["counts"]
    assert (counts["hops"], counts["frames"], counts["answers"], counts["lost"]) == (31, 61, 31, 0)
    assert 0 < counts["kept"] < counts["frames"]
    assert 0 < counts["spent"] <= 400 * 31 + 4000


def test_sighup_reads_the_site_again(tmp_path):
    site = (
        "streams: {gate: {url: 'synthetic:?seconds=inf&width=160&height=96&fps=4', realtime: true}}\n"
        "mllm: 'null'\nsinks: {journal: 'jsonl:events.jsonl'}\nmetrics: {port: 0}\napi: {port: 0}\n"
    )
    path = tmp_path / "site.yaml"
    path.write_text(site)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*COMMAND, "serve", "-c", "site.yaml"], cwd=tmp_path, env=environment) as process:
        wait_for(tmp_path, "stream.attached")
        path.write_text(site + "watches: {car: {question: 'is there a car?'}}\n")
        process.send_signal(signal.SIGHUP)
        wait_for(tmp_path, "watch.opened")
        path.write_text("streams: [")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert sum(event["type"].endswith("stream.attached") for event in journal_of(tmp_path)) == 1
