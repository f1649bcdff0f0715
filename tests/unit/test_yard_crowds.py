"""Crowds ask each cell for what it shows, and say of it what was drawn."""

import dataclasses

import numpy as np

from samples.yard.train.crowds import Crowd, crowd_sight, crowded_sheet, part_by_part
from samples.yard.train.scenes import whole
from samples.yard.world.facts import FrameFacts, Thing
from samples.yard.world.targets import GLOBAL_HEADS, HEADS, ShownPart, Targets
from tests.unit.yard_facts import thing

NATIVE = ShownPart((0, 0, 448, 256), (8, 14), whole=True)
HELMET, VEST, BAG = range(3)
TALL = thing("person", 1, box=(64, 32, 32, 128), height_px=128.0, head_px=18.0, helmet=True, vest=False, bag=True)


def dressed(*people: Thing) -> Targets:
    ids = np.zeros((256, 448), np.uint8)
    for one in people:
        left, top, width, height = one.box
        ids[top : top + height, left : left + width] = one.id
    facts = FrameFacts(0.0, "day", False, True, None, people)
    return part_by_part(ids, facts, {}, ((0, 0, 32, 32), (400, 200, 32, 32)), NATIVE)


def told(found: Targets, slot: int) -> dict[int, int]:
    values = found["person"][:, slot]
    return {int(cell): int(values[cell]) for cell in (values >= 0).nonzero()[0]}


def test_each_part_of_a_person_is_asked_where_it_is():
    found = dressed(TALL)
    head, body, hands = 1 * 14 + 2, 2 * 14 + 2, 3 * 14 + 2
    assert told(found, HELMET) == {head: 1}
    assert body in told(found, VEST)
    assert set(told(found, VEST).values()) == {0}
    assert hands in told(found, BAG)
    assert head not in told(found, BAG)


def test_a_cell_of_two_heads_that_differ_is_asked_for_neither():
    beside = dataclasses.replace(TALL, id=2, box=(80, 32, 16, 128), helmet=False)
    assert told(dressed(TALL, beside), HELMET) == {}
    same = dataclasses.replace(beside, helmet=True)
    assert set(told(dressed(TALL, same), HELMET).values()) == {1}


def test_heads_and_clothes_that_cannot_be_told_are_not_asked_for():
    assert told(dressed(dataclasses.replace(TALL, head_px=4.0)), HELMET) == {}
    far = dataclasses.replace(TALL, height_px=30.0, box=(64, 32, 10, 30), head_px=0.0)
    assert told(dressed(far), VEST) == {}


def test_nothing_is_asked_of_a_crowded_picture_as_a_whole():
    found = dressed(TALL)
    assert "any" in GLOBAL_HEADS
    for name in GLOBAL_HEADS:
        assert (found[name] == -1).all()
    assert (found["kind"] >= 0).any()


def test_a_crowd_is_many_people_in_the_yard_of_its_seed():
    people = [sum(t.kind == "person" for t in Crowd(seed).look(3.0).facts.visible) for seed in (11, 12, 13)]
    assert sum(people) >= 15
    one, other = (crowd_sight(11, 2, np.random.default_rng(5)) for _ in range(2))
    assert (one.looks[1].pixels == other.looks[1].pixels).all()
    example = whole(one, 0.5, np.random.default_rng(0), part_by_part)
    assert example.pixels.shape == (2, 128, 224, 3)
    assert example.targets["person"].shape == (4 * 7, HEADS["person"].slots)


def test_a_sheet_of_people_says_of_helmets_what_its_pixels_show():
    """Helmets are brighter than hair: on many sheets the cells of either must differ."""
    bright: dict[int, list[float]] = {0: [], 1: []}
    for seed in range(30):
        example = crowded_sheet(np.random.default_rng(seed))
        cells = example.pixels[0].reshape(4, 32, 7, 32, 3).max(axis=(1, 3)).max(axis=-1).reshape(-1)
        values = example.targets["person"][:, HELMET]
        for value in bright:
            bright[value] += cells[values == value].tolist()
    assert min(map(len, bright.values())) > 50
    assert np.mean(bright[1]) > np.mean(bright[0]) + 10
