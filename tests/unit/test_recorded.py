"""Labels as the truth of recordings: by file and second, and by stream and time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.lab.labels import rows_in
from pipeline.lab.recorded import by_file, of_questions, truths_of
from pipeline.lab.truths import Reviewed, by_people, known_at, placed, shifted, together

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
ZERO = AT.timestamp()
ROOT = Path("/recordings")
GATE, HALL = ROOT / "gate" / "a.mp4", ROOT / "hall" / "a.mp4"
RECORDINGS = {"gate/a.mp4": GATE, "hall/a.mp4": HALL}


class Times:
    """Recordings of 100 s, the first at AT, each 1000 s behind the one before."""

    def __init__(self) -> None:
        self.opened = []

    def length_s(self, file):
        self.opened.append(file)
        return 100.0

    def began(self, file):
        return AT + timedelta(seconds=1000 * [GATE, HALL].index(file))


def truths(text, watches=("car", "van"), recordings=RECORDINGS):
    return truths_of(rows_in(text, "labels.csv"), "labels.csv", recordings, ROOT, watches, Times())


def kept(*rows):
    """Labels as a service exports them: stream, watch, kind, and seconds behind AT."""
    header = "stream,watch,kind,start,end,event,note,by,at,from,until\n"
    return header + "".join(
        f"{stream},{watch},{kind},{moment(hop)},{moment(hop)},,,me,{moment(hop)},{moment(start)},{moment(end)}\n"
        for stream, watch, kind, start, end, hop in rows
    )


def moment(second):
    return (AT + timedelta(seconds=second)).isoformat()


def test_labels_by_file_are_the_truth_of_all_of_it():
    found = truths("watch,file,start_s,end_s\ncar,gate/a.mp4,10,20\ncar,gate/a.mp4,15,30\nvan,hall/a.mp4,1,2\n")
    at_s = np.array([5.0, 10.0, 29.9, 30.0, 99.0])
    assert known_at(found["car"][GATE], at_s).tolist() == [0, 1, 1, 0, 0]
    assert known_at(found["van"][GATE], at_s).tolist() == [0] * 5, "what no label names is no"
    assert found["van"][HALL].holds == ((1.0, 2.0),)


def test_a_recording_is_named_by_its_file_alone_where_that_is_enough():
    alone = {"gate/b.mp4": ROOT / "gate" / "b.mp4"}
    found = truths("file,start_s,end_s\nb.mp4,10,20\n", ["car"], {**RECORDINGS, **alone})
    assert found["car"][ROOT / "gate" / "b.mp4"].holds == ((10.0, 20.0),)
    with pytest.raises(ConfigError, match=r"line 2: file is 'a\.mp4'"):
        truths("file,start_s,end_s\na.mp4,10,20\n", ["car"])


def test_labels_that_a_service_kept_are_placed_by_stream_and_time():
    found = truths(
        kept(
            ("gate", "car", "true", 10, 20, 12),
            ("gate", "car", "false", 40, 45, 41),
            ("gate", "car", "fixture", 50, 60, 51),
            ("gate", "car", "missed", 70, 1080, 70),
            ("hall", "car", "missed", 10, 20, 10),
            ("gate", "boat", "missed", 1, 2, 1),
        )
    )
    assert set(found["car"]) == {GATE}, "the hall was labelled at a time of which there is no recording"
    assert found["van"] == {}
    at_s = np.array([5.0, 15.0, 30.0, 42.0, 55.0, 65.0, 75.0, 99.0])
    assert known_at(found["car"][GATE], at_s).tolist() == [-1, 1, 0, 0, -1, 0, 1, 1]


def test_a_label_without_the_time_of_its_event_is_about_its_hop():
    text = f"stream,watch,kind,start,end\ngate,car,true,{moment(3)},{moment(4)}\n"
    assert truths(text)["car"][GATE].holds == ((3.0, 4.0),)
    assert not by_file(rows_in(text, ""))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            kept(("gate", "car", "true", 2000, 2010, 2000)),
            "no label of labels.csv falls on a recording.*gate/a.mp4 2026",
        ),
        (kept(("attic", "car", "true", 0, 10, 0)), "gate/a.mp4 .of none of these streams"),
        (kept(("gate", "boat", "true", 0, 10, 0)), "labels.csv has no label of car, van"),
        (kept(("gate", "car", "perhaps", 0, 10, 0)), "line 2: kind is 'perhaps'"),
        (kept(("gate", "car", "true", 10, 5, 0)), "line 2: the label ends at .* before its start"),
        ("stream,watch,kind,start,end\ngate,car,true,soon,5\n", "line 2: start is 'soon'"),
        ("stream,watch,kind,start,end\ngate,car,true,2026-11-29T12:00:00\n", "line 2: end is ''"),
        ("watch,file,start_s,end_s\ncar,gate/a.mp4,60,105\n", "goes from 60 to 105 s, but the recording has 100"),
        ("watch,file,start_s,end_s\nboat,gate/a.mp4,1,2\n", "line 2: watch is 'boat'; the watches are car, van"),
        ("when\n5\n", "line 2: watch is ''"),
    ],
)
def test_labels_that_cannot_be_placed_are_named(text, named):
    with pytest.raises(ConfigError, match=named):
        truths(text)


def test_what_two_watches_ask_alike_is_one_truth():
    found = truths("watch,file,start_s,end_s\ncar,gate/a.mp4,10,20\nvan,gate/a.mp4,18,30\n")
    asked = of_questions(found, {"car": "is there one?", "van": "is there one?"})
    assert asked["is there one?"][GATE].holds == ((10.0, 30.0),)
    assert of_questions(found, {"bus": "another?"}) == {"another?": {}}


SPANS = st.lists(st.tuples(st.integers(-50, 150), st.integers(0, 30)), max_size=8).map(
    lambda drawn: tuple(sorted((float(a), float(a + length)) for a, length in drawn))
)
TRUTHS = st.builds(
    lambda a, length, holds, ignored: Reviewed(float(a), float(a + length), holds, (), ignored),
    st.integers(-50, 150), st.integers(1, 100), SPANS, SPANS,
)  # fmt: skip


@given(TRUTHS, st.integers(-60, 160), st.integers(1, 120))
def test_a_truth_that_is_placed_says_the_same_of_every_second(truth, began, length_s):
    seconds = np.arange(length_s) + 0.5
    there = placed(truth, float(began), float(length_s))
    looked = known_at(replace_spans(truth), seconds + began) == 0
    if there is None:
        assert not looked.any()
        return
    inside = known_at(truth, seconds + began)
    assert known_at(there, seconds).tolist() == inside.tolist()
    assert known_at(shifted(there, 7.0), seconds + 7).tolist() == inside.tolist()


def replace_spans(truth):
    return Reviewed(truth.since, truth.until, ())


@given(TRUTHS)
def test_what_people_say_stands_where_they_looked_and_the_rest_as_it_was(truth):
    seconds, otherwise = np.arange(200) - 49.5, (np.arange(200) % 3 - 1).astype(np.int8)
    found = by_people(truth, seconds, otherwise)
    looked = (seconds >= truth.since) & (seconds < truth.until)
    assert (found[~looked] == otherwise[~looked]).all()
    assert (found[looked] == known_at(truth, seconds)[looked]).all()
    assert by_people(None, seconds, otherwise) is otherwise
    assert together(truth, truth).since == truth.since
