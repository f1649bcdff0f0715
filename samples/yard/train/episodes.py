"""Episodes as the text part meets them: seen once by the finished vision part, kept, and asked about many times."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import nn
from torch.utils.data import Dataset

from pipeline.mllm.patches import patch_grid, patches
from samples.yard.episodes.vision import tokens
from samples.yard.shape import COLUMNS, NORMALISATION, ROWS, grid
from samples.yard.world.codec import surveillance
from samples.yard.world.facts import FrameFacts
from samples.yard.world.scene import Scene
from samples.yard.world.segments import sampled_times_s
from samples.yard.world.targets import Pixels

SECONDS = 32.0
SAMPLE_FPS = 2.0

_SCALES = (0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
_SCALE_CHANCES = (0.25, 0.2, 0.2, 0.15, 0.12, 0.08)
_STYLES = ("uniform", "varied", "native")
_STYLE_CHANCES = (0.35, 0.47, 0.18)
_PAIRS = 0.7  # part of the passes whose segments hold two frames
_FACTS = TypeAdapter(tuple[tuple[FrameFacts, ...], ...])
_CLOCKS = (0.5, 0.25, 0.25)  # frames as 25 fps are sampled, on the half second, or a little late as cameras are
_LATE_S = 0.12


@dataclass(frozen=True, slots=True)
class Looked:
    """A segment as the vision part sees it: float16 `[rows * columns, HIDDEN]`, seconds from the episode's start, and
    the facts of each frame."""

    vision: NDArray[np.float16]
    rows: int
    columns: int
    pts_s: tuple[float, ...]
    facts: tuple[FrameFacts, ...]


@dataclass(frozen=True, slots=True)
class Viewing:
    """One episode, its pictures still to be encoded: `pixels` uint8 `[frames, height, width, 3]` of each segment."""

    name: str
    pixels: tuple[Pixels, ...]
    pts_s: tuple[tuple[float, ...], ...]
    facts: tuple[tuple[FrameFacts, ...], ...]


def cells_at(scale: float) -> tuple[int, int]:
    """Rows and columns of a picture at a linear scale of its native size."""
    return max(1, round(ROWS * scale)), max(1, round(COLUMNS * scale))


def shrunk(picture: Pixels, rows: int, columns: int) -> Pixels:
    """A picture at so many cells."""
    size = columns * grid().cell_px, rows * grid().cell_px
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def sizes(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Cells of `count` segments in a row, as some allocator might have chosen them."""
    style = rng.choice(_STYLES, p=_STYLE_CHANCES)
    if style == "native":
        return [(ROWS, COLUMNS)] * count
    if style == "uniform":
        return [cells_at(float(rng.choice(_SCALES, p=_SCALE_CHANCES)))] * count
    scale = 0.3
    found: list[tuple[int, int]] = []
    for _ in range(count):
        if not found or rng.random() < 0.4:
            scale = float(np.exp(rng.uniform(np.log(0.08), 0)))
        found.append(cells_at(scale))
    return found


def view(seed: int, turn: int) -> Viewing:
    """The episode of a seed, at sizes and in segments drawn for its `turn`."""
    rng = np.random.default_rng((seed, turn))
    scene = Scene(seed, SECONDS)
    looks = [scene.look(time_s) for time_s in _times_s(rng)]
    pictures = surveillance([look.pixels for look in looks], SAMPLE_FPS, seed=seed)
    step = 2 if rng.random() < _PAIRS else 1
    groups = [range(first, first + step) for first in range(0, len(looks), step)]
    chosen = sizes(rng, len(groups))
    shown = zip(groups, chosen, strict=True)
    return Viewing(
        f"{seed}-{turn}",
        tuple(np.stack([shrunk(pictures[i], *size) for i in group]) for group, size in shown),
        tuple(tuple(looks[i].facts.time_s for i in group) for group in groups),
        tuple(tuple(looks[i].facts for i in group) for group in groups),
    )


def _times_s(rng: np.random.Generator) -> list[float]:
    """When the frames of an episode are taken: cameras differ, and with them the time texts."""
    times_s = np.array(sampled_times_s(SECONDS, SAMPLE_FPS))
    clock = rng.choice(3, p=_CLOCKS)
    if clock:
        times_s = np.arange(len(times_s)) / SAMPLE_FPS
    late_s = rng.uniform(0, _LATE_S, len(times_s)) if clock == 2 else 0.0
    found: list[float] = (times_s + late_s).tolist()
    return found


class Viewings(Dataset[Viewing]):
    """Viewings by (seed, turn)."""

    def __init__(self, wanted: Sequence[tuple[int, int]]) -> None:
        self._wanted = wanted

    def __len__(self) -> int:
        return len(self._wanted)

    def __getitem__(self, index: int) -> Viewing:
        return view(*self._wanted[index])


def encode(visual: nn.Module, viewing: Viewing) -> list[Looked]:
    """The viewing as the vision part sees it."""
    the_grid, device = grid(), next(visual.parameters()).device
    found = []
    with torch.inference_mode():
        for pixels, pts_s, facts in zip(viewing.pixels, viewing.pts_s, viewing.facts, strict=True):
            size = patch_grid(pixels.shape[1], pixels.shape[2], the_grid)
            cut = torch.from_numpy(patches(pixels, the_grid, NORMALISATION)).to(device)
            seen = tokens(visual, cut, torch.tensor([size], device=device)).cpu()
            rows, columns = size[1] // 2, size[2] // 2
            found.append(Looked(seen.numpy().astype(np.float16), rows, columns, pts_s, facts))
    return found


def keep(file: Path, looked: Sequence[Looked]) -> None:
    """Write what was seen; a file is either whole or absent."""
    beside = file.with_suffix(".partial")
    with beside.open("wb") as stream:
        np.savez(
            stream,
            vision=np.concatenate([one.vision for one in looked]),
            cells=np.array([(one.rows, one.columns) for one in looked], np.int16),
            pts_s=np.array([one.pts_s for one in looked]),
            facts=np.frombuffer(_FACTS.dump_json(tuple(one.facts for one in looked)), np.uint8),
        )
    beside.replace(file)


def recall(file: Path) -> list[Looked]:
    """Read back what `keep` wrote."""
    with np.load(file) as kept:
        facts = _FACTS.validate_json(kept["facts"].tobytes())
        counts = kept["cells"].astype(int)
        parts = np.split(kept["vision"], np.cumsum(counts.prod(axis=1))[:-1])
        return [
            Looked(vision, int(rows), int(columns), tuple(pts_s.tolist()), fact)
            for vision, (rows, columns), pts_s, fact in zip(parts, counts, kept["pts_s"], facts, strict=True)
        ]
