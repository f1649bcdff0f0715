"""Where the policy begins: it spends where standing queries are expected to turn, as far as tokens are worth it there.

Taught while nothing is asked of the MLLM. The network says how likely each query turns; what that is worth at a price
that falls as the bucket fills has one best scale, and that is what the policy is taught. So it leaves out what is not
worth its price, and shows what is the larger, the surer it is. Taught from the truth instead, it would answer a turn
that is only likely with the mean of two decisions, which is neither. It is a start; what is really worth its tokens,
CAPO finds out from answers.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

LEVELS = (-5.0, 2.0)
"""Grants that the first policy is taught for: log2 of granted over native tokens of a hop."""

_HALF = 0.2  # the share of its native tokens at which a turn is told about half as well as at most
# Of a hop's native tokens, in turns, where the grant just pays for them; and how much its log2 rises per level that the
# grant falls: if it rose faster, the first hop of a turn would leave too little for the second, which confirms it.
_PRICE, _RISE = 0.6, 1.0


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


def worth(share: Tensor, need: Tensor, level: Tensor) -> Tensor:
    """What it is worth to show frames at shares (0 to 1) of their native tokens, in turns; of the arguments' shape.

    `need` is how many queries are expected to turn there, `level` the grant. A turn shown at a share x is told to
    x (1 + h) / (x + h): more and more of it, at a falling rate.
    """
    return need * share * (1 + _HALF) / (share + _HALF) - _price(level) * share


def best_scale(need: Tensor, level: Tensor) -> Tensor:
    """The linear scale whose share of tokens is worth most, where the worth of one more token is its price."""
    share = torch.sqrt(need * _HALF * (1 + _HALF) / _price(level)) - _HALF
    return share.clamp(0.0, 1.0).sqrt()


def imitation(mean: Tensor, need: Tensor, level: Tensor) -> Tensor:
    """Cross entropy of the policy's means (0 to 1) against the best scales, less what it is at the least: 0 where they
    are equal, and with a full gradient also where a mean is close to 0."""
    best = best_scale(need, level)
    lost: Tensor = functional.binary_cross_entropy(mean, best) - functional.binary_cross_entropy(best, best)
    return lost


def _price(level: Tensor) -> Tensor:
    return _PRICE * torch.exp2(-_RISE * level)
