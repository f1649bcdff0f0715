"""Wordings compared by labels: what is proposed, and when nothing is."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.entries import parse_watch
from pipeline.errors import ConfigError
from pipeline.lab import tune_search
from pipeline.lab.backtest import BackTest, Tried
from pipeline.lab.kept import KeptSeries
from pipeline.lab.truths import Reviewed, shifted
from pipeline.lab.tune import MARGIN, Gain
from pipeline.lab.tune_search import ReviewedSeries
from pipeline.lab.wording_trial import AskedWordings, tune_wordings
from pipeline.lab.wordings import MOST_WORDINGS, compare_wordings, wordings_of
from pipeline.types import WatchQuery

OWN, OTHER = "is there a car?", "is a car in view?"
QUERY = WatchQuery("car", OWN, open_at=0.5, clear_at=0.3)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(tune_search, "MOST_TRIED", tune_search.LEAST_TRIED)


def answers(seen, shadows=0.0, busy=20, level=0.8, seed=0):
    """A stream that shows a car for 10 s in each minute, of which a wording sees a share, and shadows in between."""
    rng = np.random.default_rng(seed)
    score, holds = rng.normal(0.1, 0.04, busy * 60), []
    for number in range(busy):
        first = number * 60 + 20
        if rng.random() < seen:
            score[first : first + 10] = rng.normal(level, 0.04, 10)
        if rng.random() < shadows:
            score[first + 25 : first + 30] = rng.normal(level, 0.04, 5)
        holds.append((float(first), first + 10.0))
    seconds = np.arange(len(score), dtype=float)
    series = KeptSeries(seconds, seconds, np.clip(score, 0, 1), np.ones(len(score)), (None,) * len(score))
    return [ReviewedSeries(series, Reviewed(20.0, float(len(score)), tuple(holds)))]


def test_a_wording_that_is_surely_better_is_proposed_with_the_settings_that_suit_it():
    found = compare_wordings(QUERY, {OWN: answers(0.5), OTHER: answers(1.0, level=0.45)})
    assert (found.proposed.question, found.reason) == (OTHER, "")
    assert found.proposed.gain.interval[0] > 0
    assert found.proposed.expected.f1 > 0.9 > found.own.expected.f1
    assert found.changes["question"] == OTHER
    assert found.changes["open_at"] < 0.45, "it is less sure of what it sees"
    shown = found.as_json()
    assert (shown["proposed"], shown["now"]["question"], len(shown["wordings"])) == (OTHER, OWN, 2)
    assert shown["wordings"][0]["gain"]["f1"] == pytest.approx(found.own.expected.f1 - shown["now"]["f1"], abs=1e-3)


def test_a_wording_that_is_as_good_is_not_proposed_nor_one_that_is_worse():
    for material in (answers(0.8, seed=0), answers(0.3, seed=1)):
        found = compare_wordings(QUERY, {OWN: answers(0.8, seed=0), OTHER: material})
        assert found.proposed is None
        assert "question" not in found.changes
        assert f"expected at least {MARGIN:g}" in found.reason


def test_settings_that_mend_the_own_wording_come_before_other_words():
    strict = replace(QUERY, open_at=0.95, clear_at=0.05)
    found = compare_wordings(strict, {OWN: answers(1.0), OTHER: answers(1.0, seed=3)})
    assert found.own.tuning.current.f1 == 0
    assert found.own.expected.f1 > 0.9
    assert found.proposed is None
    assert "question" not in found.changes
    assert found.changes["open_at"] < 0.8
    assert "own wording" in found.reason


def test_of_wordings_that_are_as_good_that_which_changes_least_is_proposed():
    """The own wording needs thresholds of its own to see what the other sees with those that the watch has."""
    found = compare_wordings(QUERY, {OWN: answers(1.0, level=0.3), OTHER: answers(1.0), "and so?": answers(0.6)})
    assert found.own.expected.f1 == pytest.approx(found.wordings[1].expected.f1, abs=MARGIN)
    assert found.changes == {"question": OTHER}


def test_the_more_wordings_are_compared_the_surer_one_has_to_be():
    own, one, worst = answers(0.5, 0.4, 12, seed=4), answers(0.7, 0.4, 12, seed=5), answers(0.0, 0.0, 12)
    alone = compare_wordings(QUERY, {OWN: own, OTHER: one})
    many = compare_wordings(QUERY, {OWN: own, OTHER: one} | {f"is it {n}?": worst for n in range(3)})
    assert many.wordings[1].gain.f1 == alone.wordings[1].gain.f1
    assert many.wordings[1].gain.interval[0] < alone.wordings[1].gain.interval[0]


def test_with_too_few_labels_nothing_is_compared():
    found = compare_wordings(QUERY, {OWN: answers(0.2, busy=5), OTHER: answers(1.0, busy=5)})
    assert (found.proposed, found.wordings[1].gain, found.changes) == (None, None, {})
    assert "name 5 times" in found.reason
    assert "name 5 times" in compare_wordings(QUERY, {OWN: answers(0.2, busy=5)}).reason


def test_a_wording_alone_is_tuned():
    found = compare_wordings(QUERY, {OWN: answers(1.0, level=0.4)})
    assert (found.proposed, found.changes["open_at"] < 0.45) == (None, True)
    assert compare_wordings(QUERY, {OWN: answers(1.0)}).reason == "there is no other wording to compare"


def test_wordings_are_questions_each_once_and_few():
    assert wordings_of(OWN, [OTHER, f"  {OTHER} ", OWN]) == [OWN, OTHER]
    with pytest.raises(ConfigError, match=f"at most {MOST_WORDINGS}"):
        wordings_of(OWN, [f"is it {number}?" for number in range(MOST_WORDINGS + 1)])
    with pytest.raises(ConfigError, match="10000 characters"):
        wordings_of(OWN, ["x" * 10_000])


COUNTS = st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=20).map(
    lambda rows: np.array(rows, np.int64)
)


@settings(deadline=None, max_examples=30)
@given(COUNTS)
def test_the_gain_over_the_same_counts_is_nothing_and_intervals_widen_with_their_level(counts):
    assert Gain.of(counts, counts) == Gain(0.0, (0.0, 0.0), 0.0)
    better = counts * [1, 0, 0, 1]
    narrow, wide = (Gain.of(better, counts, level) for level in (0.5, 0.99))
    assert wide.interval[0] <= narrow.interval[0] <= narrow.interval[1] <= wide.interval[1]
    assert narrow.f1 >= 0


def test_recordings_of_another_time_than_the_labels_are_named():
    series = answers(1.0)[0].series
    asked = AskedWordings(BackTest({"a.mp4": 1200.0}, {}, 1.0, 9, [Tried("car", OWN)]), {OWN: {"a.mp4": series}}, {})
    truth = Reviewed(0.0, 600.0, ((20.0, 30.0),))
    watch = parse_watch("car", {"question": OWN})
    assert tune_wordings("car", watch, asked, {"a.mp4": truth}).truths == 1
    for truths in ({"a.mp4": shifted(truth, 5000.0)}, {"b.mp4": truth}, {}):
        with pytest.raises(ConfigError, match="no part of the recordings was looked at"):
            tune_wordings("car", watch, asked, truths)


def test_answers_of_a_recording_are_moved_to_when_it_was_made():
    series = answers(1.0)[0].series
    asked = AskedWordings(BackTest({"a.mp4": 1200.0}, {}, 1.0, 9, []), {OWN: {"a.mp4": series}}, {"a.mp4": 0.0})
    moved = asked.dated({"a.mp4": 9000.0})
    assert (moved.series[OWN]["a.mp4"].at == series.at + 9000).all()
    assert (moved.series[OWN]["a.mp4"].start_s == series.start_s).all()
