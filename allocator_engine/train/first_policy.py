"""Where the policy begins: it spends where standing queries are expected to turn, as far as tokens are worth it there.

Taught from what is known of the queries while nothing is asked of the MLLM. Not by imitating decisions: of a turn that
is only likely, the mean of two decisions would be neither. What is maximised is the expected worth of what is shown,
less its tokens at a price that falls as the bucket fills: the network then leaves out what is not worth its price, and
shows what is the larger, the surer it is. It is a start; what is really worth its tokens, CAPO finds out from answers.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVELS = (-5.0, 2.0)
"""Grants that the first policy is taught for: log2 of granted over native tokens of a hop."""

_HALF = 0.2  # the share of native tokens at which a turn is told about half as well as at most
_PRICE = 0.4  # of a hop's native tokens, in turns, where the grant just pays for them


def turns(holds: NDArray[np.int8]) -> NDArray[np.int8]:
    """What each query does in each hop: int8 `[queries, hops]`, 1 if it turns there or in the hop before, 0 if not, -1
    where that is unknown. `holds` int8 `[queries, hops]`: whether each query holds as a hop ends, likewise.

    It turns where it begins or ceases to hold; the hop behind that shows it whole. While it goes on holding, what was
    shown still says so.
    """
    before = np.concatenate([holds[:, :1], holds[:, :-1]], axis=1)
    turned = ((holds == 1) & (before != 1)) | ((holds == 0) & (before == 1))
    steady = (holds == before) & (holds >= 0)
    # Queries that are asked once say nothing about the other hops.
    steady &= (holds >= 0).sum(axis=1, keepdims=True) > 1
    lately = turned.copy()
    lately[:, 1:] |= turned[:, :-1]
    return np.where(lately, 1, np.where(steady, 0, -1)).astype(np.int8)


def needed(turning: NDArray[np.int8]) -> NDArray[np.float32]:
    """How many queries turn in each hop: float32 `[hops]`, NaN where that is known of none. `turning` as `turns` has
    it."""
    known = (turning >= 0).any(axis=0)
    return np.where(known, (turning == 1).sum(axis=0), np.nan).astype(np.float32)


def worth(scale: Tensor, need: Tensor, level: Tensor) -> Tensor:
    """What it is worth to show frames at linear scales (0 to 1), of the arguments' shape, in turns that are told.

    `need` is how many queries turn there, `level` the grant. A turn shown at a share x of its native tokens is told to
    x (1 + h) / (x + h): more and more of it, at a falling rate.
    """
    share = scale.square()
    told = need * share * (1 + _HALF) / (share + _HALF)
    return told - _PRICE * torch.exp2(-level) * share


def forgone(scale: Tensor, need: Tensor, level: Tensor) -> Tensor:
    """The loss: the mean of `-worth` over frames whose need is known."""
    known = ~torch.isnan(need)
    if not bool(known.any()):
        return scale.sum() * 0
    lost: Tensor = -worth(scale[known], need[known], level[known]).mean()
    return lost
