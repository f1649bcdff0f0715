"""Transitions of queries: what the network is taught to foresee, and what its policy spends on."""

import numpy as np
from numpy.typing import NDArray


def transitions(holds: NDArray[np.int8]) -> NDArray[np.int8]:
    """Hops with a transition of each query: int8 `[queries, hops]`, 1 in that hop and the next, 0 if not, -1 where that
    is unknown. `holds` int8 `[queries, hops]` is 1 where a query holds as a hop ends, likewise.

    A transition is where a query holds and last did not, or the other way round, however long it was unknown between;
    the hop behind that shows it whole. While it goes on holding, what was shown still proves it.
    """
    known = holds >= 0
    # For each hop the last one before it in which the query is known, or -1.
    latest = np.maximum.accumulate(np.where(known, np.arange(holds.shape[1]), -1), axis=1)
    earlier = np.concatenate([np.full_like(latest[:, :1], -1), latest[:, :-1]], axis=1)
    before = np.take_along_axis(holds, np.maximum(earlier, 0), axis=1)
    certain = known & (earlier >= 0)
    changed = certain & (holds != before)
    # The state in which a stream begins is known by nobody before, and no transition.
    certain[:, :1] = known[:, :1] & (known.sum(axis=1, keepdims=True) > 1)
    lately = changed.copy()
    lately[:, 1:] |= changed[:, :-1]
    return np.where(lately, 1, np.where(certain, 0, -1)).astype(np.int8)


def any_transition(changed: NDArray[np.int8]) -> NDArray[np.float32]:
    """Probability of a transition in each hop for one query of `changed` int8 `[queries, hops]`, whichever it is:
    float32 `[1, hops]`, the part of those that are known, -1 where none is."""
    known = (changed >= 0).sum(axis=0)
    part = (changed == 1).sum(axis=0) / np.maximum(known, 1)
    return np.where(known > 0, part, -1.0).astype(np.float32)[None]
