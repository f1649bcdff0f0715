"""Regularisers that keep the policy from spending alike on everything: repeats cost less, but nothing is forgotten for
ever."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from allocator_engine.spec import CELL_COLUMNS, CELL_ROWS

_MOST_CHANGED = 6  # cells of a frame: a person who walks by changes a few


@dataclass(frozen=True, slots=True)
class RegularRules:
    """Weights of the regularisers, and what they ask for.

    A frame that repeats the one before it (mean change of its most changed cells below about `change` of full scale,
    softly over `softness`) should be shown smaller by a factor of exp(`margin`). At least one frame in every
    `refresh_s` seconds should be shown at a scale of `refresh_scale`, so that what stands still is not lost.
    Concentrations above `most_concentration` are pulled back.
    """

    similarity: float = 1e-3
    change: float = 0.03
    softness: float = 0.01
    margin: float = 0.05
    refresh: float = 1e-3
    refresh_s: float = 10.0
    refresh_scale: float = 0.3
    concentration: float = 5e-4
    most_concentration: float = 40.0


def likeness(thumbnails: NDArray[np.uint8], rules: RegularRules) -> NDArray[np.float32]:
    """Likeness of each frame to the one before it, 0 to 1: float32 `[frames]`, 0 for the first.

    `thumbnails` uint8 `[frames, 128, 224, 3]`. Judged by pixels, not by learned features, so that it stays what it is.
    """
    frames, height, width, _ = thumbnails.shape
    grey = thumbnails.mean(axis=3) / 255
    parts = frames, CELL_ROWS, height // CELL_ROWS, CELL_COLUMNS, width // CELL_COLUMNS
    cells = grey.reshape(parts).mean(axis=(2, 4))
    moved = np.sort(np.abs(np.diff(cells.reshape(frames, -1), axis=0)), axis=1)[:, -_MOST_CHANGED:].mean(axis=1)
    alike = 1 / (1 + np.exp(np.clip((moved - rules.change) / rules.softness, -50, 50)))
    return np.asarray(np.concatenate([[0.0], alike]), np.float32)


def regulariser(
    mean: Tensor, concentration: Tensor, alike: Tensor, pts_s: Tensor, rules: RegularRules
) -> tuple[Tensor, dict[str, float]]:
    """The weighted loss, and its parts. `mean`, `concentration` `[group, frames]`; `alike`, `pts_s` `[frames]`."""
    log_scale = torch.log(mean)
    rises = log_scale[:, 1:] - log_scale[:, :-1] + rules.margin * alike[1:]
    similarity = (alike[1:] * functional.relu(rises)).sum() / max(1, rises.numel())
    ages_s = pts_s[:, None] - pts_s[None, :]
    recent = (ages_s >= 0) & (ages_s < rules.refresh_s)
    best = log_scale[:, None, :].masked_fill(~recent, -torch.inf).amax(dim=2)
    whole = pts_s - pts_s[0] >= rules.refresh_s  # before that, a refresh may still come
    refresh = functional.relu(float(np.log(rules.refresh_scale)) - best[:, whole]).sum() / max(
        1, best[:, whole].numel()
    )
    peak = functional.relu(concentration - rules.most_concentration).mean()
    loss = rules.similarity * similarity + rules.refresh * refresh + rules.concentration * peak
    return loss, {"similarity": float(similarity.detach()), "refresh": float(refresh.detach())}
