"""Rendered pictures as allocators and the MLLM get them: scaled on demand."""

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.yard.world.codec import Pixels


class RenderedPicture:
    """A picture of the yard, uint8 `[height, width, 3]` RGB, scaled by OpenCV's area averaging, on whose last digit
    kept figures hang."""

    __slots__ = ("_pixels",)

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    @property
    def height(self) -> int:
        """Native height in px."""
        return int(self._pixels.shape[0])

    @property
    def width(self) -> int:
        """Native width in px."""
        return int(self._pixels.shape[1])

    def render(self, height: int, width: int) -> NDArray[np.uint8]:
        """See Picture."""
        scaled = cv2.resize(self._pixels, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(scaled, dtype=np.uint8)
