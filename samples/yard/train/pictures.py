"""Pictures with their targets, gathered into what the vision part takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.mllm.patches import patch_grid, patches
from samples.yard.shape import NORMALISATION, grid
from samples.yard.world.targets import HEADS, Pixels, Targets


@dataclass(frozen=True, slots=True)
class Example:
    """One or two frames, uint8 `[frames, height, width, 3]` RGB on the grid, and the targets of their cells."""

    pixels: Pixels
    targets: Targets


@dataclass(frozen=True, slots=True)
class VisionBatch:
    """Patches float32 `[patches, 1536]` and `grid_thw` int64 `[pictures, 3]` in the order of the pictures; targets
    int64 `[cells, slots]` by head."""

    patches: torch.Tensor
    grid_thw: torch.Tensor
    targets: dict[str, torch.Tensor]

    def to(self, device: torch.device) -> "VisionBatch":
        """The same on a device."""
        moved = {name: target.to(device) for name, target in self.targets.items()}
        return VisionBatch(self.patches.to(device), self.grid_thw.to(device), moved)


def turns(step: int, places: int, steps: int) -> list[int]:
    """The item in each of `places` at a step, counted from 0, where each stays for `steps` and they change one after
    the other."""
    return [(step + steps // places * place) // steps for place in range(places)]


def gather(examples: Sequence[Example]) -> VisionBatch:
    """One batch of all examples."""
    the_grid = grid()
    cut = [patches(example.pixels, the_grid, NORMALISATION) for example in examples]
    sizes = [patch_grid(example.pixels.shape[1], example.pixels.shape[2], the_grid) for example in examples]
    stacked = {
        name: torch.from_numpy(np.concatenate([example.targets[name] for example in examples]).astype(np.int64))
        for name in HEADS
    }
    return VisionBatch(torch.from_numpy(np.concatenate(cut)), torch.tensor(sizes), stacked)
