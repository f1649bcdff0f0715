"""The look of a picture in few numbers: enough to find out whether a camera still sees, and sees what it saw.

All of it is measured on the thumbnail that allocators look at, so that nothing is decoded for it.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from allocator_engine.spec import THUMBNAIL
from pipeline.sources.regions import covered
from pipeline.types import Frame

Floats = NDArray[np.float32]
Masks = tuple[tuple[tuple[float, float], ...], ...]

DARK: Final = 24
BRIGHT: Final = 245
"""Luma (of 255) below which a pixel counts as dark, and above which as bright."""

_BLOCKS: Final = (4, 7)
_CELLS: Final = (16, 28)  # of edges; 4 x 4 of them are a block
_LAYOUT: Final = (8, 14)
_SHADES: Final = 15  # 4 bits
_PER_BLOCK: Final = _CELLS[0] // _BLOCKS[0]
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)

LIKE: Final = 0.4
"""Correlation of the edges of two blocks from which on they show the same."""
TEXTURED: Final = 1.5
"""Standard deviation (of shades, 0 to 15) from which on the edges of a block can be recognized."""
SOFTER: Final = 0.5
"""A block with less than this share of the fine detail that it had is blurred."""
LEAST_DETAIL: Final = 8
"""Fine detail, of 255, that a block has to have for its loss to be noticed."""
LEAST_BLOCKS: Final = 5
"""Blocks, of 28, that two views have to be compared by; with fewer nothing is said."""


@dataclass(frozen=True, slots=True)
class PictureLook:
    """One picture: a hash of its thumbnail, the shares of it that are dark and bright, the standard deviation of its
    luma (of 255), and its view: what `compare` needs, as text."""

    picture: str
    dark: float
    bright: float
    contrast: float
    view: str


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two views compared. Of the blocks that can be recognized in the first: the share that show the same in the
    second, and the share that are blurred there; None where there are too few to tell. `layout` is the correlation of
    their light and shade, -1 to 1."""

    same: float | None
    blurred: float | None
    layout: float


def look_at(frame: Frame, masks: Masks = ()) -> PictureLook:
    """Look at a frame; what is masked there does not count."""
    rgb = frame.picture.render(*THUMBNAIL)
    luma = rgb.astype(np.float32) @ _LUMA
    shown = luma
    if masks and not (hidden := covered(masks, *THUMBNAIL)).all():
        shown = luma[~hidden]
        luma[hidden] = shown.mean()
    contrast = float(shown.std())
    slopes = np.zeros_like(luma)
    slopes[:, 1:-1] = np.abs(luma[:, 2:] - luma[:, :-2])
    slopes[1:-1] += np.abs(luma[2:] - luma[:-2])
    edges = _pooled(slopes, _CELLS)
    top = max(_top(edges, 0.98), 1e-3)
    shades = np.minimum(np.round(_SHADES * np.sqrt(edges / top)), _SHADES)
    slight = _detail(luma)
    grain = 3 * float(np.median(slight[::3, ::3]))  # noise, which darkness makes more of
    floors = 0.1 * contrast, max(grain, 0.1 * contrast)
    fine = [_pooled(_above(slight, floor), _BLOCKS) / np.float32(max(contrast, 1.0)) for floor in floors]
    if masks:  # the edge of a mask is no part of the view
        beside = covered(masks, *_BLOCKS)
        for one in fine:
            one[beside] = 0
        shades[beside.repeat(_PER_BLOCK, axis=0).repeat(_PER_BLOCK, axis=1)] = 0
    layout = _pooled(luma, _LAYOUT)
    spread = max(float(np.ptp(layout)), 1e-3)
    shaded = np.round(_SHADES * (layout - layout.min()) / spread)
    detail = np.minimum(np.round(255 * np.stack(fine)), 255).astype(np.uint8).ravel()
    parts = (_packed(shades), detail, _packed(shaded))
    return PictureLook(
        picture=hashlib.sha256(rgb.tobytes()).hexdigest()[:12],
        dark=np.count_nonzero(shown < DARK) / shown.size,
        bright=np.count_nonzero(shown > BRIGHT) / shown.size,
        contrast=contrast,
        view=base64.b64encode(np.concatenate(parts).tobytes()).decode(),
    )


def compare(before: str, after: str) -> Likeness:
    """Compares two looks at a view, an earlier and a later one."""
    (edges, detail, layout), (edges_now, detail_now, layout_now) = _unpacked(before), _unpacked(after)
    deviations, deviations_now = edges.std(axis=1), edges_now.std(axis=1)
    textured = deviations >= TEXTURED
    products = ((edges - edges.mean(axis=1)[:, None]) * (edges_now - edges_now.mean(axis=1)[:, None])).mean(axis=1)
    alike = products / np.maximum(deviations * deviations_now, 1e-6) >= LIKE
    fine = np.asarray((detail >= LEAST_DETAIL).all(axis=0), np.bool_)
    softer = np.asarray((detail_now < SOFTER * detail).all(axis=0), np.bool_)
    shade = layout.std() * layout_now.std()
    even = float(np.mean((layout - layout.mean()) * (layout_now - layout_now.mean())))
    return Likeness(
        same=float(alike[textured].mean()) if textured.sum() >= LEAST_BLOCKS else None,
        blurred=float(softer[fine].mean()) if fine.sum() >= LEAST_BLOCKS else None,
        layout=even / shade if shade > 1e-6 else 0.0,
    )


def recognizable(view: str) -> bool:
    """True if a view has enough texture to be recognized."""
    edges, _, _ = _unpacked(view)
    return bool((edges.std(axis=1) >= TEXTURED).sum() >= LEAST_BLOCKS)


def _pooled(values: Floats, cells: tuple[int, int]) -> Floats:
    """Means over a grid of cells."""
    (rows, columns), (height, width) = cells, values.shape
    down, across = height // rows, width // columns
    sums = values.reshape(rows, down, width).sum(axis=1).reshape(rows, columns, across).sum(axis=2)
    return np.asarray(sums / np.float32(down * across), np.float32)


def _top(values: Floats, share: float) -> float:
    """The value below which a share of them lies, interpolated: `np.quantile`, in a tenth of its time."""
    ordered = np.sort(values, axis=None)
    at = share * (ordered.size - 1)
    below = int(at)
    above = min(below + 1, ordered.size - 1)
    return float(ordered[below] + (at - below) * (ordered[above] - ordered[below]))


def _above(values: Floats, floor: float) -> Floats:
    """By how much values exceed a floor."""
    return np.asarray(np.maximum(values - floor, 0), np.float32)


def _detail(luma: Floats) -> Floats:
    """The size of the Laplacian; 0 at the rim."""
    found = np.zeros_like(luma)
    inner = found[1:-1, 1:-1]
    np.multiply(luma[1:-1, 1:-1], 4, out=inner)
    for beside in (luma[:-2, 1:-1], luma[2:, 1:-1], luma[1:-1, :-2], luma[1:-1, 2:]):
        inner -= beside
    np.abs(inner, out=inner)
    return found


def _packed(shades: Floats) -> NDArray[np.uint8]:
    """Two shades to a byte."""
    pairs = shades.astype(np.uint8).reshape(-1, 2)
    return np.asarray(pairs[:, 0] << 4 | pairs[:, 1], np.uint8)


def _unpacked(view: str) -> tuple[Floats, Floats, Floats]:
    """Edges `[28, 16]` and detail `[2, 28]` of its blocks, with its noise and without, and its layout `[112]`."""
    content = np.frombuffer(base64.b64decode(view), np.uint8)
    edge_bytes, blocks = _CELLS[0] * _CELLS[1] // 2, _BLOCKS[0] * _BLOCKS[1]
    edges = _shades(content[:edge_bytes]).reshape(_BLOCKS[0], _PER_BLOCK, _BLOCKS[1], _PER_BLOCK)
    by_block = edges.transpose(0, 2, 1, 3).reshape(blocks, -1)
    detail = content[edge_bytes : edge_bytes + 2 * blocks].astype(np.float32).reshape(2, blocks)
    return by_block, detail, _shades(content[edge_bytes + 2 * blocks :])


def _shades(content: NDArray[np.uint8]) -> Floats:
    return np.stack([content >> 4, content & 15], axis=1).ravel().astype(np.float32)
