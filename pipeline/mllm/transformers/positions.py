"""M-RoPE positions, by hand: the model's own derivation is wrong on a cache that already holds a prefix.

Text at p has the position (p, p, p). A picture of rows x columns cells that begins at p has (p, p + row, p + column),
row-major, and what follows it continues at p + max(rows, columns). Positions depend on the prefix only, so a prompt
can be appended to. Equal to `get_rope_index` of the Qwen families (transformers) for pictures of one temporal patch.
"""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Run: TypeAlias = int | tuple[int, int]
"""A run of that many text tokens, or a picture of (rows, columns) cells."""


def positions(runs: Iterable[Run], start: int = 0) -> tuple[NDArray[np.int64], int]:
    """Positions int64 `[3, tokens]` (time, height, width) of the runs, and the position that comes next."""
    columns = [np.empty((3, 0), np.int64)]
    for run in runs:
        if isinstance(run, int):
            columns.append(np.broadcast_to(np.arange(start, start + run), (3, run)))
            start += run
        else:
            columns.append(_picture(*run) + start)
            start += max(run)
    return np.concatenate(columns, axis=1), start


def _picture(rows: int, columns: int) -> NDArray[np.int64]:
    y, x = np.indices((rows, columns), dtype=np.int64)
    return np.stack([np.zeros_like(y), y, x]).reshape(3, -1)
