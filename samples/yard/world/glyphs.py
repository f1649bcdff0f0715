"""Plates: short texts of block letters, drawn at any size."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.yard.world.facts import GLYPHS

RGB = tuple[int, int, int]

_TALL, _WIDE = 56, 34  # px of a character before it is scaled down
_MARGIN = 0.3  # of the character height, around the text
_GAP = 0.12  # of the character height, between characters


@cache
def _glyph(character: str) -> NDArray[np.uint8]:
    """Coverage of one character, uint8 [56, 34], 255 where there is ink."""
    canvas = np.zeros((_TALL, _WIDE), np.uint8)
    (width, height), _ = cv2.getTextSize(character, cv2.FONT_HERSHEY_DUPLEX, 1.0, 2)
    drawn = np.zeros((height + 8, width + 8), np.uint8)
    cv2.putText(drawn, character, (4, height + 4), cv2.FONT_HERSHEY_DUPLEX, 1.0, 255, 3, cv2.LINE_AA)
    rows, columns = np.nonzero(drawn > 64)
    ink = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    width = min(_WIDE, max(10, round(ink.shape[1] * _TALL / ink.shape[0])))
    left = (_WIDE - width) // 2
    canvas[:, left : left + width] = cv2.resize(ink, (width, _TALL), interpolation=cv2.INTER_AREA)
    return canvas


def draw_plate(text: str, glyph_px: float, paper: RGB = (235, 235, 225), ink: RGB = (20, 20, 25)) -> NDArray[np.uint8]:
    """A plate with `text`, its characters `glyph_px` px tall: uint8 `[height, width, 3]` RGB, a dark rim around it.

    Raises ValueError for a character outside GLYPHS.
    """
    if not text or set(text) - set(GLYPHS):
        raise ValueError(f"the plate {text!r} has characters that plates lack; expected some of {GLYPHS}")
    margin, gap = round(_MARGIN * _TALL), round(_GAP * _TALL)
    row = np.full((_TALL, 1), 0, np.uint8)
    for character in text:
        row = np.concatenate([row, _glyph(character), np.zeros((_TALL, gap), np.uint8)], axis=1)
    cover = cv2.copyMakeBorder(row[:, : row.shape[1] - gap], margin, margin, margin, margin, cv2.BORDER_CONSTANT)
    rim = max(2, margin // 4)
    cover[:rim] = cover[-rim:] = 255
    cover[:, :rim] = cover[:, -rim:] = 255
    factor = glyph_px / _TALL
    size = max(1, round(cover.shape[1] * factor)), max(1, round(cover.shape[0] * factor))
    share = cv2.resize(cover, size, interpolation=cv2.INTER_AREA)[..., None].astype(np.float32) / 255
    plate = np.array(paper, np.float32) * (1 - share) + np.array(ink, np.float32) * share
    return plate.round().astype(np.uint8)
