"""Labels of people as truth: what is asked, what holds when, what nobody decided, what is refused."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator_engine.evaluate.tasks import Span, match
from pipeline.errors import ConfigError
from pipeline.lab.real_truth import UNKNOWN, changes_s, question_of, read_labelled, settle, spans_of, split_of

HALF = (192, 320)


@pytest.mark.parametrize(
    ("statement", "question", "split"),
    [
        ("a car is in view", "Is a car in view?", "presence"),
        ("a red car is in view", "Is a red car in view?", "colour"),
        ("people are at the gate", "Are people at the gate?", "presence"),
        ("three bottles stand on the table", "Do three bottles stand on the table?", "count"),
        ("one bottle stands on the table", "Does one bottle stand on the table?", "count"),
        ("it rains", "Is it so that it rains?", "presence"),
    ],
)
def test_a_statement_is_asked_as_a_question(statement, question, split):
    assert (question_of(statement), split_of(statement)) == (question, split)


def known(text: str) -> np.ndarray:
    return np.array([{"1": 1, "0": 0, "?": UNKNOWN}[one] for one in text], np.int8)


def test_what_lasts_less_than_a_second_is_not_decided():
    assert settle(known("0000100001111011110000"), 4.0).tolist() == known("0000?00001111?11110000").tolist()


def test_spans_begin_for_certain_only_where_the_change_was_seen():
    assert spans_of(known("1100??11110000"), 2.0) == (Span(0.0, None, 1.0), Span(2.0, 3.0, 5.0))
    assert spans_of(known("000??000"), 1.0) == (Span(3.0, None, 5.0),)
    assert changes_s(known("00??11100"), 1.0) == [4.0, 7.0]


@given(st.lists(st.sampled_from([0, 1, UNKNOWN]), min_size=1, max_size=60), st.floats(1, 10))
def test_spans_cover_all_that_may_hold_and_nothing_that_does_not(values, fps):
    settled = settle(np.array(values, np.int8), fps)
    spans = spans_of(settled, fps)
    for frame, value in enumerate(settled.tolist()):
        covered = any(span.since_s - 1e-9 <= frame / fps < span.until_s - 1e-9 for span in spans)
        assert covered == (value != 0)
    assert all(one.until_s <= other.since_s for one, other in pairwise(spans))


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=5),
    st.lists(st.floats(0, 60), max_size=8),
    st.lists(st.floats(0, 60), max_size=4),
)
def test_blocks_of_time_share_the_events_between_them(begins, onsets, cuts):
    spans, free = [], 0.0
    for gap, length in begins:
        spans.append(Span(free + gap, free + gap, free + gap + length))
        free += gap + length + 1
    edges = [-np.inf, *sorted(cuts), np.inf]
    blocks = [match(spans, onsets, block) for block in pairwise(edges)]
    whole = match(spans, onsets)
    for name in ("found", "missed", "false"):
        assert sum(getattr(block, name) for block in blocks) == getattr(whole, name)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "real" / "labels").mkdir(parents=True)
    (tmp_path / "clips" / "hall.mp4").write_bytes(b"")
    return tmp_path


def labelled(folder, entry: object):
    (folder / "real" / "labels" / "clips.json").write_text(json.dumps({"hall.mp4": entry}))
    return read_labelled(folder, lambda file: HALF)


def test_numbers_of_one_thing_exclude_each_other_and_between_them_nothing_is_known(folder):
    entry = {"frames": 6, "one cup stands here": [[0, 1]], "two cups stand here": [[4, 5]], "a man is here": [[2, 3]]}
    (found,) = labelled(folder, entry)
    truths = {truth.text: truth.known.tolist() for truth in found.truths}
    assert truths["Does one cup stand here?"] == [1, 1, -1, -1, 0, 0]
    assert truths["Do two cups stand here?"] == [0, 0, -1, -1, 1, 1]
    assert truths["Is a man here?"] == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"frames": 6, "a man is here": [[2, 9]]}, "from frame 2 to 9, outside of its 6 frames"),
        ({"frames": 6, "a man is here": [[3, 2]]}, "from frame 3 to 2"),
        ({"frames": 6, "a man is here": [2]}, "expected pairs"),
        ({"frames": 6, "a man is here": "yes"}, "expected pairs of frames"),
        ({"a man is here": []}, "no number of frames"),
        ([], "no number of frames"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused_by_name(folder, entry, named):
    with pytest.raises(ConfigError, match=named):
        labelled(folder, entry)


def test_labels_of_a_recording_that_is_not_there_are_refused(folder):
    labels = folder / "real" / "labels"
    (labels / "clips.json").write_text(json.dumps({"attic.mp4": {"frames": 1}}))
    with pytest.raises(ConfigError, match=r"'attic\.mp4', which is not there"):
        read_labelled(folder, lambda file: HALF)
    (labels / "clips.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_labelled(folder, lambda file: HALF)
    (labels / "clips.json").unlink()
    with pytest.raises(ConfigError, match="holds no labels"):
        read_labelled(folder, lambda file: HALF)
    (labels / "attic.boxes.csv").write_text("frame\n")
    with pytest.raises(ConfigError, match="a recording attic"):
        read_labelled(folder, lambda file: HALF)


def test_boxes_say_how_many_there_are_and_where(folder):
    boxes = folder / "real" / "labels" / "hall.boxes.csv"
    head = "frame,person,left_px,top_px,width_px,height_px\n"
    boxes.write_text(head + "0,1,10,10,20,40\n1,1,10,10,20,40\n1,2,12,20,20,40\n2,1,300,150,10,20\n")
    (found,) = read_labelled(folder, lambda file: HALF)
    truths = {
        truth.text.rpartition(": ")[2] if "zone" not in truth.text else truth.text: truth for truth in found.truths
    }
    assert truths["Are there at least 2 people?"].known.tolist() == [0, 1, 0]
    assert truths["Are there at least 2 people in the left half of the picture?"].known.tolist() == [0, 1, 0]
    zones = [truth.known.tolist() for text, truth in truths.items() if "zone" in text]
    assert sorted(zones) == [[0, 0, 1], [1, 1, 0]], "zones in which nobody ever is are left out"
    for text, named in (
        ("9,1,900,10,20,40\n", "outside of the 320 x 192"),
        ("x,1\n", "cannot be read"),
        ("", "no box"),
    ):
        boxes.write_text(head + text)
        with pytest.raises(ConfigError, match=named):
            read_labelled(folder, lambda file: HALF)
