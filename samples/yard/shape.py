"""The shape of the yard's MLLM (a Qwen3-VL's grid, with few and narrow layers), and the seeds it is trained on."""

from dataclasses import replace

from allocator_engine.grid import GRIDS, Grid
from pipeline.mllm.patches import Normalisation

FAMILY = "qwen3_vl"
HIDDEN = 192
"""Width of a vision token as the text part sees it."""

VISION_LAYERS = 6
"""Layers of the vision part. Those above the lowest SEEING_LAYERS let every cell know what the whole picture shows."""

SEEING_LAYERS = 4

ROWS, COLUMNS = 8, 14
"""Cells of a native picture."""

TRAINING_SEEDS = 800_000
"""Episodes with seeds below are for training, of the MLLM and of allocators; those from here on for figures."""

NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def grid() -> Grid:
    """The token grid of the MLLM: cells of 32 px, of which one may stand alone."""
    published = GRIDS[FAMILY]
    return replace(published, min_pixels=published.cell_px**2)


def vision_fields(layers: int = VISION_LAYERS) -> dict[str, object]:
    """The fields of the vision part's configuration."""
    return {
        "depth": layers,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_heads": 4,
        "out_hidden_size": HIDDEN,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 256,
        # Features of earlier layers would double what is cached in training, and gained nothing.
        "deepstack_visual_indexes": [],
        "initializer_range": 0.02,
    }
