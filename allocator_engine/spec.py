"""The inputs and outputs of an allocator engine."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: name, numpy dtype name, and shape, where None is a size that may differ from call to call."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def check(self, array: NDArray[np.generic]) -> None:
        """Raise ValueError naming the tensor if `array` is not one of these."""
        fits = len(array.shape) == len(self.shape) and all(
            size in (None, actual) for size, actual in zip(self.shape, array.shape, strict=True)
        )
        if array.dtype != np.dtype(self.dtype) or not fits:
            raise ValueError(
                f"tensor {self.name!r} is {array.dtype}{list(array.shape)}; expected {self.dtype}{list(self.shape)}"
            )


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine as a pure function: memory in, memory out, one linear scale per frame.

    `thumbnail` is (height, width) in px of the RGB thumbnails it sees; `scale_range` the least and largest scale it
    can propose, 1.0 = native.
    """

    thumbnail: tuple[int, int]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    scale_range: tuple[float, float]

    def __post_init__(self) -> None:
        low, high = self.scale_range
        if not 0 <= low < high:
            raise ValueError(f"scale_range is {self.scale_range}; expected 0 <= least < largest")
        names = [tensor.name for tensor in (*self.inputs, *self.outputs)]
        if len(set(names)) < len(names):
            raise ValueError(f"tensor names repeat: {', '.join(sorted(names))}; expected each once")

    def check_inputs(self, tensors: Mapping[str, NDArray[np.generic]]) -> None:
        """Raise ValueError unless `tensors` are exactly the inputs."""
        _check(self.inputs, tensors)

    def check_outputs(self, tensors: Mapping[str, NDArray[np.generic]]) -> None:
        """Raise ValueError unless `tensors` are exactly the outputs."""
        _check(self.outputs, tensors)


def _check(specs: tuple[TensorSpec, ...], tensors: Mapping[str, NDArray[np.generic]]) -> None:
    expected = {spec.name for spec in specs}
    if set(tensors) != expected:
        raise ValueError(f"tensors are {sorted(tensors)}; expected {sorted(expected)}")
    for spec in specs:
        spec.check(tensors[spec.name])


THUMBNAIL = (128, 224)
"""Height and width in px of what `STREAM` sees of a frame; the aspect is not kept."""

CELL_ROWS, CELL_COLUMNS = 8, 14
"""Cells of a thumbnail, 16 px high and wide."""

CELLS = CELL_ROWS * CELL_COLUMNS
"""The number of cells, which are counted row by row."""

MEMORY_FEATURES = 64
"""Features that an engine remembers of each cell, and of the readings of each query."""

QUERY_FEATURES = 128
"""Length of a question's embedding."""

GRANT_RANGE = (-8.0, 2.0)
"""Least and largest log2 of granted over native tokens in an engine's input."""

MAX_ELAPSED_S = 60.0
"""Longest gap in seconds between two sampled frames in an engine's input."""

_MEMORY = (None, CELLS, MEMORY_FEATURES)
_READINGS = (None, None, MEMORY_FEATURES)

STREAM = EngineSpec(
    thumbnail=THUMBNAIL,
    inputs=(
        TensorSpec("thumbnails", "uint8", (None, None, *THUMBNAIL, 3)),  # [batch, frames, height, width, RGB]
        TensorSpec("present", "float32", (None, None)),  # 1 for a frame, 0 for padding behind the last one
        TensorSpec("elapsed_s", "float32", (None, None)),  # since the stream's previous sampled frame, 0 for its first
        TensorSpec("queries", "float32", (None, None, QUERY_FEATURES)),
        TensorSpec("asked", "float32", (None, None)),  # 1 for a query, 0 for padding; all 0: the query-free prior
        TensorSpec("grant", "float32", (None,)),  # log2 of granted over native tokens of the hop, in GRANT_RANGE
        TensorSpec("memory", "float32", _MEMORY),  # zeros when a stream begins
        TensorSpec("readings", "float32", _READINGS),  # what each query has read; zeros for one that is new
    ),
    outputs=(
        TensorSpec("mean", "float32", (None, None)),  # of the Beta policy, 0 to 1: where in scale_range
        TensorSpec("concentration", "float32", (None, None)),  # alpha + beta of the Beta policy
        TensorSpec("next_memory", "float32", _MEMORY),
        TensorSpec("next_readings", "float32", _READINGS),
    ),
    scale_range=(0.0, 1.0),
)
"""The configuration `stream`: the newest hop, the memory of earlier ones, and the set of queries.

Causal: no frame sees a later one. The order of queries does not matter, and padding changes nothing.
"""
