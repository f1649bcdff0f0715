import json
import math

import numpy as np
import pytest
import torch

from allocator_engine.errors import EngineMissing
from allocator_engine.train.data import QaClips, read_rows
from allocator_engine.train.recipes import ABLATIONS, RECIPES
from allocator_engine.train.regular import RegularRules, likeness, regulariser
from allocator_engine.train.reward import dense, grade, interval, overlap
from allocator_engine.train.rollout import ClipHop


@pytest.mark.parametrize(
    ("form", "truth", "said", "right"),
    [
        ("yes_no", "yes", "Yes, it is.", 1),
        ("yes_no", "no", "yes", 0),
        ("yes_no", "no", "unknown", 0),
        ("choice", "B", "B", 1),
        ("choice", "(b)", "B. a red car", 1),
        ("choice", "B", "The answer is (B)", 1),
        ("choice", "A", "A person walks by", 0),
        ("choice", "B", "either A or B", 0),
        ("number", "3", "There are three.", 1),
        ("number", "3", "30", 0),
        ("number", "2.5", "2,5 metres", 1),
        ("number", "0.125", "0,125 litres", 1),
        ("number", "1200", "It is 1,200 all in all", 1),
        ("number", "1,234,567.5", "1234567.5", 1),
        ("number", "-5", "5", 0),
        ("word", "A7K", "a7k.", 1),
        ("word", "the red car", "Red car", 1),
        ("word", "red", "reddish", 0),
        ("interval", "2.0 to 6.0", "4 to 8 seconds", 1 / 3),
        ("interval", "2.0 to 6.0", "from 2s until 6s", 1),
        ("interval", "90 to 100", "[1:30 - 1:40]", 1),
        ("interval", "2.0 to 6.0", "6 to 2", 1),
        ("interval", "2.0 to 6.0", "never", 0),
        ("interval", "2.0 to 6.0", "3 to 3", 0),
    ],
)
def test_answers_are_graded(form, truth, said, right):
    assert grade(form, truth, said) == pytest.approx(right)


@pytest.mark.parametrize(
    ("form", "truth"), [("number", "many"), ("choice", "maybe B"), ("yes_no", "x"), ("interval", "5"), ("word", "?")]
)
def test_a_truth_that_cannot_be_graded_is_refused_by_name(form, truth):
    with pytest.raises(ValueError, match="cannot be graded"):
        grade(form, truth, "yes")


def test_overlap_and_dense_by_hand():
    assert overlap((0, 4), (2, 6)) == pytest.approx(2 / 6)
    assert overlap((0, 1), (2, 3)) == 0
    assert overlap((1, 1), (1, 1)) == 0
    assert dense([math.log(0.5), math.log(0.125)]) == pytest.approx(0.25)
    assert interval("no numbers here") is None


def hop(index: int) -> ClipHop:
    return ClipHop(float(index), index + 1.0, (index + 0.5,), ())


def write(folder, *records) -> None:
    (folder / "clip.mp4").write_bytes(b"")
    (folder / "set.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_rows_of_public_sets_are_read(tmp_path):
    write(
        tmp_path,
        {"videoID": "clip", "question": "Which?", "options": ["A. red", "B. blue"], "answer": "B"},
        {"video": "clip.mp4", "query": "a person opens a door", "timestamp": [[2.5, 7.0]]},
        {"video_id": "clip", "question": "What?", "a0": "dog", "a1": "cat", "answer": 1, "start": 3, "end": 4},
        {"video": "clip", "question": "Is it open?", "answer": "yes"},
        {"video": "clip", "question": "How many?", "answer": 3},
    )
    rows = read_rows(tmp_path / "set.jsonl")
    assert [(row.form, row.truth) for row in rows] == [
        ("choice", "B"),
        ("interval", "2.5 to 7.0"),
        ("choice", "B"),
        ("yes_no", "yes"),
        ("number", "3"),
    ]
    assert rows[0].question == "Which?\nA. red\nB. blue"
    assert rows[1].question == 'When does this happen: "a person opens a door"? Answer with the seconds: START to END.'
    assert rows[2].evidence_s == (3.0, 4.0)


@pytest.mark.parametrize(
    ("record", "error", "named"),
    [
        ({"video": "gone", "question": "?", "answer": "yes"}, EngineMissing, r"line 1 .*gone is not there"),
        ({"question": "?", "answer": "yes"}, ValueError, "line 1 .*no video"),
        ({"video": "clip", "question": "Q", "answer": "C", "options": ["x", "y"]}, ValueError, "none of its 2 options"),
        ({"video": "clip", "question": "Q", "answer": "?"}, ValueError, "cannot be graded"),
        ({"video": "clip", "question": "Q"}, ValueError, "neither an answer nor an interval"),
        ({"video": "clip", "question": "Q", "timestamp": "soon"}, ValueError, "two numbers of seconds"),
        ({"video": "clip", "question": "Q", "answer": "a", "form": "essay"}, ValueError, "form is 'essay'"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_by_name(tmp_path, record, error, named):
    write(tmp_path, record)
    with pytest.raises(error, match=named):
        read_rows(tmp_path / "set.jsonl")


def test_the_line_that_is_named_is_that_of_the_file_blank_ones_counted(tmp_path):
    write(tmp_path, {"video": "clip", "question": "Q", "answer": "yes"})
    with (tmp_path / "set.jsonl").open("a") as file:
        file.write('\n\n{"video": "clip", "question": "Q", "answer": "?"}\n')
    with pytest.raises(ValueError, match=r"line 4 of .*set\.jsonl: the answer '\?' cannot be graded"):
        read_rows(tmp_path / "set.jsonl")


def test_a_parquet_file_reads_as_its_rows_would_in_json(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    records = [{"video": "clip", "question": "Which?", "options": ["red", "blue"], "answer": "blue"}]
    write(tmp_path, *records)
    parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "set.parquet")
    assert read_rows(tmp_path / "set.parquet") == read_rows(tmp_path / "set.jsonl")


@pytest.mark.parametrize(
    ("answer", "form"),
    [(True, "yes_no"), ("No", "yes_no"), (-5, "number"), ("1,200", "number"), ("2.5", "number"), ("7-3", "word")],
)
def test_what_an_answer_looks_like_says_how_it_is_graded(tmp_path, answer, form):
    write(tmp_path, {"video": "clip", "question": "Q", "answer": answer})
    assert read_rows(tmp_path / "set.jsonl")[0].form == form


def test_a_missing_or_broken_file_is_refused_by_name(tmp_path):
    with pytest.raises(EngineMissing, match="there is no data set"):
        read_rows(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "caf\xe9?"}\n')
    with pytest.raises(ValueError, match=r"latin\.jsonl is not text in UTF-8"):
        read_rows(tmp_path / "latin.jsonl")
    with pytest.raises(EngineMissing, match="there is no data set"):
        read_rows(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match=r"line 1 .* not JSON"):
        read_rows(tmp_path / "bad.jsonl")


def test_a_damaged_parquet_file_is_refused_by_name(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"bad\.parquet cannot be read as parquet"):
        read_rows(tmp_path / "bad.parquet")


def test_rows_become_episodes_each_once_per_epoch(tmp_path):
    write(tmp_path, *({"video": "clip", "question": f"q{i}", "answer": "yes", "start": 1, "end": 2} for i in range(4)))
    clips = QaClips(read_rows(tmp_path / "set.jsonl"), lambda video: [hop(i) for i in range(5)], 2)
    epoch = [clips.episode(step, index) for step in range(2) for index in range(2)]
    assert sorted(one.standing[0] for one in epoch) == ["q0", "q1", "q2", "q3"]
    assert (epoch[0].probes[0].since_hop, epoch[0].probes[0].asked_hop) == (1, 4)
    assert clips.episode(0, 1) == clips.episode(0, 1)


def test_a_repeated_frame_is_asked_to_be_smaller_and_a_changed_one_is_not():
    rules = RegularRules(similarity=1.0, refresh=0.0, concentration=0.0)
    still = np.full((3, 128, 224, 3), 90, np.uint8)
    still[2, :48, :32] = 250
    alike = likeness(still, rules)
    assert alike.tolist() == pytest.approx([0, 0.95, 0], abs=0.01)
    mean = torch.tensor([[0.5, 0.5, 0.5]], requires_grad=True)
    loss, _ = regulariser(mean, torch.ones(1, 3), torch.from_numpy(alike), torch.tensor([0.0, 0.5, 1.0]), rules)
    loss.backward()
    assert mean.grad is not None
    assert mean.grad[0, 1] > 0 > mean.grad[0, 0]
    assert abs(float(mean.grad[0, 2])) < 1e-3


def test_what_stands_still_must_be_shown_now_and_then():
    rules = RegularRules(similarity=0.0, refresh=1.0, concentration=0.0, refresh_s=2.0, refresh_scale=0.3)
    pts_s = torch.arange(0, 6, 0.5)
    dull, fresh = torch.full((1, 12), 0.05), torch.full((1, 12), 0.05)
    fresh[0, ::3] = 0.4
    none = torch.zeros(12)
    assert float(regulariser(dull, torch.ones(1, 12), none, pts_s, rules)[0]) == pytest.approx(math.log(6), rel=1e-3)
    assert float(regulariser(fresh, torch.ones(1, 12), none, pts_s, rules)[0]) == 0


def test_every_ablation_changes_one_thing_and_says_so():
    for recipe in (make() for make in RECIPES.values()):
        for name, change in ABLATIONS.items():
            assert change(recipe) != recipe
            assert change(recipe).config.name == f"{recipe.config.name} {name}"
