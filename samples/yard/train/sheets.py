"""Sheets of plates: pictures filled with nothing else, so that characters are learned before scenes are."""

import cv2
import numpy as np

from samples.yard.train.pictures import Example
from samples.yard.world.facts import GLYPH_PX, GLYPHS
from samples.yard.world.glyphs import draw_plate
from samples.yard.world.targets import PLATE_CHARACTERS, Box, Pixels, Targets, glyphs_in, owned, spell, unknown

ROWS, COLUMNS = 4, 7
"""Cells of a sheet."""

CELL = 32
_TRIES = 24
_LARGE_PX = 16.0


def sheet(rng: np.random.Generator, hardness: float = 1.0) -> Example:
    """One sheet of about a dozen plates that do not overlap, in front of something out of focus.

    At `hardness` 0 they are large, clean and in rows, so that each character is always met at the same places of its
    cells; at 1 of any legible size, anywhere, and seen through a poor camera.
    """
    canvas = background(rng, hardness)
    taken = np.zeros(canvas.shape[:2], bool)
    found = unknown(ROWS * COLUMNS)
    found["legible"][:] = 0
    found["glyphs"][:] = 0
    smallest = rng.uniform(_LARGE_PX + hardness * (GLYPH_PX - 1 - _LARGE_PX), _LARGE_PX)
    anywhere = rng.random() < hardness
    for middle in _anywhere(rng) if anywhere else _rows(rng, hardness):
        text = random_plate(rng)
        plate = painted(text, rng.uniform(smallest, smallest + 6 * hardness), rng, hardness)
        box = _box(middle, plate)
        place = np.s_[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
        if taken[place].any():
            continue
        taken[place] = True
        canvas[place] = plate
        _note(found, (ROWS * CELL, COLUMNS * CELL), box, text)
    return Example(camera(canvas, rng, hardness)[None], found)


def _anywhere(rng: np.random.Generator) -> list[tuple[float, float]]:
    """Middles (x, y) in px."""
    return [(rng.uniform(0, COLUMNS * CELL), rng.uniform(0, ROWS * CELL)) for _ in range(_TRIES)]


def _rows(rng: np.random.Generator, hardness: float) -> list[tuple[float, float]]:
    """Middles on the border between two cells, moved a little."""
    x, y = np.meshgrid(np.arange(1, COLUMNS, 2) * CELL, (np.arange(ROWS) + 0.5) * CELL)
    moved = rng.uniform(-CELL / 2, CELL / 2, (2, x.size)) * hardness
    return list(zip((x.ravel() + moved[0]).tolist(), (y.ravel() + moved[1]).tolist(), strict=True))


def _box(middle: tuple[float, float], plate: Pixels) -> Box:
    """The box of a plate, kept inside the sheet."""
    height, width = plate.shape[:2]
    left = int(np.clip(middle[0] - width / 2, 0, COLUMNS * CELL - width))
    top = int(np.clip(middle[1] - height / 2, 0, ROWS * CELL - height))
    return left, top, width, height


def _note(found: Targets, size: tuple[int, int], box: Box, text: str) -> None:
    """Tell the cells of a plate what it reads. A cell that two plates share is asked for neither."""
    mask = np.zeros(size, bool)
    mask[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = True
    cells = owned(mask, (ROWS, COLUMNS))
    shared = cells & (found["legible"][:, 0] != 0)
    found["plate"][cells] = spell(text)
    found["legible"][cells] = 1
    found["plate"][shared] = -1
    for cell, glyph in glyphs_in(box, text, (ROWS, COLUMNS), size):
        found["glyphs"][cell, glyph] = 1


def random_plate(rng: np.random.Generator) -> str:
    """Two or three characters."""
    return "".join(rng.choice(list(GLYPHS), rng.integers(2, PLATE_CHARACTERS + 1)))


def painted(text: str, glyph_px: float, rng: np.random.Generator, hardness: float) -> Pixels:
    """A plate with `text`, cleaner the less `hardness` (0 to 1) it has: uint8 `[height, width, 3]` RGB."""
    light, dark = 240 - hardness * rng.uniform(0, 90), hardness * rng.uniform(0, 70)
    paper = (int(light), int(light), int(light * (1 - hardness * rng.uniform(0, 0.4))))
    return draw_plate(text, glyph_px, paper, (int(dark),) * 3)


def background(rng: np.random.Generator, hardness: float) -> Pixels:
    """Something out of focus, of a sheet's size."""
    coarse = rng.integers(0, 256, (rng.integers(2, 12), rng.integers(2, 16), 3), np.uint8)
    soft = cv2.resize(coarse, (COLUMNS * CELL, ROWS * CELL), interpolation=cv2.INTER_CUBIC)
    gray = np.full_like(soft, rng.integers(60, 160))
    return np.asarray(cv2.addWeighted(soft, hardness * rng.uniform(0.2, 0.9), gray, 0.5, 0), np.uint8)


def camera(picture: Pixels, rng: np.random.Generator, hardness: float) -> Pixels:
    """Exposure, blur, sensor noise and compression."""
    seen = picture.astype(np.float32) * (1 + hardness * rng.uniform(-0.5, 0.1)) + hardness * rng.uniform(-10, 15)
    if rng.random() < 0.5 * hardness:
        seen = np.asarray(cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.3, 0.8)), np.float32)
    noise = rng.standard_normal(seen.shape, np.float32) * np.float32(hardness * rng.uniform(0, 8))
    clipped = np.clip(seen + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.6 * hardness:
        _, coded = cv2.imencode(".jpg", clipped, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 95))])
        clipped = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return clipped
