"""The grid's arithmetic against the Qwen processors' own."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from allocator_engine.grid import GRIDS, Grid

PUBLISHED_MINIMUM = {"qwen2_5_vl": 3136, "qwen3_vl": 65_536, "qwen3_5": 65_536}
GRIDS_BY_BOUNDS = {
    f"{family}, {bounds}": grid
    for family, ours in GRIDS.items()
    for bounds, grid in {
        "published bounds": replace(ours, min_pixels=PUBLISHED_MINIMUM[family]),
        "one cell at the least": ours,
        "a small maximum": replace(ours, max_pixels=200 * ours.cell_px**2),
    }.items()
}


def theirs(grid: Grid, height: int, width: int) -> tuple[int, int]:
    size: tuple[int, int] = smart_resize(height, width, grid.cell_px, grid.min_pixels, grid.max_pixels)
    return size


def sizes(grid: Grid) -> Iterator[tuple[int, int]]:
    """Sizes of all shapes that the processors take: many at random, and ties of rounding by ties."""
    rng = np.random.default_rng(0)
    heights = np.exp(rng.uniform(0, np.log(9000), 1500)).astype(int)
    widths = np.clip(heights * np.exp(rng.uniform(-5, 5, 1500)), 1, 9000).astype(int)
    half = grid.cell_px // 2
    sides = [1, half - 1, half, half + 1, 3 * half, 5 * half, 7 * half, 200, 480, 640, 720, 1080, 1920, 2160, 3840]
    every = [*zip(heights.tolist(), widths.tolist(), strict=True), *itertools.product(sides, sides)]
    return (size for size in every if max(size) <= 200 * min(size))


def is_sliver(grid: Grid, size: tuple[int, int]) -> bool:
    """Whether a side is so short that it rounds to no cell at all."""
    return 2 * min(size) <= grid.cell_px


@pytest.mark.parametrize("grid", GRIDS_BY_BOUNDS.values(), ids=GRIDS_BY_BOUNDS)
def test_native_sizes_equal_smart_resize(grid: Grid) -> None:
    common = [size for size in sizes(grid) if not is_sliver(grid, size)]
    assert len(common) > 500
    assert [(size, grid.native(*size)) for size in common] == [(size, theirs(grid, *size)) for size in common]


@pytest.mark.parametrize("grid", GRIDS_BY_BOUNDS.values(), ids=GRIDS_BY_BOUNDS)
def test_native_sizes_of_slivers_equal_smart_resize_too(grid: Grid) -> None:
    slivers = [size for size in sizes(grid) if is_sliver(grid, size)]
    assert len(slivers) > 100
    assert [(size, grid.native(*size)) for size in slivers] == [(size, theirs(grid, *size)) for size in slivers]


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_both_refuse_more_than_200_to_1_and_take_200_to_1(grid: Grid) -> None:
    assert grid.native(100, 20_000) == theirs(grid, 100, 20_000)
    for size in ((100, 20_001), (20_001, 100)):
        with pytest.raises(ValueError):
            grid.native(*size)
        with pytest.raises(ValueError):
            theirs(grid, *size)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_every_size_on_the_grid_stays_as_it_is(grid: Grid) -> None:
    for rows in range(1, 41):
        for columns in range(1, 41):
            size = rows * grid.cell_px, columns * grid.cell_px
            assert grid.native(*size) == theirs(grid, *size) == size
