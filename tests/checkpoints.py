"""Small checkpoints, made once per test session, and pictures to show them."""

import functools
import tempfile
from pathlib import Path

import cv2
import numpy as np

from allocator_engine.grid import Grid
from pipeline.core.context import Context, ContextRules
from pipeline.mllm.transformers.tiny import make_tiny
from pipeline.types import Segment
from samples.yard.train.checkpoint import save, tokenizer, untrained

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "qwen3_5")

_session = tempfile.TemporaryDirectory(prefix="resadapt-tiny-")


@functools.cache
def tiny(family: str = "qwen3_vl") -> Path:
    """The tiny checkpoint of a family. Do not write to it: other tests read it."""
    return make_tiny(Path(_session.name) / family, family)


@functools.cache
def untrained_yard() -> Path:
    """The yard's checkpoint before any training: it knows nothing and says so. Do not write to it."""
    words, folder = tokenizer(), Path(_session.name) / "yard"
    save(untrained(words, 0), words, folder)
    return folder


def segment(grid: Grid, pts_s: float, rows: int = 2, columns: int = 3, frames: int = 1, seed: int = 0) -> Segment:
    """A segment of noise, `rows` x `columns` cells; its frames are half a second apart."""
    pixels = np.random.default_rng((seed, int(pts_s * 10))).integers(
        0, 256, (frames, rows * grid.cell_px, columns * grid.cell_px, 3), dtype=np.uint8
    )
    times = tuple(pts_s + 0.5 * frame for frame in range(frames))
    return Segment(times, pixels, rows * columns, f"{seed}:{times}:{rows}x{columns}")


def moving(grid: Grid, pts_s: float, seed: int = 0) -> Segment:
    """A square that drifts over a plain background, 4 x 6 cells."""
    rng = np.random.default_rng(seed)
    cell = grid.cell_px
    pixels = np.empty((1, 4 * cell, 6 * cell, 3), np.uint8)
    pixels[:] = rng.integers(0, 256, 3)
    left = int(pts_s * cell * 0.7) % (5 * cell)
    pixels[0, cell : 3 * cell, left : left + cell] = rng.integers(0, 256, 3)
    return Segment((pts_s,), pixels, 24, f"moving:{seed}:{pts_s}")


def sign(grid: Grid, pts_s: float, text: str = "", frames: int = 1) -> Segment:
    """A white board that stands in the scene, 4 x 12 cells, with lines of text on it."""
    cell = grid.cell_px
    board = np.full((4 * cell, 12 * cell, 3), 235, np.uint8)
    for number, line in enumerate(text.splitlines(), 1):
        cv2.putText(board, line, (4, number * cell - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    times = tuple(pts_s + 0.5 * frame for frame in range(frames))
    return Segment(times, np.stack([board] * frames), 48, f"sign:{text}:{times}")


def context(*segments: Segment, stream_id: str = "yard") -> Context:
    """A context of these segments."""
    return Context.empty(stream_id, ContextRules(max_s=300.0, keep_s=150.0)).append(segments)
