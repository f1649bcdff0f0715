"""Facts that every cell of a picture should know: dense targets, read from the renderer's own facts.

Answers to questions alone teach a small vision part too slowly. So each vision token is first asked directly, through
heads that are dropped afterwards: what its own cell shows (local), and what the whole picture shows (global).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.yard.world.facts import COLOURS, GLYPHS, HEAD_PX, KINDS, LIGHTS, VEHICLES, FrameFacts, Thing

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
Targets = dict[str, NDArray[np.int8]]
"""By head: int8 `[cells, slots]`; a class, or 0 and 1 of a yes/no; -1 where nothing is known and nothing is learned."""

PLATE_CHARACTERS = 3
BLANK = len(GLYPHS)

READABLE_CELLS = 6
"""Rows of cells below which a picture is too small for any plate."""

_PLACES = ("dock", "bays", "road")
_MOST = 4  # counts end at "four or more"
_OWNS_CELL = 0.08  # part of a cell that a thing must cover
_OWNS_THING = 0.25  # or part of the thing that must lie in the cell
_CELL_PX = 32
_READABLE_PX = 6.0  # characters lower than this, as shown, would only teach guessing
_INSIDE, _OUTSIDE = 0.6, 0.1  # part of a thing that a crop must hold to show it, or not to show it


@dataclass(frozen=True, slots=True)
class Head:
    """`slots` yes/no outputs (`classes` = 2), or as many choices among `classes`. `rare`: hardly ever yes, so that
    a yes weighs as much as all the noes beside it."""

    slots: int
    classes: int = 2
    weight: float = 1.0
    rare: bool = False

    @property
    def outputs(self) -> int:
        """Numbers that a token must give."""
        return self.slots if self.classes == 2 else self.slots * self.classes


HEADS: Mapping[str, Head] = {
    "kind": Head(len(KINDS), weight=2.0, rare=True),
    "colour": Head(1, len(COLOURS)),
    "person": Head(4, rare=True),  # helmet, vest, bag, far
    "plate": Head(PLATE_CHARACTERS, BLANK + 1, weight=3.0),
    "glyphs": Head(len(GLYPHS), weight=4.0),
    "legible": Head(1),
    "gate": Head(1),
    "barrier": Head(1),
    "any": Head(len(KINDS) + 6, rare=True),
    "vehicle": Head(len(VEHICLES) * (len(COLOURS) + len(_PLACES)), rare=True),
    "people": Head(1, _MOST + 1),
    "vehicles": Head(1, _MOST + 1),
    "light": Head(1, len(LIGHTS), weight=0.3),
    "rain": Head(1, weight=0.3),
    "ways": Head(2),  # gate, barrier
    "reads": Head(PLATE_CHARACTERS, BLANK + 1, weight=0.5),
}
"""Local heads first, then (from "any") the global ones."""

WORN: Mapping[str, tuple[float, float]] = {"helmet": (0.0, 0.17), "vest": (0.17, 0.5), "bag": (0.45, 0.8)}
"""Where a person wears or carries what the slots of "person" are about, from top (0) to foot (1)."""

_LIKE = ("colour", "person", "plate")  # said of things, so a frame without them says nothing

GLOBAL_HEADS = tuple(HEADS)[list(HEADS).index("any") :]


@dataclass(frozen=True, slots=True)
class ShownPart:
    """A part of a picture and how many (rows, columns) of cells it becomes. `box` is in native px."""

    box: Box
    cells: tuple[int, int]
    whole: bool


Teach: TypeAlias = Callable[[Pixels, FrameFacts, Mapping[int, Box], tuple[Box, Box], ShownPart], Targets]
"""What gives the targets of a part of a frame: see `targets`."""


def unknown(cells: int) -> Targets:
    """Targets of a picture of which nothing is known yet."""
    return {name: np.full((cells, head.slots), -1, np.int8) for name, head in HEADS.items()}


def spell(plate: str) -> NDArray[np.int8]:
    """The classes of a plate's characters, blanks behind them."""
    return np.array([*(GLYPHS.index(c) for c in plate), *([BLANK] * PLATE_CHARACTERS)][:PLATE_CHARACTERS], np.int8)


def glyphs_in(box: Box, plate: str, cells: tuple[int, int], size: tuple[int, int]) -> list[tuple[int, int]]:
    """(cell, glyph) of each character of a plate whose middle lies in a picture of `size` (height, width) px."""
    left, top, width, height = box
    margin = 0.28 * height * 0.62  # the rim, on either side
    step = (width - 2 * margin) / len(plate)
    found = []
    for place, character in enumerate(plate):
        column = int((left + margin + step * (place + 0.5)) * cells[1] / size[1] // 1)
        row = int((top + height / 2) * cells[0] / size[0] // 1)
        if 0 <= row < cells[0] and 0 <= column < cells[1]:
            found.append((row * cells[1] + column, GLYPHS.index(character)))
    return found


def coverage(mask: NDArray[np.bool_], cells: tuple[int, int]) -> NDArray[np.float32]:
    """Part of each cell that a mask covers: float32 `[rows * columns]`."""
    rows, columns = cells
    area = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(area, np.float32).reshape(-1)


def owned(mask: NDArray[np.bool_], cells: tuple[int, int]) -> NDArray[np.bool_]:
    """The cells that should know of what a mask covers."""
    covered = coverage(mask, cells)
    whole = max(float(covered.sum()), 1e-6)
    return (covered >= _OWNS_CELL) | (covered >= _OWNS_THING * whole) & (covered > 0)


def targets(
    ids: Pixels, facts: FrameFacts, plates: Mapping[int, Box], ways: tuple[Box, Box], shown: ShownPart
) -> Targets:
    """Targets of `shown`, a part of the frame with these id picture `[256, 448]`, facts, boxes of plates (by id), and
    boxes of gate and barrier."""
    left, top, width, height = shown.box
    part = ids[top : top + height, left : left + width]
    found = unknown(shown.cells[0] * shown.cells[1])
    found["kind"][:] = 0
    found["legible"][:] = 0
    found["glyphs"][:] = 0
    present: dict[int, bool | None] = {}
    for thing in facts.things:
        mask = part == thing.id
        if mask.any():
            present[thing.id] = _presence(thing, float(mask.sum()), ids)
            _local(found, thing, owned(mask, shown.cells), present[thing.id])
    for id_, box in plates.items():
        _plate(found, facts, id_, box, shown)
    for name, box, state in zip(("gate", "barrier"), ways, (facts.gate_open, facts.barrier_up), strict=True):
        if state is not None:
            found[name][owned(_mask(box, shown.box), shown.cells)] = state
    seen = [(thing, present[thing.id]) for thing in facts.things if thing.id in present]
    for name, value in _global(facts, seen, found, shown).items():
        found[name][:] = value
    return found


def _presence(thing: Thing, pixels: float, ids: Pixels) -> bool | None:
    """True if a crop that holds so many of its pixels shows it; None on the border."""
    inside = pixels / max(float((ids == thing.id).sum()), 1.0)
    if inside <= _OUTSIDE:
        return False
    if not thing.visible:
        hidden = thing.fraction < 0.25 or thing.contrast < 8
        return False if hidden else None
    return True if inside >= _INSIDE else None


def _local(found: Targets, thing: Thing, cells: NDArray[np.bool_], present: bool | None) -> None:
    kind = KINDS.index(thing.kind)
    if not thing.visible:
        found["kind"][cells, kind] = np.where(found["kind"][cells, kind] == 1, 1, -1)
        return
    found["kind"][cells, kind] = 1
    if thing.colour is not None:
        found["colour"][cells, 0] = COLOURS.index(thing.colour)
    if thing.kind == "person" and present is not False:
        told = thing.helmet is not None and thing.head_px >= HEAD_PX
        found["person"][cells, 0] = bool(thing.helmet) if told else -1
        found["person"][cells, 1] = -1 if thing.far else bool(thing.vest)
        found["person"][cells, 2] = -1 if thing.far else bool(thing.bag)
        found["person"][cells, 3] = thing.far


def _plate(found: Targets, facts: FrameFacts, id_: int, box: Box, shown: ShownPart) -> None:
    thing = next((thing for thing in facts.things if thing.id == id_), None)
    mask = _mask(box, shown.box)
    if thing is None or not mask.any():
        return
    cells = owned(mask, shown.cells)
    if thing.legible:
        found["legible"][cells] = 1
        if thing.plate_px * shown.cells[0] * _CELL_PX / shown.box[3] < _READABLE_PX:
            found["glyphs"][cells] = -1
            return
        found["plate"][cells] = spell(thing.legible)
        inside = (box[0] - shown.box[0], box[1] - shown.box[1], box[2], box[3])
        for cell, glyph in glyphs_in(inside, thing.legible, shown.cells, (shown.box[3], shown.box[2])):
            found["glyphs"][cell, glyph] = 1
    else:
        found["glyphs"][cells] = -1
        found["legible"][cells] = -1 if thing.plate_px > 0 else 0


def _mask(box: Box, shown: Box) -> NDArray[np.bool_]:
    """A box as a mask over a part of the picture."""
    left, top, width, height = box[0] - shown[0], box[1] - shown[1], box[2], box[3]
    mask = np.zeros((shown[3], shown[2]), bool)
    mask[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
    return mask


def _any(states: Iterable[bool | None]) -> int:
    """1 if one is true, -1 if none is but one is unknown, else 0."""
    known = list(states)
    return 1 if True in known else -1 if None in known else 0


def _and(present: bool | None, fact: bool | None) -> bool | None:
    return False if present is False or fact is False else (True if present and fact else None)


def _global(
    facts: FrameFacts, seen: list[tuple[Thing, bool | None]], found: Targets, shown: ShownPart
) -> dict[str, NDArray[np.int8]]:
    people = [(thing, there) for thing, there in seen if thing.kind == "person"]
    vehicles = [(thing, there) for thing, there in seen if thing.kind in VEHICLES]
    near = [(thing, there) for thing, there in people if not thing.far]
    anything = [
        *(_any(there for thing, there in seen if thing.kind == kind) for kind in KINDS),
        _any(_and(there, thing.bare) for thing, there in near),
        _any(_and(there, None if thing.bare is None else not thing.bare) for thing, there in near),
        _any(_and(there, thing.vest) for thing, there in near),
        _any(_and(there, thing.bag) for thing, there in near),
        _any(_and(there, thing.far) for thing, there in people),
        1 if (found["legible"] == 1).any() else -1 if (found["legible"] == -1).any() else 0,
    ]
    each = [
        *((kind, colour, None) for kind in VEHICLES for colour in COLOURS),
        *((kind, None, place) for kind in VEHICLES for place in _PLACES),
    ]
    vehicle = [
        _any(
            _and(there, thing.kind == kind and colour in (None, thing.colour) and place in (None, thing.place))
            for thing, there in vehicles
        )
        for kind, colour, place in each
    ]
    gate, barrier = (
        -1 if state is None or not shown.whole else int(state) for state in (facts.gate_open, facts.barrier_up)
    )
    return {
        "any": np.array(anything, np.int8),
        "vehicle": np.array(vehicle, np.int8),
        "people": _count(people),
        "vehicles": _count(vehicles),
        "light": np.array([LIGHTS.index(facts.light)], np.int8),
        "rain": np.array([facts.rain], np.int8),
        "ways": np.array([gate, barrier], np.int8),
        "reads": _reads(found),
    }


def _count(things: list[tuple[Thing, bool | None]]) -> NDArray[np.int8]:
    states = [there for _, there in things]
    return np.array([-1 if None in states else min(states.count(True), _MOST)], np.int8)


def _reads(found: Targets) -> NDArray[np.int8]:
    """The plate of a picture that shows exactly one."""
    spelled = {tuple(row) for row in found["plate"] if row[0] >= 0}
    return np.array(spelled.pop(), np.int8) if len(spelled) == 1 else np.full(PLATE_CHARACTERS, -1, np.int8)


def either(first: Targets, second: Targets) -> Targets:
    """Targets of a two-frame segment: yes if either frame says yes, and a choice only where both agree. What a thing is
    like, also where only one frame shows it: who walks on is in a cell for one frame only."""
    found: Targets = {}
    for name, head in HEADS.items():
        one, other = first[name], second[name]
        differing = np.full_like(one, -1)
        if name in _LIKE:
            differing = np.where(one == -1, other, np.where(other == -1, one, -1))
        elif head.classes == 2:
            differing = np.where(np.maximum(one, other) == 1, 1, -1)
        found[name] = np.where(one == other, one, differing).astype(np.int8)
    return found
