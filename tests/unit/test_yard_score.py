"""Figures from records, and what they name."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from allocator_engine.evaluate.tasks import f1, parse_seeds
from pipeline.errors import ConfigError
from samples.yard.card.evaluate import _append, _read, _setting, measure
from samples.yard.card.replay import SETTINGS, Graded, Opinion, Record
from samples.yard.card.report import fill
from samples.yard.card.score import calibration_error, families, reliability
from samples.yard.questions.grammar import YardWatch, watch_questions
from samples.yard.questions.matching import WatchScore, match
from samples.yard.world.facts import FrameFacts, Thing
from samples.yard.world.segments import sampled_times_s, told

DOG = next(watch for watch in watch_questions() if watch.slug == "dog")


def dog(fraction: float = 1.0) -> Thing:
    return Thing(1, "dog", (10, 150, 30, 20), 20.0, fraction, 50.0, "road")


def frames(shown: str) -> list[FrameFacts]:
    """One frame a half second: `#` shows a dog, `?` half of one, a point none."""
    things = {"#": (dog(),), "?": (dog(0.45),), ".": ()}
    return [FrameFacts(index / 2, "day", False, False, False, things[mark]) for index, mark in enumerate(shown)]


def record(seed: int, right: float = 1.0, **changes) -> Record:
    made = Record(
        seed,
        "native",
        100,
        200,
        0.5,
        (Graded("coarse", "gate_open_now", "yes", "yes", right), Graded("coarse", "gate_open_now", "no", "no", 1.0)),
        (Opinion("dog", True, 0.9, True, True),),
        (WatchScore("dog", True, 1, 0, 0, (0.0,)),),
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("shown", "onsets", "found", "missed", "false"),
    [
        ("....####....", [2.0], 1, 0, 0),
        ("....####....", [1.0], 1, 0, 0),
        ("....####....", [3.5], 0, 1, 0),
        ("....####....", [0.5], 0, 1, 1),
        ("....####....", [], 0, 1, 0),
        ("............", [3.0], 0, 0, 1),
        ("....####....", [2.0, 3.0], 1, 0, 0),
        ("....####........####", [2.0, 8.0], 2, 0, 0),
        ("....??##....", [2.0], 1, 0, 0),
        ("....????....", [2.0], 0, 0, 0),
        ("....##??##..", [2.0], 1, 0, 0),
    ],
)
def test_events_pair_with_what_was_visible(shown, onsets, found, missed, false):
    score = match(DOG, frames(shown), onsets)
    assert (score.found, score.missed, score.false) == (found, missed, false)


def test_a_delay_counts_from_where_it_became_certain():
    assert match(DOG, frames("....??##...."), [2.0]).delays_s == (-1.0,)
    assert match(DOG, frames("....####...."), [3.0]).delays_s == (1.0,)


def test_f1_weighs_what_was_missed_and_what_was_false():
    assert f1([WatchScore("a", True, 3, 1, 1)]).value == pytest.approx(0.75)
    assert f1([WatchScore("a", True, 0, 2, 0)]).value == 0
    assert np.isnan(f1([WatchScore("a", True, 0, 0, 0)]).value)


def test_figures_have_their_interval_their_count_and_the_majority():
    figures = families([record(seed, right=float(seed % 2)) for seed in range(40)])
    coarse = figures["coarse"]
    assert (coarse.value, coarse.n, coarse.majority) == (0.75, 80, 0.5)
    assert 0.6 < coarse.lo < 0.75 < coarse.hi < 0.9
    assert figures["watches F1"].value == 1.0
    assert "watches F1, coarse" not in figures, "a family of which nothing happened has no figure"


def test_scores_are_calibrated_if_they_are_as_often_true_as_they_say():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 1, 20_000)
    honest = (rng.uniform(0, 1, 20_000) < scores).tolist()
    assert calibration_error(scores.tolist(), honest) < 0.02
    assert calibration_error([0.9] * 100, [True] * 50 + [False] * 50) == pytest.approx(0.4)
    assert reliability([0.05, 0.95, 1.0], [False, True, True]) == [
        (pytest.approx(0.05), 0.0, 1),
        (pytest.approx(0.975), 1.0, 2),
    ]


def test_a_summary_is_json_even_of_a_quiet_world():
    quiet = record(1, opinions=(), watches=(WatchScore("dog", True, 0, 0, 0),))
    text = json.dumps(dataclasses.asdict(measure("native", [quiet])), allow_nan=False)
    assert json.loads(text)["tokens"] == 0.5


def test_records_are_kept_and_one_that_was_cut_off_is_made_again(tmp_path: Path):
    file = tmp_path / "cache" / "native.jsonl"
    _append(file, record(1))
    _append(file, record(2))
    file.write_bytes(file.read_bytes()[:-20])
    assert _read(file) == {1: record(1)}
    _append(file, record(2))
    assert _read(file) == {1: record(1), 2: record(2)}


@pytest.mark.parametrize("text", ["abc", "5:5", "9:2", "1", "1:2:3", ":"])
def test_seeds_are_a_range(text):
    with pytest.raises(ConfigError, match="expected A:B"):
        parse_seeds(text)


def test_settings_are_known_or_a_scale():
    assert _setting("native") is SETTINGS["native"]
    assert _setting("scale 0.5").scale == 0.5
    for wrong in ("foo", "scale 2", "scale x", "scale 0"):
        with pytest.raises(ConfigError, match=f"no setting '{wrong}'"):
            _setting(wrong)


def test_a_card_is_filled_between_its_marks():
    card = "above\n<!-- measured -->\nold\n<!-- end of measured -->\nbelow"
    filled = fill(card, "| new |", {"world": "abc"}, "1:2")
    assert filled.startswith("above\n")
    assert filled.endswith("\nbelow")
    assert "old" not in filled
    assert "| new |" in filled
    assert fill(filled, "| new |", {"world": "abc"}, "1:2") == filled
    with pytest.raises(ValueError, match="lacks the line"):
        fill("no marks", "", {}, "")


def test_facts_are_told_under_the_time_of_their_segment():
    first, second, third = frames("#..")
    flat = told([(first, second), (third,)], anchor_s=0.5)
    assert [frame.time_s for frame in flat] == [-0.25, -0.25, 0.5]
    assert [bool(frame.things) for frame in flat] == [True, False, False]


def test_frames_are_sampled_as_from_25_a_second():
    assert sampled_times_s(2.0, 2.0) == [0.0, 0.52, 1.0, 1.52]


def test_a_watch_is_its_question():
    assert isinstance(DOG, YardWatch)
    assert DOG.text == "is a dog in view?"
