"""A hop, its queries and its grant become an engine's tensors: the same code in training and serving. numpy only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from allocator_engine.fit import FitRules, fit
from allocator_engine.resize import Picture
from allocator_engine.spec import (
    CELLS,
    GRANT_RANGE,
    MAX_ELAPSED_S,
    MEMORY_FEATURES,
    QUERY_FEATURES,
    STREAM,
    THUMBNAIL,
    EngineSpec,
)

FIRST_HOPS = 2
"""Hops with which a stream begins, shown as large as their grants allow: what is there at all has to be known first,
and the answer to the second confirms that to the first."""

_UNBOUNDED = 2**62  # a grant that pays for everything

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HopView:
    """One stream's newest hop as an engine is shown it.

    `thumbnails` uint8 `[frames, 128, 224, 3]` RGB, `elapsed_s` float32 `[frames]`, `queries` float32 `[queries, 128]`
    (none is fine), `grant` as `grant_level` gives it, `memory` float32 `[112, 64]`, `readings` float32 `[queries, 64]`.
    """

    thumbnails: NDArray[np.uint8]
    elapsed_s: Floats
    queries: Floats
    grant: float
    memory: Floats
    readings: Floats


def no_queries() -> Floats:
    """The embeddings of no question: float32 `[0, 128]`."""
    return np.zeros((0, QUERY_FEATURES), np.float32)


def empty_memory() -> Floats:
    """The memory of a stream that an engine has never seen: float32 `[112, 64]`."""
    return np.zeros((CELLS, MEMORY_FEATURES), np.float32)


def nothing_read(queries: int) -> Floats:
    """The readings of queries that an engine has never been asked: float32 `[queries, 64]`."""
    return np.zeros((queries, MEMORY_FEATURES), np.float32)


def thumbnails(pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    """Pictures as an engine sees them: uint8 `[frames, 128, 224, 3]`, RGB, the aspect not kept."""
    if not pictures:
        return np.zeros((0, *THUMBNAIL, 3), np.uint8)
    return np.stack([picture.render(*THUMBNAIL) for picture in pictures])


def elapsed_s(pts_s: Sequence[float], previous_s: float | None) -> Floats:
    """Seconds between each frame and the one sampled before it, 0 to 60: float32 `[frames]`.

    `previous_s` is the stream time of the last frame of the hop before, or None in the stream's first hop.
    """
    if not pts_s:
        return np.zeros(0, np.float32)
    times_s = np.array([pts_s[0] if previous_s is None else previous_s, *pts_s])
    return np.clip(np.diff(times_s), 0.0, MAX_ELAPSED_S).astype(np.float32)


def native_tokens(sizes: Sequence[tuple[int, int]], rules: FitRules) -> int:
    """Vision tokens of a hop whose frames of these (height, width) in px are all shown at scale 1."""
    return _native_tokens(tuple(sizes), rules)


@lru_cache(maxsize=4096)
def _native_tokens(sizes: tuple[tuple[int, int], ...], rules: FitRules) -> int:
    return fit(sizes, [1.0] * len(sizes), _UNBOUNDED, rules).tokens


def grant_level(grant: int, native: int) -> float:
    """log2 of the hop's grant over its native tokens, within GRANT_RANGE: an engine's input for the budget."""
    if grant <= 0 or native <= 0:
        return GRANT_RANGE[0]
    return min(max(math.log2(grant / native), GRANT_RANGE[0]), GRANT_RANGE[1])


def batch(views: Sequence[HopView]) -> dict[str, NDArray[np.generic]]:
    """The inputs of `STREAM` for hops of several streams, padded to the most frames and the most queries (at least 1).

    Raises ValueError for an empty batch and for a view whose arrays have other shapes or dtypes.
    """
    if not views:
        raise ValueError("a batch of no hops; expected at least one")
    for view in views:
        _check(view)
    hops = len(views)
    frames = max(1, *(len(view.thumbnails) for view in views))
    queries = max(1, *(len(view.queries) for view in views))
    thumbs = np.zeros((hops, frames, *THUMBNAIL, 3), np.uint8)
    present, elapsed = np.zeros((hops, frames), np.float32), np.zeros((hops, frames), np.float32)
    embedded, asked = np.zeros((hops, queries, QUERY_FEATURES), np.float32), np.zeros((hops, queries), np.float32)
    readings = np.zeros((hops, queries, MEMORY_FEATURES), np.float32)
    for index, view in enumerate(views):
        shown, standing = slice(len(view.thumbnails)), slice(len(view.queries))
        thumbs[index, shown], elapsed[index, shown], present[index, shown] = view.thumbnails, view.elapsed_s, 1
        embedded[index, standing], readings[index, standing], asked[index, standing] = view.queries, view.readings, 1
    return {
        "thumbnails": thumbs,
        "present": present,
        "elapsed_s": elapsed,
        "queries": embedded,
        "asked": asked,
        "grant": np.array([view.grant for view in views], np.float32),
        "memory": np.stack([view.memory for view in views]),
        "readings": readings,
    }


def scales(mean: Floats, spec: EngineSpec = STREAM) -> NDArray[np.float64]:
    """The linear scales that a policy's means (0 to 1) stand for. NaN stays NaN, which `fit` drops."""
    low, high = spec.scale_range
    return low + mean.astype(np.float64) * (high - low)


def _check(view: HopView) -> None:
    frames = len(view.thumbnails)
    for name, array, dtype, shape in (
        ("thumbnails", view.thumbnails, np.uint8, (frames, *THUMBNAIL, 3)),
        ("elapsed_s", view.elapsed_s, np.float32, (frames,)),
        ("queries", view.queries, np.float32, (len(view.queries), QUERY_FEATURES)),
        ("memory", view.memory, np.float32, (CELLS, MEMORY_FEATURES)),
        ("readings", view.readings, np.float32, (len(view.queries), MEMORY_FEATURES)),
    ):
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(
                f"{name} of a hop is {array.dtype}{list(array.shape)}; expected {np.dtype(dtype)}{list(shape)}"
            )
