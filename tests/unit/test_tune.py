"""Tuning by labels: what counts as right, what is proposed and when nothing is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.entries import parse_watch
from pipeline.delivery.history import StoredEvent
from pipeline.delivery.labels import Label
from pipeline.lab import tune_search
from pipeline.lab.kept import KeptSeries, rejudge
from pipeline.lab.truths import Mark, Reviewed, marks_of, merge, reviewed, with_answers
from pipeline.lab.tune import LEAST_TRUTHS, MARGIN, tune
from pipeline.lab.tune_search import Knobs, ReviewedSeries, SettingsSearch, Trials, f1_of
from pipeline.lab.tuning import asked_since
from pipeline.registry.entry import Edit
from pipeline.rules import Rules
from pipeline.types import Event, WatchQuery

AT = datetime(2026, 1, 2, tzinfo=UTC)
ZERO = AT.timestamp()
QUERY = WatchQuery("car", "is there a car?")
BAD = replace(QUERY, open_at=0.95, clear_at=0.05)
COUNT = st.integers(1, 4)


def series(score):
    seconds = np.arange(len(score), dtype=float)
    return KeptSeries(seconds, ZERO + seconds, np.asarray(score, float), np.ones(len(score)), (None,) * len(score))


def day(busy=20, level=0.6, seed=0, spacing=60):
    """A stream that shows `busy` cars of 10 s, one in `spacing` seconds, with scores about `level`; else about 0.1."""
    rng = np.random.default_rng(seed)
    score, holds = rng.normal(0.1, 0.05, busy * spacing), []
    for number in range(busy):
        first = number * spacing + 20
        score[first : first + 10] = rng.normal(level, 0.05, 10)
        holds.append((ZERO + first, ZERO + first + 10.0))
    truth = Reviewed(holds[0][0], ZERO + busy * spacing, tuple(holds))
    return ReviewedSeries(series(np.clip(score, 0, 1)), truth)


def test_bad_thresholds_are_mended_and_the_gain_holds_on_time_that_was_not_labelled():
    found = tune(BAD, [day()])
    assert found.reason == ""
    assert found.current.recall == 0
    assert found.cross.f1 > 0.95
    assert found.gain > MARGIN
    unseen = day(seed=1)
    before, after = (f1_of(Trials(BAD, [unseen], 1.0).counts(one).sum(0)) for one in (found.now, found.proposed))
    assert (before, after > 0.95) == (0, True)


def test_nothing_is_proposed_for_a_watch_that_is_right():
    found = tune(replace(QUERY, open_at=0.4, clear_at=0.2), [day()])
    assert found.current.f1 == 1
    assert found.proposed is None
    assert "no settings" in found.reason


def test_too_few_labels_are_said_to_be_too_few():
    few = tune(BAD, [day(busy=LEAST_TRUTHS - 1)])
    assert (few.proposed, few.cross, few.folds) == (None, None, 0)
    assert f"name {LEAST_TRUTHS - 1} times" in few.reason
    assert tune(BAD, []).proposed is None
    assert tune(BAD, [day(busy=LEAST_TRUTHS)]).folds == 3


def test_what_is_expected_is_of_time_that_was_not_chosen_on():
    """Of scores that mean nothing, settings are found that fit the labels; what is expected of them is less."""
    fitted, crossed = 0.0, 0.0
    for seed in range(3):
        one = day(busy=10, level=0.1, seed=seed)
        found = tune(BAD, [one], 1.0)
        trials = Trials(BAD, [one], 1.0)
        best = SettingsSearch(trials, found.now, np.ones(len(trials.counts(found.now)), bool)).best()
        fitted += float(f1_of(trials.counts(best).sum(0)))
        crossed += found.cross.f1
    assert crossed < fitted - 0.2


def test_a_search_gives_the_same_again():
    assert tune(BAD, [day()]) == tune(BAD, [day()])


def test_a_watch_for_what_is_absent_keeps_its_duration():
    query = replace(QUERY, open_at=0.9, clear_at=0.02, rules=Rules(absent_s=5.0))
    inverted = day()
    inverted = replace(inverted, series=series(1 - inverted.series.score))
    found = tune(query, [inverted])
    assert found.proposed
    assert found.proposed.hold_s == 0
    assert "hold_s" not in found.proposed.changes(found.now)
    assert found.proposed.on(query).rules.absent_s == 5.0


def test_events_where_something_is_to_be_ignored_count_neither_way():
    score = np.full(200, 0.1)
    score[50:60] = score[100:110] = 0.9
    wrong = Reviewed(ZERO, ZERO + 200, ())
    ignored = replace(wrong, ignored=((ZERO + 100, ZERO + 110),))
    counts = [
        Trials(QUERY, [ReviewedSeries(series(score), one)], 1.0).counts(Knobs.of(QUERY)) for one in (wrong, ignored)
    ]
    assert [one.sum(0).tolist() for one in counts] == [[0, 2, 0, 0], [0, 1, 0, 0]]


def test_time_behind_the_last_label_and_before_the_first_counts_for_nothing():
    score = np.full(300, 0.1)
    score[20:30] = score[150:160] = score[250:260] = 0.9
    truth = Reviewed(ZERO + 100, ZERO + 200, ((ZERO + 150, ZERO + 160),))
    assert Trials(QUERY, [ReviewedSeries(series(score), truth)], 1.0).counts(Knobs.of(QUERY)).sum(0).tolist() == [
        1,
        0,
        0,
        0,
    ]


def test_an_event_that_comes_again_in_one_interval_is_neither_right_twice_nor_false():
    score = np.full(60, 0.1)
    score[20:23] = score[30:33] = 0.9
    one = ReviewedSeries(series(score), Reviewed(ZERO, ZERO + 60, ((ZERO + 20, ZERO + 33),)))
    assert Trials(QUERY, [one], 1.0).counts(Knobs.of(QUERY)).sum(0).tolist() == [1, 0, 0, 1]


def test_a_watch_whose_opening_is_not_sent_is_judged_all_the_same():
    quiet = replace(BAD, rules=Rules(emit=("cleared",)))
    assert tune(quiet, [day()]).proposed == tune(BAD, [day()]).proposed


def test_no_more_settings_are_tried_than_may_be(monkeypatch):
    monkeypatch.setattr(tune_search, "MOST_JUDGED_HOPS", 0)
    found = tune(BAD, [day(busy=8)])
    assert found.tried <= tune_search.LEAST_TRIED
    assert found.proposed is None or found.gain >= MARGIN


SCORES = st.lists(st.sampled_from([0.0, 0.02, 0.2, 0.45, 0.5, 0.8, 1.0]), min_size=30, max_size=150)
SPANS = st.lists(st.tuples(st.integers(0, 150), st.integers(0, 20)), max_size=12)


def spans_of(drawn):
    return sorted((ZERO + start, ZERO + start + length) for start, length in drawn)


@settings(deadline=None, max_examples=60)
@given(SCORES, SPANS, SPANS, COUNT, COUNT, st.sampled_from([0.0, 3.0]), st.sampled_from([0.0, 20.0]))
def test_every_interval_is_found_or_missed_and_every_event_has_one_place(
    score, holds, ignored, k, more, hold_s, cool_s
):
    truth = Reviewed(ZERO, ZERO + 200, merge(spans_of(holds), 10.0), (), merge(spans_of(ignored), 0.0))
    knobs = Knobs(0.5, 0.2, (k, k + more), hold_s, cool_s)
    one = ReviewedSeries(series(score), truth)
    counts = Trials(QUERY, [one], 1.0).counts(knobs)
    right, false, missed, repeated = counts.sum(0).tolist()
    assert (counts >= 0).all()
    assert right + missed == len(truth.holds)
    opened = sum(event.kind == "watch.opened" for event in rejudge(one.series, knobs.on(QUERY)))
    assert right + false + repeated <= opened
    if not ignored:
        assert right + false + repeated == opened


@settings(deadline=None, max_examples=10)
@given(SCORES, SPANS, COUNT, st.sampled_from([0.0, 10.0]), st.booleans())
def test_whatever_is_proposed_is_a_watch_and_better_by_a_margin(score, holds, k, hold_s, absent):
    query = replace(QUERY, confirm=(k, k + 1), rules=Rules(absent_s=10.0) if absent else Rules(hold_s=hold_s))
    truth = Reviewed(ZERO, ZERO + 200, merge(spans_of(holds), 2.0))
    found = tune(query, [ReviewedSeries(series(score), truth)])
    assert bool(found.proposed) == (found.reason == "")
    assert (found.cross is None) == (len(truth.holds) < LEAST_TRUTHS)
    if found.cross and found.cross.f1 is not None:
        assert 0 <= found.cross.f1 <= 1
        assert found.gain_interval[0] <= found.gain_interval[1]
    if found.proposed:
        changes = found.proposed.changes(found.now)
        assert changes
        assert found.gain >= MARGIN
        parse_watch("car", {"question": "is there a car?", **found.proposed.as_json()})


@given(SPANS, st.sampled_from([0.0, 1.0, 10.0]))
def test_merged_spans_lie_apart_and_cover_what_they_were_made_of(drawn, gap_s):
    spans = spans_of(drawn)
    found = merge(spans, gap_s)
    assert all(b[0] > a[1] + gap_s for a, b in pairwise(found))
    assert all(any(a <= start and end <= b for a, b in found) for start, end in spans)
    assert {edge for span in found for edge in span} <= {edge for span in spans for edge in span}


def label(kind, event=None, start=0.0, end=1.0, said=1000.0, stream="gate"):
    times = (AT + timedelta(seconds=start), AT + timedelta(seconds=end))
    return Label(1, event, stream, "car", kind, *times, "", "me", AT + timedelta(seconds=said))


def event(name, kind, since_s, hop_s, stream="gate", **more):
    where = "cleared_s" if kind == "cleared" else "onset_s"
    at = AT + timedelta(seconds=hop_s)
    data = {where: since_s, "hop_start_s": hop_s, "captured_at": at.isoformat(), **more}
    return StoredEvent(1, Event(name, f"watch.{kind}", stream, at + timedelta(seconds=9), data, "car"))


EVENTS = [
    event("a", "opened", 10.0, 12.0),
    event("x", "opened", 11.0, 11.0, stream="yard"),
    event("b", "updated", 10.0, 40.0),
    event("c", "cleared", 50.0, 53.0),
    event("d", "opened", 100.0, 100.0),
    event("e", "opened", 200.0, 201.0),
]


def test_a_label_is_about_the_time_from_onset_to_clear_whichever_event_was_labelled():
    for name in "abc":
        (mark,) = marks_of([label("true", name)], EVENTS)["gate"]
        assert (mark.start - ZERO, mark.end - ZERO) == (10.0, 50.0), name


@pytest.mark.parametrize(
    ("one", "start_s", "end_s"),
    [
        (label("false", "d"), 100.0, 200.0),  # its clear was not sent: until it opened again
        (label("true", "e", said=260.0), 200.0, 260.0),  # it stands: until a person said so
        (label("true", "e", said=100.0), 200.0, 200.0),
        (label("true", "gone", 5.0, 6.0), 5.0, 6.0),  # its event is kept no longer: its hop
        (label("missed", None, 70.0, 80.0), 70.0, 80.0),
    ],
)
def test_what_a_label_is_about_where_something_is_missing(one, start_s, end_s):
    (mark,) = marks_of([one], EVENTS)["gate"]
    assert (mark.start - ZERO, mark.end - ZERO) == (start_s, end_s)


def test_labels_are_of_their_stream():
    found = marks_of([label("true", "x", stream="yard"), label("missed", start=5.0)], EVENTS)
    assert {stream: marks[0].start - ZERO for stream, marks in found.items()} == {"yard": 11.0, "gate": 5.0}


def test_the_truth_of_marks():
    found = reviewed(
        [
            Mark("missed", 31, 40),
            Mark("true", 5, 10),
            Mark("true", 15, 20),
            Mark("false", 50, 60),
            Mark("fixture", 1, 2),
        ]
    )
    assert found == Reviewed(1, 60, ((5, 20), (31, 40)), ((50, 60),), ((1, 2),))
    assert reviewed([]) is None
    kept = with_answers(found, np.array([7.0, 55.0]), 1.0)
    assert (kept.holds, kept.wrong, kept.ignored) == (((5, 20),), ((50, 60),), ())


def test_answers_count_since_the_watch_was_asked_what_it_is_asked_now():
    def edit(day, before, after):
        return Edit(day, "watch", "car", day, AT + timedelta(days=day), "me", before, after)

    old, new = {"question": "a bus?"}, {"question": "a car?"}
    edits = [edit(3, new, new | {"open_at": 0.9}), edit(2, old, new), edit(1, None, old)]
    assert asked_since(edits) == AT + timedelta(days=2)
    assert asked_since(edits[2:]) == AT + timedelta(days=1)
    assert asked_since([]) is None
    assert asked_since([edit(4, new, new | {"zone": "dock"}), *edits]) == AT + timedelta(days=4)
