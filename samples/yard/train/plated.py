"""Pictures of the yard with plates stuck on.

An episode shows a legible plate in one segment of a hundred: too few for the text part to learn seventy-five pairs of
a character and its place. These show one to four plates each, beside whatever else the yard shows.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samples.yard.shape import grid
from samples.yard.train.episodes import Viewing
from samples.yard.train.sheets import camera, painted, random_plate
from samples.yard.world.facts import GLYPH_PX, HEIGHT, FrameFacts, Thing
from samples.yard.world.targets import READABLE_CELLS, Box, Pixels

PICTURES_PER_EPISODE = 6

_COUNTS, _CHANCES = (1, 2, 3, 4), (0.45, 0.3, 0.15, 0.1)
_LARGEST_PX = 20.0
_TRIES = 20
_FIRST_ID = 200
_STANDS, _MOVES_PX = 0.5, (32, 6)  # part of the two-frame pictures in which nothing moves; else how far at most


def plated(viewing: Viewing, rng: np.random.Generator) -> Viewing | None:
    """Some large pictures of an episode that show no plate, with plates stuck on; the facts tell of those alone. None
    where there is no such picture."""
    fit = [
        index
        for index, (pixels, facts) in enumerate(zip(viewing.pixels, viewing.facts, strict=True))
        if pixels.shape[1] >= READABLE_CELLS * grid().cell_px
        and not any(thing.plate_px for frame in facts for thing in frame.things)
    ]
    if not fit:
        return None
    drawn = rng.choice(fit, min(len(fit), PICTURES_PER_EPISODE), replace=False)
    chosen = [(index, *_stuck(viewing.pixels[index], viewing.facts[index], rng)) for index in sorted(drawn.tolist())]
    return Viewing(
        viewing.name,
        tuple(pixels for _, pixels, _ in chosen),
        tuple(viewing.pts_s[index] for index, _, _ in chosen),
        tuple(facts for _, _, facts in chosen),
    )


def _stuck(
    pixels: Pixels, facts: Sequence[FrameFacts], rng: np.random.Generator
) -> tuple[Pixels, tuple[FrameFacts, ...]]:
    """The frames with plates on them."""
    pixels, scale = pixels.copy(), pixels.shape[1] / HEIGHT
    things: list[list[Thing]] = [[] for _ in facts]
    taken = np.zeros(pixels.shape[1:3], bool)
    hardness = rng.uniform(0.3, 1.0)
    for number in range(rng.choice(_COUNTS, p=_CHANCES)):
        text, glyph_px = random_plate(rng), float(np.exp(rng.uniform(np.log(GLYPH_PX), np.log(_LARGEST_PX))))
        plate = painted(text, glyph_px * scale, rng, hardness)
        for frame, box in enumerate(_boxes(plate, len(facts), taken, rng)):
            left, top, width, height = box
            pixels[frame, top : top + height, left : left + width] = plate
            native = (round(left / scale), round(top / scale), round(width / scale), round(height / scale))
            things[frame].append(_thing(_FIRST_ID + number, native, text, glyph_px))
    seen, quality = int(rng.integers(2**31)), hardness * rng.uniform(0, 0.6)
    taken_by = np.stack([camera(one, np.random.default_rng(seen), quality) for one in pixels])
    return taken_by, tuple(replace(one, things=tuple(stuck)) for one, stuck in zip(facts, things, strict=True))


def _boxes(plate: Pixels, frames: int, taken: NDArray[np.bool_], rng: np.random.Generator) -> list[Box]:
    """The box of a plate in each frame, in px of the picture: empty where none was; None if no place was found."""
    height, width = plate.shape[:2]
    for _ in range(_TRIES):
        moved = np.zeros(2) if rng.random() < _STANDS else rng.uniform(-1, 1, 2) * _MOVES_PX
        first = rng.uniform(0, (taken.shape[1] - width, taken.shape[0] - height))
        corners = [(first + moved * frame).round().astype(int) for frame in range(frames)]
        inside = all(0 <= x <= taken.shape[1] - width and 0 <= y <= taken.shape[0] - height for x, y in corners)
        if inside and not any(taken[y : y + height, x : x + width].any() for x, y in corners):
            for x, y in corners:
                taken[y : y + height, x : x + width] = True
            return [(int(x), int(y), width, height) for x, y in corners]
    return []


def _thing(id_: int, box: Box, plate: str, glyph_px: float) -> Thing:
    return Thing(id_, "car", box, 60.0, 1.0, 255.0, "road", plate=plate, plate_px=glyph_px)


def plates_of(file: Path) -> Path:
    """The file of the pictures with plates, beside an episode's."""
    return file.with_name(f"{file.stem}-plates.npz")
