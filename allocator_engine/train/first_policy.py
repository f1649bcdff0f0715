"""Where the policy begins: it looks where a standing query begins or ceases to hold, and saves up for that meanwhile.

Taught from what is known of the queries while nothing is asked of the MLLM. It is a start, not the aim: what is really
worth its tokens, CAPO finds out from the answers.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVELS = (-5.0, 2.0)
"""Grants that the first policy is taught for: log2 of granted over native tokens of a hop."""

_PART, _SPARE_PART = 0.85, 0.3  # of what is granted: for a hop that is needed, and for another that is paid easily
_SAVED_UP = -0.15  # the level from which hops that are not needed are shown too: small buckets hold hardly more
_LEAST = 0.02  # the scale of a hop that is dropped


def needed(holds: NDArray[np.int8]) -> NDArray[np.int8]:
    """Whether each hop is needed: int8 `[hops]`, 1 yes, 0 no, -1 unknown. `holds` int8 `[standing, hops]`: whether each
    query holds as a hop ends, likewise.

    Needed are the first hop and those where a query has begun or ceased to hold, with the one behind it, in which that
    can be seen whole. While it goes on holding, what was shown still says so.
    """
    hops = holds.shape[1]
    # Queries that are asked once say nothing about the other hops.
    known = holds[(holds >= 0).sum(axis=1) > 1]
    if not hops or not len(known):
        return np.full(hops, -1, np.int8)
    before, now = known[:, :-1], known[:, 1:]
    turned = (((now == 1) & (before != 1)) | ((now == 0) & (before == 1))).any(axis=0)
    steady = ((now == before) & (now >= 0)).all(axis=0)
    turns = np.concatenate([[True], turned])
    turns[1:] |= turns[:-1]
    still = np.concatenate([[False], steady])
    return np.where(turns, 1, np.where(still, 0, -1)).astype(np.int8)


def first_scales(need: Tensor, level: Tensor) -> Tensor:
    """Linear scales of frames, of the arguments' shape: `need` is 1 where a frame is needed, `level` its grant."""
    share = torch.exp2(level)
    wanted = torch.sqrt(_PART * share).clamp(max=1.0)
    spare = torch.where(level >= _SAVED_UP, torch.sqrt(_SPARE_PART * share).clamp(max=1.0), _LEAST)
    return torch.where(need == 1, wanted, spare)


def imitation(mean: Tensor, need: Tensor, level: Tensor) -> Tensor:
    """Mean squared distance of the policy's means from the first scales, over frames whose need is known."""
    known = need >= 0
    if not bool(known.any()):
        return mean.sum() * 0
    apart: Tensor = (mean - first_scales(need, level))[known].square().mean()
    return apart
