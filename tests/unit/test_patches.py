import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from allocator_engine.grid import GRIDS, Grid
from allocator_engine.resize import Pixels
from pipeline.mllm.card import read_card
from pipeline.mllm.patches import Normalisation, patch_grid, patches
from tests.checkpoints import FAMILIES, tiny


def noise(grid: Grid, rows: int, columns: int, frames: int = 1, seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (frames, rows * grid.cell_px, columns * grid.cell_px, 3), dtype=np.uint8)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (3, 2), (7, 11)])
def test_patches_of_an_image_equal_the_processors(family: str, rows: int, columns: int) -> None:
    card = read_card(str(tiny(family)))
    pixels = noise(card.grid, rows, columns)
    theirs = Qwen2VLImageProcessorPil.from_pretrained(card.folder)(list(pixels), return_tensors="np")
    ours = patches(pixels, card.grid, card.normalisation)
    assert ours.dtype == np.float32
    assert ours.shape == theirs["pixel_values"].shape
    assert np.abs(ours - theirs["pixel_values"]).max() < 1e-5
    assert patch_grid(*pixels.shape[1:3], card.grid) == tuple(theirs["image_grid_thw"][0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pair_takes_its_first_half_in_time_from_one_image_and_its_second_from_the_other(family: str) -> None:
    card = read_card(str(tiny(family)))
    pixels = noise(card.grid, 3, 4, frames=2)
    first, second = (
        patches(pixels[i : i + 1], card.grid, card.normalisation).reshape(-1, 3, 2, card.grid.patch_px**2)
        for i in range(2)
    )
    pair = patches(pixels, card.grid, card.normalisation).reshape(-1, 3, 2, card.grid.patch_px**2)
    assert np.array_equal(pair[:, :, 0], first[:, :, 0])
    assert np.array_equal(pair[:, :, 1], second[:, :, 1])


@given(st.sampled_from(sorted(GRIDS)), st.integers(1, 4), st.integers(1, 4), st.integers(1, 2))
def test_patches_hold_every_pixel_once_per_time(family: str, rows: int, columns: int, frames: int) -> None:
    grid = GRIDS[family]
    pixels = noise(grid, rows, columns, frames)
    made = patches(pixels, grid, Normalisation((0.0,) * 3, (1 / 255,) * 3))
    assert made.shape == (4 * rows * columns, 3 * 2 * grid.patch_px**2)
    counted = np.bincount(np.rint(made).astype(np.int64).ravel(), minlength=256)
    assert np.array_equal(counted * frames, 2 * np.bincount(pixels.ravel(), minlength=256))
