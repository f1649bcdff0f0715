"""Where the policy begins: it spends on hops in which a standing query holds or has just ceased to hold.

Taught from what is known of the queries while nothing is asked of the MLLM. It is a start, not the aim: what is really
worth its tokens, CAPO finds out from the answers.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVELS = (-5.0, 2.0)
"""Grants that the first policy is taught for: log2 of granted over native tokens of a hop."""

_PART = 0.6  # of what is granted, for a hop that is needed
_PLENTY = 1.5  # the level from which everything may be shown at native size
_LEAST = 0.06  # the scale of a hop that is not needed, where grants are short


def needed(holds: NDArray[np.int8]) -> NDArray[np.int8]:
    """Whether each hop is needed: int8 `[hops]`, 1 yes, 0 no, -1 unknown. `holds` int8 `[standing, hops]`: whether each
    query holds as a hop ends, likewise."""
    before = np.concatenate([np.zeros_like(holds[:, :1]), holds[:, :-1]], axis=1)
    yes = ((holds == 1) | (before == 1)).any(axis=0)
    # Queries of which nothing is ever known, as those about the past, say nothing about any hop.
    known = holds[(holds >= 0).any(axis=1)]
    no = (known == 0).all(axis=0) if len(known) else np.zeros(holds.shape[1], bool)
    return np.where(yes, 1, np.where(no, 0, -1)).astype(np.int8)


def first_scales(need: Tensor, level: Tensor) -> Tensor:
    """Linear scales of frames, of the arguments' shape: `need` is 1 where a frame is needed, `level` its grant."""
    wanted = torch.sqrt(_PART * torch.exp2(level)).clamp(max=1.0)
    quiet = (level / _PLENTY).clamp(_LEAST, 1.0)
    return torch.where(need == 1, torch.maximum(wanted, quiet), quiet)


def imitation(mean: Tensor, need: Tensor, level: Tensor) -> Tensor:
    """Mean squared distance of the policy's means from the first scales, over frames whose need is known."""
    known = need >= 0
    if not bool(known.any()):
        return mean.sum() * 0
    apart: Tensor = (mean - first_scales(need, level))[known].square().mean()
    return apart
