"""Pictures and hops cut to the part that an MLLM is shown."""

import math
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from allocator_engine.resize import Picture
from pipeline.sources.av_picture import AvPicture
from pipeline.sources.synthetic import ArrayPicture
from pipeline.types import Crop, Hop


def cropped(hop: Hop, crop: Crop) -> Hop:
    """The hop with the part of its pictures that `crop` shows."""
    return replace(hop, frames=tuple(replace(one, picture=part_of(one.picture, crop)) for one in hop.frames))


def part_of(picture: Picture, crop: Crop) -> Picture:
    """The part of a picture that `crop` shows: a decoded one stays in its own pixels."""
    return picture.cropped(crop) if isinstance(picture, AvPicture) else _PartOfPicture(picture, crop)


class _PartOfPicture:
    """A part of any picture, which is rendered at native size when its pixels are first wanted."""

    def __init__(self, picture: Picture, crop: Crop) -> None:
        self._whole = picture
        self._rows = _span(crop.top, crop.bottom, picture.height)
        self._columns = _span(crop.left, crop.right, picture.width)

    @property
    def height(self) -> int:
        """See Picture."""
        return self._rows.stop - self._rows.start

    @property
    def width(self) -> int:
        """See Picture."""
        return self._columns.stop - self._columns.start

    def render(self, height: int, width: int) -> NDArray[np.uint8]:
        """See Picture."""
        return self._part.render(height, width)

    @cached_property
    def _part(self) -> ArrayPicture:
        native = self._whole.render(self._whole.height, self._whole.width)
        return ArrayPicture(native[self._rows, self._columns])


def _span(first: float, last: float, size: int) -> "slice[int, int, None]":
    """The px of a span of shares, at least one."""
    begin = min(int(first * size), size - 1)
    return slice(begin, max(min(math.ceil(last * size), size), begin + 1))
