"""Pictures with plates stuck on: what they show is what is asked, and the rest of the yard is left alone."""

from dataclasses import replace

import numpy as np
import pytest

from samples.yard.questions.truth import PLATE
from samples.yard.shape import HIDDEN
from samples.yard.train.checkpoint import tokenizer
from samples.yard.train.contexts import mixed_batch, packed_plates, remembered
from samples.yard.train.episodes import Looked, Viewing, keep
from samples.yard.train.packing import Packer
from samples.yard.train.plated import PICTURES_PER_EPISODE, plated, plates_of
from samples.yard.world.facts import FrameFacts, Thing

QUIET = FrameFacts(0.0, "day", False, False, True)
CAR = Thing(7, "car", (96, 96, 96, 64), 64.0, 1.0, 60.0, "road", colour="red", plate="A7K", plate_px=14.0)


def viewing(facts: FrameFacts = QUIET, cells: tuple[int, int] = (8, 14), pictures: int = 20) -> Viewing:
    shape = (2, cells[0] * 32, cells[1] * 32, 3)
    pairs = [(float(second), second + 0.5) for second in range(pictures)]
    return Viewing(
        "5-0",
        tuple(np.full(shape, 90, np.uint8) for _ in pairs),
        tuple(pairs),
        tuple(tuple(replace(facts, time_s=at_s) for at_s in pair) for pair in pairs),
    )


def test_plates_are_where_the_facts_say():
    found = plated(viewing(), np.random.default_rng(1))
    assert found is not None
    assert len(found.pixels) == PICTURES_PER_EPISODE
    bright = 0
    for pixels, facts in zip(found.pixels, found.facts, strict=True):
        for frame, told in zip(pixels, facts, strict=True):
            away = np.ones(frame.shape[:2], bool)
            for thing in told.things:
                left, top, width, height = thing.box
                away[top : top + height, left : left + width] = False
                bright += bool(frame[top : top + height, left : left + width].std() > 10)
                assert PLATE.of(thing) is not False
            assert frame[away].std() < frame[~away].std()
    assert bright == sum(len(told.things) for facts in found.facts for told in facts)


def test_the_episode_itself_is_left_as_it_was():
    given = viewing()
    plated(given, np.random.default_rng(1))
    assert all((pixels == 90).all() for pixels in given.pixels)


@pytest.mark.parametrize("given", [viewing(replace(QUIET, things=(CAR,))), viewing(cells=(4, 7))])
def test_no_plate_is_stuck_beside_another_or_where_none_can_be_read(given):
    assert plated(given, np.random.default_rng(1)) is None


@pytest.fixture
def file(tmp_path):
    """An episode's file and the one of its plates beside it, as a vision part might have seen them."""
    rng = np.random.default_rng(0)

    def looked(given: Viewing) -> list[Looked]:
        shown = zip(given.pts_s, given.facts, strict=True)
        return [
            Looked(rng.normal(size=(112, HIDDEN)).astype(np.float16), 8, 14, pts_s, facts) for pts_s, facts in shown
        ]

    file, given = tmp_path / "5-0.npz", viewing()
    stuck = plated(given, np.random.default_rng(2))
    assert stuck is not None
    keep(file, looked(given))
    keep(plates_of(file), looked(stuck))
    return file


def test_plates_that_are_there_are_asked_for_and_near_misses_of_them(file):
    packer, rng = Packer(tokenizer()), np.random.default_rng(3)
    drawn = [packed_plates(remembered(plates_of(file)), packer, rng) for _ in range(8)]
    questions = [question for packed in drawn for question in packed.questions]
    assert {question.answer for question in questions if question.kind == "standing"} == {"yes", "no"}
    assert {"plate_text_now", "plate_read_now", "plate_any_now"} <= {question.kind for question in questions}
    assert sum(len(packed.pointing) for packed in drawn) > len(questions), "their characters point, too"


def test_training_meets_them_among_episodes(file):
    packer, rng = Packer(tokenizer()), np.random.default_rng(0)
    kinds = [{q.kind for q in packed.questions} for _ in range(6) for packed in mixed_batch([file], packer, rng)]
    with_plates_only = [
        found for found in kinds if found <= {"standing", "plate_text_now", "plate_read_now", "plate_any_now"}
    ]
    assert 0 < len(with_plates_only) < len(kinds)
