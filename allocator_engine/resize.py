"""Apply an allocation to pictures: the same code in training and in serving."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from allocator_engine.fit import Allocation

Pixels = NDArray[np.uint8]
"""uint8 `[frames, height, width, 3]`, RGB."""


class Picture(Protocol):
    """A decoded picture whose pixels are made on demand."""

    @property
    def height(self) -> int:
        """Native height in px."""
        ...

    @property
    def width(self) -> int:
        """Native width in px."""
        ...

    def render(self, height: int, width: int) -> NDArray[np.uint8]:
        """The whole picture scaled to `height` x `width` px in one pass: uint8 `[height, width, 3]`, RGB,
        contiguous, and the caller's own."""
        ...


def resize(pictures: Sequence[Picture], allocation: Allocation) -> list[Pixels]:
    """Pixels of each segment of `allocation`, in order. `pictures` are the hop's; dropped ones are never rendered."""
    return [
        np.stack([pictures[i].render(segment.height, segment.width) for i in segment.frames])
        for segment in allocation.segments
    ]
