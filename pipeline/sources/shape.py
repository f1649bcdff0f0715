"""Conversion of a stored picture to the one that players show: turned, mirrored, its pixels made square. Pure."""

import struct
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.settings import MAX_PIXELS

MAX_ASPECT: Final = 16
"""A pixel more than this many times as wide as high, or as high as wide, is a mistake; it is taken for square."""

MAX_RATIO: Final = 200
"""Families of vision encoders refuse pictures whose longer side is more than this many times the shorter one."""

SQUARE: Final = Fraction(1)


@dataclass(frozen=True, slots=True)
class Display:
    """The way from stored pixels to shown ones: rows and columns swapped, then flipped; `aspect` is the width of a
    stored pixel in heights."""

    swapped: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    aspect: Fraction = SQUARE

    def shown(self, height: int, width: int) -> tuple[int, int]:
        """Shown (height, width) of stored ones, in px. Square pixels come of stretching the shorter side of a pixel,
        which loses nothing, unless that would make the picture larger than any stored one may be."""
        stretched = max(self.aspect, 1 / self.aspect) * height * width <= MAX_PIXELS
        if (self.aspect > 1) is stretched:
            width = max(round(width * self.aspect), 1)
        else:
            height = max(round(height / self.aspect), 1)
        return (width, height) if self.swapped else (height, width)

    def stored(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in px to scale stored pixels to, that turned are `height` x `width`."""
        return (width, height) if self.swapped else (height, width)

    def turn(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`[height, width, 3]` pixels as shown: a view."""
        if self.swapped:
            pixels = pixels.transpose(1, 0, 2)
        return pixels[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def origin(self, shown: tuple[float, float]) -> tuple[float, float]:
        """The position in the stored picture of a point of the shown one: x and y in shares of width and height."""
        x, y = shown
        x, y = (1 - x if self.flip_columns else x), (1 - y if self.flip_rows else y)
        return (y, x) if self.swapped else (x, y)

    @property
    def turned_deg(self) -> int:
        """By how much stored pictures are turned, clockwise, before they are mirrored left to right if they are."""
        return (90 if self.swapped else 0) + (180 if self.flip_rows else 0)

    @property
    def mirrored(self) -> bool:
        """True if the pictures are mirrored."""
        return self.swapped ^ self.flip_rows ^ self.flip_columns

    def with_aspect(self, aspect: Fraction | None) -> "Display":
        """The same with pixels of another width; square ones if that is unknown or absurd."""
        if aspect is None or not Fraction(1, MAX_ASPECT) <= aspect <= MAX_ASPECT:
            aspect = SQUARE
        return replace(self, aspect=aspect)


UPRIGHT: Final = Display()


def of_matrix(matrix: bytes) -> Display:
    """The quarter turn and mirroring nearest to a display matrix: nine native int32, row by row, of which the first
    two of the first two rows say where stored x and y point on the screen."""
    try:
        x_right, x_down, _, y_right, y_down = struct.unpack_from("=5i", matrix)
    except struct.error:
        return UPRIGHT
    if abs(x_down) + abs(y_right) > abs(x_right) + abs(y_down):
        return Display(swapped=True, flip_rows=x_down < 0, flip_columns=y_right < 0)
    return Display(flip_rows=y_down < 0, flip_columns=x_right < 0)


def ratio(height: int, width: int) -> float:
    """The longer side over the shorter one."""
    return max(height, width) / max(min(height, width), 1)
