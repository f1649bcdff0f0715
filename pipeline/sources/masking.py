"""Masks: parts of a picture that nobody may see, black in the decoder's own pixels before anything else looks."""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, TypeAlias, cast

import numpy as np
from av import VideoFormat, VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from pipeline.sources.regions import Point, covered
from pipeline.sources.shape import Display

Masks: TypeAlias = tuple[tuple[Point, ...], ...]

FIELDS: Final = 2
"""Chroma lines of interlaced pictures belong to fields in turn, so that twice as many rows hang together."""

_KEPT_BLACKS: Final = 16
_OTHERWISE: Final = "rgb24"
_IRREGULAR: Final = {"uyyvyy411"}  # six bytes for four pixels
_MIXED_PX: Final = 4  # pixels that conversions of odd formats mix, at most
_BITS: Final = 8
_RULER: Final = 256  # px, of a picture on which formats are measured


def blacked_out(
    frame: VideoFrame, masks: Masks, shape: Display, interlaced: bool, colorspace: int | None
) -> VideoFrame:
    """`frame` with black where it is masked; `shape` says how it is shown, which is what masks are drawn on.

    Pixels that share their colour with a masked one go with it, so that nothing of what is behind a mask is left. The
    decoder's own picture is not written to: later pictures are built on it. One in a format whose samples are no whole
    bytes is converted to RGB first.
    """
    plain = _is_plain(frame)
    if not plain:
        frame = frame.reformat(format=_OTHERWISE, src_colorspace=colorspace, interpolation=Interpolation.POINT)
    frame.make_writable()
    layout = _layout(frame.format.name)
    tall = max(plane.down for plane in layout) * (FIELDS if interlaced else 1)
    wide = max(plane.across for plane in layout)
    if plain:
        hidden = _hidden(masks, shape, frame.height, frame.width, tall, wide)
    else:  # converting has mixed neighbours
        hidden = _grown(_hidden(masks, shape, frame.height, frame.width, _MIXED_PX, _MIXED_PX))
        tall = wide = _MIXED_PX
    black = _black(frame.format.name, frame.height, frame.width, int(frame.color_range))
    for plane, about, content in zip(frame.planes, layout, black, strict=True):
        target = np.frombuffer(_bytes_of(plane), np.uint8).reshape(-1, plane.line_size)
        cells = hidden.repeat(tall // about.down, axis=0).repeat(wide // about.across * about.pixel_bytes, axis=1)
        rows, columns = (min(sizes) for sizes in zip(target.shape, content.shape, cells.shape, strict=True))
        np.copyto(target[:rows, :columns], content[:rows, :columns], where=cells[:rows, :columns])
    return frame


def black_out(pixels: NDArray[np.uint8], masks: Masks) -> None:
    """The same for RGB pixels as they are shown: uint8 `[height, width, 3]`, which are written to."""
    if masks:
        pixels[covered(masks, *pixels.shape[:2])] = 0


def _hidden(masks: Masks, shape: Display, height: int, width: int, tall: int, wide: int) -> NDArray[np.bool_]:
    """The hidden cells of `tall` x `wide` px of a stored picture; those at its edges may reach over it."""
    rows, columns = -(-height // tall), -(-width // wide)
    across, down = width / (columns * wide), height / (rows * tall)
    stored = tuple(tuple((x * across, y * down) for x, y in map(shape.origin, points)) for points in masks)
    return covered(stored, rows, columns)


def _grown(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cells and all their neighbours."""
    padded = np.pad(cells, 1)
    rows, columns = cells.shape
    around = [padded[down : down + rows, across : across + columns] for down in range(3) for across in range(3)]
    return np.asarray(np.logical_or.reduce(around), np.bool_)


def _bytes_of(plane: VideoPlane) -> memoryview:
    """A plane as the buffer that it is, which its stub does not say."""
    return cast("memoryview", plane)


def _is_plain(frame: VideoFrame) -> bool:
    """True if each sample has bytes of its own, in rows from the top, as planes or as pixels side by side."""
    form = frame.format
    if form.is_bit_stream or form.has_palette or form.is_bayer or form.name in _IRREGULAR:
        return False
    return all(plane.line_size > 0 for plane in frame.planes)


@dataclass(frozen=True, slots=True)
class _PlaneLayout:
    """Pixels of the picture per sample of a plane, down and across, and bytes of a sample with what lies beside it."""

    down: int
    across: int
    pixel_bytes: int


@cache
def _layout(name: str) -> tuple[_PlaneLayout, ...]:
    """The planes of a format. Where several components share the only plane, those with fewer samples than the others
    make their pixels hang together."""
    form = VideoFormat(name, _RULER, _RULER)
    planes = sorted({one.plane for one in form.components})
    if len(planes) == 1:
        across = _RULER // min(one.width for one in form.components)
        return (_PlaneLayout(1, across, across * form.padded_bits_per_pixel // _BITS),)
    found = []
    for plane in planes:
        parts = [one for one in form.components if one.plane == plane]
        pixel_bytes = sum(-(-one.bits // _BITS) for one in parts)
        found.append(_PlaneLayout(_RULER // parts[0].height, _RULER // parts[0].width, pixel_bytes))
    return tuple(found)


@lru_cache(_KEPT_BLACKS)
def _black(name: str, height: int, width: int, color_range: int) -> tuple[NDArray[np.uint8], ...]:
    """Planes of a black picture in a format: rows of bytes, one for each."""
    dark = VideoFrame.from_ndarray(np.zeros((2, 2, 3), np.uint8), "rgb24")
    frame = dark.reformat(
        width=width, height=height, format=name, dst_color_range=color_range or None, interpolation=Interpolation.POINT
    )
    return tuple(
        np.frombuffer(_bytes_of(plane), np.uint8).reshape(-1, plane.line_size).copy() for plane in frame.planes
    )
