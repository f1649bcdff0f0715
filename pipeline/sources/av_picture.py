"""Pictures in the decoder's own pixel format, scaled and converted on demand."""

import threading
from fractions import Fraction
from typing import Final

import numpy as np
from av import VideoFrame
from av.filter import Graph
from av.sidedata.sidedata import SideData, SideDataContainer
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from allocator_engine.spec import THUMBNAIL
from pipeline.sources.masking import Masks, blacked_out
from pipeline.sources.shape import UPRIGHT, Display, of_matrix
from pipeline.types import Crop

SCALERS_PER_THREAD: Final = 8
"""Set-up scalers a thread keeps, one per pair of sizes: a hop has few of them. The oldest goes first."""

HD_HEIGHT: Final = 720
"""From this height on, in px, untagged video is BT.709, below BT.601: the convention of broadcast and players."""

CROP_PX: Final = 4
"""Edges of a crop lie on multiples of so many stored px: chroma samples stay whole, in each field of two."""

_UNSPECIFIED_COLORSPACE: Final = 2  # AVCOL_SPC_UNSPECIFIED
_local = threading.local()

_Key = tuple[str, int, int, int, int]


class AvPicture:
    """A decoded frame that stays YUV until a size is known, shown as players show it: upright, with square pixels and,
    where it is interlaced, one moment instead of two. Safe to render from several threads."""

    __slots__ = ("__weakref__", "_colorspace", "_frame", "_interlaced", "_lock", "_shape", "_size", "_thumbnail")

    def __init__(
        self, frame: VideoFrame, aspect: Fraction | None = None, masks: Masks = (), colorspace: int | None = None
    ) -> None:
        """Keeps `frame`, whose pixels are `aspect` times as wide as high; one in GPU memory is downloaded in its own
        format, so that the decoder's pool stays free. What `masks` cover of it, as it is shown, is black from here
        on."""
        self._shape = shape_of(frame, aspect)
        self._size = self._shape.shown(frame.height, frame.width)
        self._interlaced = frame.interlaced_frame
        self._frame = frame if frame.sw_format is None else frame.reformat(format=frame.sw_format.name)
        self._colorspace = colorspace if colorspace is not None else _colorspace(self._frame)
        if masks:
            self._frame = blacked_out(self._frame, masks, self._shape, self._interlaced, self._colorspace)
        self._lock = threading.Lock()
        self._thumbnail: NDArray[np.uint8] | None = None

    @property
    def height(self) -> int:
        """Native height in px, as shown."""
        return self._size[0]

    @property
    def width(self) -> int:
        """Native width in px, as shown."""
        return self._size[1]

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the decoder's format, as `yuv420p`."""
        return self._frame.format.name

    def cropped(self, crop: Crop) -> "AvPicture":
        """The picture of a part of it, with edges at the nearest CROP_PX; nothing is copied, unless its format has
        several components in one plane."""
        corners = [self._shape.origin(point) for point in ((crop.left, crop.top), (crop.right, crop.bottom))]
        (left, right), (top, bottom) = (sorted(shares) for shares in zip(*corners, strict=True))
        x, width = _span(left, right, self._frame.width)
        y, height = _span(top, bottom, self._frame.height)
        with self._lock:
            frame = _filtered(self._frame, "crop", f"{width}:{height}:{x}:{y}")
        return AvPicture(frame, self._shape.aspect, colorspace=self._colorspace)

    def render(self, height: int, width: int) -> NDArray[np.uint8]:
        """Scaled by area averaging in one pass, and then turned: uint8 `[height, width, 3]`, RGB.

        Of an interlaced frame one field is scaled: what moves has one place in it, and no combs. The thumbnail, at
        which several look, is made once.
        """
        if (height, width) != THUMBNAIL:
            return self._rendered(height, width)
        if self._thumbnail is None:
            self._thumbnail = self._rendered(height, width)
        return self._thumbnail.copy()

    def _rendered(self, height: int, width: int) -> NDArray[np.uint8]:
        rows, columns = self._shape.stored(height, width)
        with self._lock:  # libswscale's wrapper writes to the frame's colour tags while it works
            frame = _field(self._frame) if self._interlaced else self._frame
            scaler = _scaler((frame.format.name, frame.height, frame.width, rows, columns))
            scaled = scaler.reformat(
                frame, width=columns, height=rows, format="rgb24", interpolation=Interpolation.AREA, threads=1,
                src_colorspace=self._colorspace,
            )  # fmt: skip
        # A copy: what libswscale wrote has padded rows, and where nothing had to be done it is the frame itself.
        pixels: NDArray[np.uint8] = np.asarray(scaled.to_ndarray(), dtype=np.uint8)
        return np.array(self._shape.turn(pixels), order="C")


def shape_of(frame: VideoFrame, aspect: Fraction | None) -> Display:
    """The shape in which `frame` is shown: by the display matrix of its container or camera (SEI, EXIF), if there is
    one."""
    # Not as frame.side_data: the frame would keep it, and it the frame, until the garbage collector comes by.
    matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # the stubs leave it out
    shape = of_matrix(bytes(matrix)) if isinstance(matrix, SideData) else UPRIGHT
    return shape.with_aspect(aspect)


def _colorspace(frame: VideoFrame) -> int | None:
    if frame.colorspace != _UNSPECIFIED_COLORSPACE:
        return None
    return Colorspace.ITU709 if frame.height >= HD_HEIGHT else Colorspace.ITU601


def _field(frame: VideoFrame) -> VideoFrame:
    """Every second line of an interlaced frame."""
    return _filtered(frame, "field", "type=top")


def _filtered(frame: VideoFrame, name: str, settings: str) -> VideoFrame:
    """The frame through one of FFmpeg's filters that work by stride arithmetic."""
    graph = Graph()
    graph.threads = 1  # starting more takes longer than the filter
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 90_000)
    )
    graph.link_nodes(source, graph.add(name, settings), graph.add("buffersink")).configure()
    graph.push(frame)
    found = graph.pull()
    assert isinstance(found, VideoFrame)
    return found


def _span(first: float, last: float, size: int) -> tuple[int, int]:
    """The first px of a span of shares, and how many they are: CROP_PX at least, where there are so many."""
    begin = round(first * size / CROP_PX) * CROP_PX
    end = size if last == 1 else min(max(round(last * size / CROP_PX) * CROP_PX, begin + CROP_PX), size)
    begin = max(min(begin, end - CROP_PX), 0)
    return begin, end - begin


def _scaler(key: _Key) -> VideoReformatter:
    scalers: dict[_Key, VideoReformatter] | None = getattr(_local, "scalers", None)
    if scalers is None:
        scalers = _local.scalers = {}
    scaler = scalers.pop(key, None) or VideoReformatter()
    scalers[key] = scaler
    while len(scalers) > SCALERS_PER_THREAD:
        del scalers[next(iter(scalers))]
    return scaler
