"""The worth of showing a frame, and the share of its native tokens that is worth most.

Only transitions of queries need a look: while one goes on holding, what was shown still proves it. A transition that
is shown at a share x of its native tokens is recognised to x (1 + h) / (x + h), with h = HALF: more and more, at a
falling rate. A token's price rises as the bucket empties. The worth of transitions and the price have one best share,
in closed form. It is a start: what is really worth its tokens, CAPO finds out from answers.
"""

import torch
from torch import Tensor
from torch.nn import functional

HALF = 0.5
"""The share of native tokens at which a transition is recognised three quarters as well as at native size. Were it
smaller, hops in which hardly one is likely would be shown too, so small that they are mistaken."""

ENDING = 0.3
"""The worth of recognising that a query ceased to hold, in beginnings: only the next event hangs on it."""

_PRICE = 0.1  # of a hop's native tokens, in beginnings, where the grant just pays for them
_SOFT = 0.01  # the share is rounded off where it leaves 0: the scale, its root, would rise at once there


def worth_of_transitions(changes: Tensor, holds: Tensor) -> Tensor:
    """The worth, at most, of showing frames in which queries have a transition, and hold then, with these
    probabilities: in beginnings, of the arguments' shape."""
    return changes * (holds + ENDING * (1 - holds))


def best_share(expected: Tensor, level: Tensor) -> Tensor:
    """The share of native tokens, 0 to 1, of which one more token is worth its price: of the arguments' shape.

    `expected` is the worth of the transitions there at most, `level` log2 of the granted over the native tokens.
    """
    share = torch.sqrt(expected * HALF * (1 + HALF) / price(level)) - HALF
    return (_SOFT * functional.softplus(share / _SOFT)).clamp(max=1.0)


def price(level: Tensor) -> Tensor:
    """The price of a hop's native tokens, in beginnings. It doubles as the grant halves; if it rose faster, a
    transition's first hop would leave too little for the second, which confirms it."""
    return _PRICE * torch.exp2(-level)
