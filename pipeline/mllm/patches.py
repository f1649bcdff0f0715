"""Pixels to the vision encoder's patches, as the Qwen image processors make them, without their resizing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocator_engine.grid import Grid
from allocator_engine.resize import Pixels


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation per channel (RGB) of pixel values scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def patches(pixels: Pixels, grid: Grid, normalisation: Normalisation) -> NDArray[np.float32]:
    """A segment's patches: float32 `[rows * columns * merge**2, 3 * temporal_patch * patch_px**2]`.

    `pixels` is uint8 `[frames, height, width, 3]` RGB on the grid, of one frame (repeated to fill the temporal patch)
    or of `temporal_patch`. Patches of one cell are neighbours; in a patch the order is channel, time, row, column.
    """
    frames, height, width, channels = pixels.shape
    assert frames in (1, grid.temporal_patch), frames
    if frames < grid.temporal_patch:
        pixels = np.repeat(pixels, grid.temporal_patch, axis=0)
    rows, columns, merge, patch = height // grid.cell_px, width // grid.cell_px, grid.merge, grid.patch_px
    cells = pixels.reshape(grid.temporal_patch, rows, merge, patch, columns, merge, patch, channels)
    #          0 time, 1 row of cells, 2 row in cell, 3 y, 4 column of cells, 5 column in cell, 6 x, 7 channel
    ordered = cells.transpose(1, 4, 2, 5, 7, 0, 3, 6)
    # Moved as bytes, which are a quarter of the floats that they become.
    values = np.ascontiguousarray(ordered).reshape(rows * columns * merge * merge, channels, -1).astype(np.float32)
    values /= np.float32(255)
    values -= np.array(normalisation.mean, np.float32)[:, None]
    values /= np.array(normalisation.std, np.float32)[:, None]
    return values.reshape(len(values), -1)


def patch_grid(height: int, width: int, grid: Grid) -> tuple[int, int, int]:
    """The model's `grid_thw` of a segment of `height` x `width` px: one temporal patch, patches down and across."""
    return 1, height // grid.patch_px, width // grid.patch_px
