"""`resadapt-allocator train` from end to end, on small settings: real videos, real MLLMs, a real server."""

import json
import os
import re
import sys
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import torch

from allocator_engine.model.checkpoint import load
from pipeline.lab.cli.main import main
from pipeline.lab.training import site as labelled
from pipeline.lab.training import site_of
from tests.checkpoints import tiny, untrained_yard
from tests.clips import flip_bits, sound_only, steady, truncate, write
from tests.mllm_server import MODEL, MLLMServer, Turn, serving
from tests.pretrained import tiny_bert, tiny_smol

WATCHES = """
open: {question: "is the gate open?", streams: [gate]}
bar: {question: "is there a white bar on the left?", open_at: 0.8}
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in this process; its exit code and what it said to people."""
    (tmp_path / "watches.yaml").write_text(WATCHES)
    threads = torch.get_num_threads()

    def run(*arguments, out="out", work="work"):
        folders = ("--work", tmp_path / work, "--out", tmp_path / out)
        monkeypatch.setattr(sys, "argv", ["resadapt-allocator", "train", *map(str, (*arguments, *folders))])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, " ".join(capsys.readouterr().err.split())

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def footage(tmp_path):
    """A folder with one recording of six seconds."""
    folder = tmp_path / "recordings"
    (folder / "gate").mkdir(parents=True)
    write(folder / "gate" / "monday.mp4", steady(6.0, fps=10), size=(96, 160))
    return folder


def small(recipe: str, steps: int = 2) -> tuple[object, ...]:
    return "--recipe", recipe, "--steps", steps, "--prompts", 1, "--group", 2


def site(footage: Path, mllm: str, steps: int = 2) -> tuple[object, ...]:
    watches = footage.parent / "watches.yaml"
    return (*small("site", steps), "--recordings", footage, "--watches", watches, "--mllm", mllm)


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "capo.jsonl").read_text().splitlines()]


def test_the_yard_trains_writes_what_it_learned_and_knows_when_it_is_done(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.lab.yard.YARD", untrained_yard())
    code, said = run(*small("yard"), "--ablation", "without_memory")
    assert code == 0, said
    records = logged(tmp_path / "work")
    assert [record["phase"] for record in records] == ["grounding", "capo"]
    assert records[1]["reward_kind"] == "dense"
    assert 0 <= records[1]["reward"] <= 1
    assert records[1]["tokens"] > 0
    trained = load(tmp_path / "out" / "allocator.safetensors")
    assert not trained.network.shape.remembers
    assert trained.notes["recipe"] == "yard without_memory"
    assert {"world", "grammar", "truth", "mllm", "steps", "seed"} <= set(trained.notes)
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"allocator\.safetensors: loss [\d.]+ transitions [\d.]+ reward", said)
    before = (tmp_path / "work" / "capo.jsonl").read_text()
    assert run(*small("yard"), "--ablation", "without_memory", out="again")[0] == 0
    assert (tmp_path / "work" / "capo.jsonl").read_text() == before
    code, said = run(*small("yard"))
    assert (code, "is of a training that differs from this one" in said) == (3, True)


def test_a_site_learns_without_labels_and_asks_about_native_pictures_once(run, tmp_path, footage):
    (footage / "broken.mp4").write_bytes(b"no video")
    truncate(write(footage / "cut.mp4", steady(2.0)), 0.5)
    sound_only(footage / "sound.mp4")
    code, said = run(*site(footage, f"transformers:{tiny()}", steps=3))
    assert code == 0, said
    for name in ("broken.mp4", "cut.mp4", "sound.mp4"):
        assert f"skipped {footage / name}" in said
    assert "3 recordings skipped; 1 clips of the others" in said
    assert "answers at random" in said
    native = (tmp_path / "work" / "native.jsonl").read_text()
    assert len(native.splitlines()) in (6, 12), "an answer per second of the clip and watch"
    records = logged(tmp_path / "work")
    assert [record["phase"] for record in records] == ["grounding", "capo", "capo"]
    assert [record["reward_kind"] for record in records[1:]] == ["dense", "dense"]
    assert records[0]["transitions"] > 0, "what the MLLM itself says of each second is learned to be foreseen"
    assert load(tmp_path / "out" / "allocator.safetensors").notes["mllm_name"] == f"transformers:{tiny()}"
    (tmp_path / "work" / "capo.state").unlink()
    assert run(*site(footage, f"transformers:{tiny()}", steps=3))[0] == 0
    assert (tmp_path / "work" / "native.jsonl").read_text() == native


def test_a_site_learns_from_what_people_say_where_they_say_it(run, tmp_path, footage):
    """Labels are the truth: where they say all, the MLLM is not asked about native pictures, and the training, whose
    state names them, is another one with other labels."""
    labels = tmp_path / "labels.csv"
    labels.write_text("watch,file,start_s,end_s\nopen,gate/monday.mp4,2,4\nbar,monday.mp4,0,3\n")
    command = (*site(footage, f"transformers:{tiny()}"), "--labels", labels)
    code, said = run(*command)
    assert code == 0, said
    assert "labels: 0.2 minutes looked at, watch by watch; 2 times at which one should be open" in said
    assert not (tmp_path / "work" / "native.jsonl").exists()
    records = logged(tmp_path / "work")
    assert records[0]["transitions"] > 0, "what the labels say changes is learned to be foreseen"
    assert "labels" in load(tmp_path / "out" / "allocator.safetensors").notes
    labels.write_text("watch,file,start_s,end_s\nopen,gate/monday.mp4,2,5\n")
    code, said = run(*command)
    assert (code, "is of a training that differs from this one" in said) == (3, True)
    labels.write_text(KEPT.format("2020-01-01T00:00:00Z", "2020-01-01T00:00:02Z"))
    code, said = run(*command)
    assert (code, "falls on a recording" in said) == (2, True), said
    code, said = run(*small("yard"), "--labels", labels)
    assert (code, "--recipe yard takes no --labels" in said) == (2, True)


def test_labels_that_a_service_kept_are_the_truth_of_recordings_of_their_time(tmp_path, footage):
    began = datetime(2026, 11, 29, 12, tzinfo=UTC)
    ended = (began + timedelta(seconds=5.9)).timestamp()
    for file in footage.rglob("*.mp4"):
        os.utime(file, (ended, ended))
    (tmp_path / "watches.yaml").write_text(WATCHES)
    labels = tmp_path / "labels.csv"
    config = site_of(tmp_path / "watches.yaml", "null", None)
    at = [(began + timedelta(seconds=second)).isoformat() for second in range(7)]

    def truth(*rows: tuple[str, int, int]) -> list[int]:
        lines = [KEPT.splitlines()[0], *(f"gate,open,{kind},{at[start]},{at[end]}" for kind, start, end in rows)]
        labels.write_text("\n".join(lines))
        with labelled(footage, config, tmp_path / "work", 1, labels) as material:
            episodes = [material.outside.clips.episode(step, 0) for step in range(8)]
        rows_of = [one.holds[one.standing.index(GATE_OPEN)].tolist() for one in episodes if GATE_OPEN in one.standing]
        assert len(set(map(tuple, rows_of))) == 1
        return rows_of[0]

    assert truth(("false", 1, 5), ("missed", 2, 4)) == [1, 0, 1, 1, 0, 1], "where nobody looked, as the MLLM says"
    assert truth(("false", 0, 6), ("missed", 2, 3)) == [0, 0, 1, 0, 0, 0]
    assert truth(("fixture", 1, 5)) == [1, -1, -1, -1, -1, 1]


GATE_OPEN = "is the gate open?"
KEPT = "stream,watch,kind,start,end\ngate,open,missed,{},{}\n"


def dies_after(requests: int, server: MLLMServer) -> None:
    """Let the server go away, for good, instead of answering this request."""
    left = iter(range(requests))

    def meanwhile() -> None:
        if next(left, None) is None:
            threading.Thread(target=server.shutdown).start()
            server.socket.close()
            server.hang_up()

    server.habits.meanwhile = meanwhile


def test_an_endpoint_that_dies_ends_the_training_which_goes_on_to_the_same_end(run, tmp_path, footage):
    with serving() as server:
        port = server.server_port
        command = site(footage, f"openai:{server.url}#{MODEL}", steps=4)
        assert run(*command, work="whole")[0] == 0
        asked = len(server.asked)
        dies_after(asked * 2 // 3, server)
        code, said = run(*command)
    assert code == 3
    assert "127.0.0.1" in said
    assert "the same command goes on from the state in" in said
    done = logged(tmp_path / "work")
    assert 0 < len(done) < 4
    with serving(port) as server:
        assert run(*command)[0] == 0
        assert len(server.asked) < asked
    assert logged(tmp_path / "work") == logged(tmp_path / "whole")


def test_a_busy_endpoint_is_asked_again(run, footage):
    with serving() as server:

        def meanwhile() -> None:
            if len(server.asked) == 20:
                server.habits.meanwhile = lambda: None
                server.habits.next.extend([Turn(429, headers={"Retry-After": "0"})] * 6)

        server.habits.meanwhile = meanwhile
        code, said = run(*site(footage, f"openai:{server.url}#{MODEL}"))
        assert code == 0, said
        assert not server.habits.next


def rows(folder: Path, *records: dict) -> Path:
    (folder / "set.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / "set.jsonl"


OPEN = {"video": "clip", "question": "Is the gate open?", "answer": "no"}
COLOUR = {"video": "clip", "question": "Which colour is the bar?", "options": ["white", "red"], "answer": "white"}


def test_a_video_qa_file_trains_unchanged_with_any_encoder(run, tmp_path):
    write(tmp_path / "clip.mp4", steady(4.0, fps=10), size=(96, 160))
    data = rows(tmp_path, OPEN, COLOUR)
    encoder = tiny_bert(tmp_path / "bert")
    mllm = f"transformers:{tiny()}"
    code, said = run(*small("qa"), "--data", data, "--mllm", mllm, "--encoder", encoder)
    assert code == 0, said
    records = logged(tmp_path / "work")
    assert sorted(record["reward"] in (0, 1) for record in records) == [False, True]
    assert {record["reward_kind"] for record in records} == {"mixed"}
    trained = load(tmp_path / "out" / "allocator.safetensors")
    assert trained.encoder.about.startswith(str(encoder))


def test_the_configuration_paper_trains_by_the_same_command_and_is_compared_on_whole_clips(
    run, tmp_path, monkeypatch, capsys
):
    from allocator_engine.model import paper

    monkeypatch.setattr(paper, "PaperShape", partial(paper.PaperShape, width=32, heads=2, depth=1))
    write(tmp_path / "clip.mp4", steady(2.0, fps=10), size=(96, 160))
    smol = tiny_smol(tmp_path / "smol")
    code, said = run(
        *small("qa"), "--data", rows(tmp_path, OPEN), "--mllm", "tiny", "--config", "paper", "--features", smol
    )
    assert code == 0, said
    head, notes = paper.load(tmp_path / "out" / "allocator.safetensors")
    assert head.shape.inputs == 32
    assert notes["features"] == str(smol)
    evaluate = ("resadapt-allocator", "evaluate", "--tasks", str(tmp_path / "set.jsonl"), "--mllm", "tiny", "--json")
    trained = f"paper:{tmp_path / 'out' / 'allocator.safetensors'}"
    monkeypatch.setattr(sys, "argv", [*evaluate, "--budgets", "0.5", "--allocators", f"fixed,{trained}"])
    with pytest.raises(SystemExit) as ended:
        main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended.value.code in (0, None)
    assert [point["allocator"] for point in found["points"]] == ["fixed", "paper"]
    assert all(point["qa"]["n"] == 1 for point in found["points"])
    assert 0 < found["points"][1]["realised"] <= 0.5 * 1.02


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ({"video": "gone", "question": "Q", "answer": "yes"}, "line 2 of .*gone is not there"),
        ({"video": "clip", "question": "Q", "answer": "?"}, "line 2 of .*cannot be graded"),
        ({"video": "noise", "question": "Q", "answer": "yes"}, "line 2 of .*cannot be decoded"),
        ({"video": "sound", "question": "Q", "answer": "yes"}, "line 2 of .*cannot be decoded"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_by_its_line(run, tmp_path, record, named):
    write(tmp_path / "clip.mp4", steady(1.0, fps=10), size=(96, 160))
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 16)
    sound_only(tmp_path / "sound.mp4")
    code, said = run(*small("qa"), "--data", rows(tmp_path, OPEN, record), "--mllm", "null")
    assert code == 2
    assert re.search(named, said), said


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--recipe", "best"), "expected one of yard, site, qa"),
        (("--recipe", "yard", "--ablation", "without_luck"), "without_text, without_memory, plain_cost"),
        (("--recipe", "yard", "--data", "x"), "--recipe yard takes no --data"),
        (("--recipe", "site", "--watches", "watches.yaml"), "--recipe site needs --recordings"),
        (("--recipe", "qa", "--data", "none.jsonl", "--mllm", "null"), "there is no data set none.jsonl"),
        (("--recipe", "yard", "--config", "paper"), "needs --features"),
        (("--recipe", "yard", "--config", "large"), "expected one of stream, paper"),
        (("--recipe", "yard", "--device", "tpu"), "the device 'tpu' cannot be used here"),
        (
            ("--recipe", "yard", "--config", "paper", "--features", "x", "--ablation", "without_text"),
            "no without_text, without_memory",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(run, arguments, named):
    code, said = run(*arguments)
    assert code == 2, said
    assert named in said


@pytest.mark.parametrize(
    ("watches", "named"),
    [
        ("{}", "nothing to watch for"),
        ("open: {question: ''}", "question"),
        ('watches: {open: {question: "is it open?", opens_at: 1}}', "opens_at"),
    ],
)
def test_watches_are_checked_as_those_of_a_site(run, tmp_path, footage, watches, named):
    (tmp_path / "watches.yaml").write_text(watches)
    code, said = run(*site(footage, "null"))
    assert code == 2, said
    assert named in said


def test_recordings_of_which_none_can_be_decoded_are_refused(run, footage):
    for file in footage.rglob("*.mp4"):
        flip_bits(truncate(file, 0.4), 40)
    code, said = run(*site(footage, "tiny"))
    assert code == 2
    assert "none of 1 recordings" in said
    assert "monday.mp4" in said
