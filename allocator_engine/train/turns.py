"""Where queries turn: what the network is taught to foresee, and what its policy spends on."""

import numpy as np
from numpy.typing import NDArray


def turns(holds: NDArray[np.int8]) -> NDArray[np.int8]:
    """What each query does in each hop: int8 `[queries, hops]`, 1 if it turns there or in the hop before, 0 if not, -1
    where that is unknown. `holds` int8 `[queries, hops]`: whether each query holds as a hop ends, likewise.

    It turns where it holds and last did not, or the other way round, however long it was unknown between; the hop
    behind that shows it whole. While it goes on holding, what was shown still says so.
    """
    known = holds >= 0
    # Of each hop the last one before it in which the query is known, or -1.
    latest = np.maximum.accumulate(np.where(known, np.arange(holds.shape[1]), -1), axis=1)
    earlier = np.concatenate([np.full_like(latest[:, :1], -1), latest[:, :-1]], axis=1)
    before = np.take_along_axis(holds, np.maximum(earlier, 0), axis=1)
    told = known & (earlier >= 0)
    turned = told & (holds != before)
    # What a stream begins with is known by nobody before, and no turn.
    told[:, :1] = known[:, :1] & (known.sum(axis=1, keepdims=True) > 1)
    lately = turned.copy()
    lately[:, 1:] |= turned[:, :-1]
    return np.where(lately, 1, np.where(told, 0, -1)).astype(np.int8)


def any_turns(turned: NDArray[np.int8]) -> NDArray[np.float32]:
    """How likely one query of `turned` int8 `[queries, hops]` is to turn in each hop, if nobody says which: float32
    `[1, hops]`, the part of those that are known, -1 where none is."""
    known = (turned >= 0).sum(axis=0)
    part = (turned == 1).sum(axis=0) / np.maximum(known, 1)
    return np.where(known > 0, part, -1.0).astype(np.float32)[None]
