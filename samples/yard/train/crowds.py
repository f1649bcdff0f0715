"""Crowds: yards and sheets full of people, as other sheets are full of plates.

A yard shows a person or two, so scenes teach what people wear and carry very slowly. A crowd teaches it in many cells
of one picture; only what single cells show is asked, as in a crowd the whole picture shows everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.yard.train.episodes import SECONDS
from samples.yard.train.pictures import Example
from samples.yard.train.scenes import LATEST_S, Sight, moment
from samples.yard.train.sheets import CELL, COLUMNS, ROWS, background, camera
from samples.yard.world.casting import BAGS, Casting
from samples.yard.world.draw import mark, overlap, paint
from samples.yard.world.facts import HEAD_PX, WIDTH, FrameFacts, Thing
from samples.yard.world.figures import draw_person
from samples.yard.world.layout import BANDS, PERSON_PX, Layout, below_horizon
from samples.yard.world.scene import Scene
from samples.yard.world.script import BagRole, DogRole, Role, Script, Side, Track
from samples.yard.world.stage import YardStage
from samples.yard.world.targets import GLOBAL_HEADS, WORN, Box, Pixels, ShownPart, Targets, coverage, targets, unknown

_CROWDS_KEPT = 8
_PEOPLE = ((3, 7), (6, 14), (2, 6))  # near, in the middle, far
_TALL_PX = (48.0, 105.0)
_POSED_S = 0.5  # when those of a sheet are drawn
_ENOUGH = 0.25  # of a part that a cell must hold
_CLASH = 2
_COATS = ((70, 48, 30), (30, 28, 26), (170, 130, 84), (196, 188, 176))
_SIDES: tuple[Side, ...] = ("front", "rear", "side")
_ROAD_Y = (100.0, 200.0)


class Crowd(Scene):
    """The yard of a seed, in which everybody has come."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, SECONDS)
        self.script = crowded(seed, self.layout, self.script)
        self._native = self._large = YardStage(seed, self.layout, self.script, 1)


def crowded(seed: int, layout: Layout, script: Script) -> Script:
    """The script with many more people and things, who stay all the time."""
    rng = np.random.default_rng((seed, 31))
    cast = Casting(rng, layout.light, made=100)
    roles: list[Role] = [_vehicle(cast) for _ in range(rng.integers(1, 4))]
    for band, (least, most) in zip(BANDS.values(), _PEOPLE, strict=True):
        roles += [_person(cast, *band) for _ in range(rng.integers(least, most + 1))]
        roles += [_dog(cast, *band) for _ in range(rng.integers(0, 3))]
    roles += [_bag(cast) for _ in range(rng.integers(1, 6))]
    return replace(script, roles=(*script.roles, *roles))


def _path(cast: Casting, y: float, pace: float) -> Track:
    """To and fro, with stops, for the whole episode."""
    time_s, x = -1.0, cast.some(0, WIDTH)
    keys = [(time_s, x, y)]
    while time_s < SECONDS + 1:
        goal = cast.some(0, WIDTH)
        time_s += max(0.3, abs(goal - x) / pace)
        keys.append((time_s, goal, y))
        if cast.rng.random() < 0.6:
            time_s += cast.some(0.5, 4)
            keys.append((time_s, goal, y))
        x = goal
    return Track(tuple(keys))


def _person(cast: Casting, nearest: float, farthest: float) -> Role:
    y = cast.some(nearest, farthest)
    return cast.person(_path(cast, y, PERSON_PX * below_horizon(y)))


def _dog(cast: Casting, nearest: float, farthest: float) -> Role:
    y = cast.some(nearest, farthest)
    tall = cast.some(0.13, 0.2) * below_horizon(y)
    return DogRole(cast.new_id(), _path(cast, y, 120.0), cast.of(_COATS, 8.0), tall)


def _bag(cast: Casting) -> Role:
    y = cast.some(*BANDS["middle"])
    tall = 0.235 * PERSON_PX * below_horizon(y)
    return BagRole(cast.new_id(), cast.some(0, WIDTH), y, -1.0, SECONDS + 1, tall, cast.of(BAGS, 6.0))


def _vehicle(cast: Casting) -> Role:
    x, y = cast.some(20, WIDTH - 20), cast.some(*_ROAD_Y)
    side = _SIDES[cast.rng.integers(len(_SIDES))]
    facing = 1 if cast.rng.random() < 0.5 else -1
    stays = Track(((-1.0, x, y), (SECONDS + 1, x, y)))
    return cast.vehicle(cast.kind((0.34, 0.33, 0.33)), side, stays, plate=side != "side", facing=facing)


@lru_cache(maxsize=_CROWDS_KEPT)
def _crowd(seed: int) -> Crowd:
    return Crowd(seed)


def crowd_sight(seed: int, frames: int, rng: np.random.Generator) -> Sight:
    """A moment of the crowd of a seed: one frame, or two that follow each other."""
    return moment(_crowd(seed), float(rng.uniform(0, LATEST_S)), frames)


def part_by_part(
    ids: Pixels, facts: FrameFacts, plates: Mapping[int, Box], ways: tuple[Box, Box], shown: ShownPart
) -> Targets:
    """Targets of a whole crowded picture: a helmet is asked of the cells of its head, a vest of those of the body,
    a bag of those of the hands, as a cell of many people's legs can know nobody's hat. Nothing is asked of the picture.
    """
    found = targets(ids, facts, plates, ways, shown)
    for name in GLOBAL_HEADS:
        found[name][:] = -1
    _dress(found["person"], ids, facts.things, shown)
    return found


def _dress(person: NDArray[np.int8], ids: Pixels, things: Sequence[Thing], shown: ShownPart) -> None:
    """Set the targets of what `things` wear and carry, each in the cells that show it."""
    person[:, : len(WORN)] = -1
    for thing in things:
        if thing.kind != "person" or not thing.visible:
            continue
        told = thing.helmet if thing.head_px >= HEAD_PX else None
        worn = (told, None if thing.far else thing.vest, None if thing.far else thing.bag)
        own = ids == thing.id
        for slot, (part, value) in enumerate(zip(WORN.values(), worn, strict=True)):
            if value is not None:
                cells = _cells_of(own, thing, part, shown)
                clash = (person[:, slot] >= 0) & (person[:, slot] != value)
                person[cells, slot] = np.where(clash[cells], _CLASH, value)
    person[person == _CLASH] = -1


def _cells_of(mask: NDArray[np.bool_], thing: Thing, part: tuple[float, float], shown: ShownPart) -> NDArray[np.bool_]:
    """The cells that hold enough of a part of a person, from top to foot 0 to 1."""
    top = thing.box[1]
    rows = np.arange(len(mask))[:, None]
    inside = mask & (rows >= top + part[0] * thing.height_px) & (rows < top + part[1] * thing.height_px)
    covered = coverage(inside, shown.cells)
    return (covered >= _ENOUGH * max(float(covered.sum()), 1e-6)) & (covered > 0)


def crowded_sheet(rng: np.random.Generator) -> Example:
    """Some twenty people, one before the other, in front of something out of focus."""
    height, width = ROWS * CELL, COLUMNS * CELL
    cast = Casting(rng, "day")
    canvas, ids = background(rng, 1.0), np.zeros((height, width), np.uint8)
    whole: dict[int, tuple[Thing, Box, int]] = {}
    for foot_y in np.sort(rng.uniform(50, height + 60, rng.integers(14, 30))):
        tall = float(np.exp(rng.uniform(*np.log(_TALL_PX))))
        role = cast.person(Track(((0.0, 0.0, 0.0), (1.0, 1.0, 0.0))))
        foot, forward = (cast.some(0, width), float(foot_y)), int(rng.choice((-1, 1)))
        figure = draw_person(role, _POSED_S, foot, tall, forward=forward, step=cast.some(0, 6.3))
        if figure.head is None or paint(canvas, figure.sprite) is None:
            continue
        mark(ids, figure.sprite, role.id)
        thing = Thing(
            id=role.id,
            kind="person",
            box=(0, 0, 0, 0),
            height_px=tall,
            fraction=1.0,
            contrast=255.0,
            place="road",
            helmet=role.wears_helmet(_POSED_S),
            vest=role.vest is not None,
            bag=role.carries(_POSED_S),
            head_px=figure.head[3],
        )
        whole[role.id] = thing, figure.head, int(np.count_nonzero(figure.sprite.alpha > 127))
    things = [seen for thing, head, size in whole.values() if (seen := _left_of(thing, head, size, ids))]
    found = unknown(ROWS * COLUMNS)
    shown = ShownPart((0, 0, width, height), (ROWS, COLUMNS), whole=False)
    _dress(found["person"], ids, things, shown)
    return Example(camera(canvas, rng, rng.uniform(0.3, 1.0))[None], found)


def _left_of(thing: Thing, head: Box, size: int, ids: Pixels) -> Thing | None:
    """The part of somebody that is left when all have been drawn; a head counts while half of its box shows him."""
    own = ids == thing.id
    if not own.any():
        return None
    left, top, wide, high = cv2.boundingRect(own.view(np.uint8))
    at = overlap(head, (0, 0, ids.shape[1], ids.shape[0])) or (0, 0, 0, 0)
    inside = np.count_nonzero(own[at[1] : at[1] + at[3], at[0] : at[0] + at[2]])
    head_px = thing.head_px if inside >= 0.5 * head[2] * head[3] else 0.0
    fraction = np.count_nonzero(own) / size
    return replace(thing, box=(left, top, wide, high), fraction=fraction, head_px=head_px)
