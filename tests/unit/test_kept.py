"""What is judged again from kept answers is what the rules decide hop by hop, passed over or not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.delivery.history import StoredAnswers
from pipeline.errors import ConfigError
from pipeline.lab import kept
from pipeline.lab.kept import KeptSeries, read_kept, rejudge, rejudge_plainly
from pipeline.rules import Escalation, Rules, Schedule, Window
from pipeline.types import WatchQuery

AT = datetime(2026, 1, 2, tzinfo=UTC)
QUERY = WatchQuery("car", "is there a car?")
HALF = Schedule("UTC", tuple(Window(tuple(range(7)), minute, minute + 1) for minute in range(0, 60, 2)))
"""Every other minute."""

RULES = st.builds(
    Rules,
    hold_s=st.sampled_from([0.0, 25.0]),
    max_per_hour=st.none() | st.integers(1, 3),
    update_every_s=st.sampled_from([0.0, 40.0]),
    escalate=st.none() | st.just(Escalation(30.0, "critical")),
    schedule=st.none() | st.just(HALF),
)
CHOICE = st.builds(
    Rules, choice=st.just(("a", "b")), hold_s=st.sampled_from([0.0, 25.0]), schedule=st.none() | st.just(HALF)
)
ABSENT = st.builds(Rules, absent_s=st.just(20.0), update_every_s=st.sampled_from([0.0, 40.0]))
ANSWERS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.sampled_from([1.0, 1.0, 1.0, 0.1]), st.sampled_from("ab")),
    max_size=120,
)


def series(answers, steps):
    start_s = np.cumsum([0.0, *steps[: max(0, len(answers) - 1)]])[: len(answers)]
    score, mass = (np.array([one[place] for one in answers], float) for place in (0, 1))
    return KeptSeries(start_s, AT.timestamp() + start_s, score, mass, tuple(one[2] for one in answers))


@settings(deadline=None, max_examples=300)
@given(
    ANSWERS,
    st.lists(st.sampled_from([1.0, 5.0, 30.0]), min_size=120, max_size=120),
    st.one_of(RULES, CHOICE, ABSENT),
    st.tuples(st.integers(1, 3), st.integers(0, 2)),
    st.sampled_from([0.0, 15.0]),
)
def test_what_is_passed_over_decides_nothing(answers, steps, rules, confirm, cooldown_s):
    query = replace(QUERY, rules=rules, confirm=(confirm[0], sum(confirm)), cooldown_s=cooldown_s)
    kept_answers = series(answers, steps)
    assert rejudge(kept_answers, query) == rejudge_plainly(kept_answers, query)


def stored(second, answers, stream="gate", **more):
    record = {"start_s": float(second), "end_s": second + 1.0, "answers": answers, **more}
    return StoredAnswers(second, stream, AT + timedelta(seconds=second, hours=1), record)


def test_answers_are_read_by_stream_and_watch_with_the_time_of_capture():
    records = [
        stored(0, {"car": [0.9, 1.0, 0], "light": [0.8, 1.0, 2, "red"]}, at=AT.isoformat()),
        stored(1, {"light": [0.7, 1.0, 0, "green"]}),
        stored(1, {"dog": [0.7, 1.0, 0]}, stream="yard"),
    ]
    found = read_kept(records, ["car", "light"])
    assert set(found) == {"gate", "yard"}
    assert found["yard"] == {}
    car, light = found["gate"]["car"], found["gate"]["light"]
    assert (len(car), car.known, light.values) == (2, 1, ("red", "green"))
    assert car.at.tolist() == [AT.timestamp(), (AT + timedelta(hours=1, seconds=1)).timestamp()]


def test_more_than_can_be_judged_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(kept, "MOST_HOPS", 3)
    with pytest.raises(ConfigError, match="more than 3 hops"):
        read_kept([stored(second, {"car": [0.9, 1.0, 0]}) for second in range(4)], ["car"])


def test_nothing_kept_is_nothing_found():
    assert rejudge(series([], []), QUERY) == []
