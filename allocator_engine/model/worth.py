"""What showing a frame is worth, and the share of its native tokens that is worth most.

Of queries only those that turn need a look: while one goes on holding, what was shown still says so. A turn that is
shown at a share x of its native tokens is told to x (1 + h) / (x + h), with h = HALF: more and more of it, at a falling
rate. A token's price rises as the bucket empties. What turns are worth and the price have one best share, in closed
form. It is a start: what is really worth its tokens, CAPO finds out from answers.
"""

import torch
from torch import Tensor
from torch.nn import functional

HALF = 0.5
"""At this share of its native tokens a turn is told three quarters as well as at native size. Were it smaller, hops
that hardly turn would be shown too, so small that what they show is mistaken."""

ENDING = 0.3
"""What it is worth to tell that a query ceased to hold, in beginnings: only the next event hangs on it."""

_PRICE = 0.1  # of a hop's native tokens, in beginnings, where the grant just pays for them
_SOFT = 0.01  # the share is rounded off where it leaves 0: the scale, its root, would rise at once there


def worth_of_turns(turns: Tensor, holds: Tensor) -> Tensor:
    """What it is worth at most to show frames to queries that turn there, and hold then, with these probabilities: in
    beginnings, of the arguments' shape."""
    return turns * (holds + ENDING * (1 - holds))


def best_share(expected: Tensor, level: Tensor) -> Tensor:
    """The share of native tokens, 0 to 1, of which one more token is worth its price: of the arguments' shape.

    `expected` is what the turns there are worth at most, `level` log2 of the granted over the native tokens.
    """
    share = torch.sqrt(expected * HALF * (1 + HALF) / price(level)) - HALF
    return (_SOFT * functional.softplus(share / _SOFT)).clamp(max=1.0)


def price(level: Tensor) -> Tensor:
    """Of a hop's native tokens, in beginnings. It doubles as the grant halves; if it rose faster, a turn's first hop
    would leave too little for the second, which confirms it."""
    return _PRICE * torch.exp2(-level)
