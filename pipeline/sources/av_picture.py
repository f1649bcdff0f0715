"""Pictures in the decoder's own pixel format, scaled and converted on demand."""

import threading
from typing import Final

import numpy as np
from av import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

SCALERS_PER_THREAD: Final = 8
"""Set-up scalers a thread keeps, one per pair of sizes: a hop has few of them. The oldest goes first."""

HD_HEIGHT: Final = 720
"""From this height on, in px, untagged video is BT.709, below BT.601: the convention of broadcast and players."""

_UNSPECIFIED_COLORSPACE: Final = 2  # AVCOL_SPC_UNSPECIFIED
_local = threading.local()

_Key = tuple[str, int, int, int, int]


class AvPicture:
    """A decoded frame that stays YUV until a size is known. Safe to render from several threads."""

    __slots__ = ("_frame", "_lock")

    def __init__(self, frame: VideoFrame) -> None:
        """Keeps `frame`; one in GPU memory is downloaded in its own format, so that the decoder's pool stays free."""
        self._frame = frame if frame.sw_format is None else frame.reformat(format=frame.sw_format.name)
        self._lock = threading.Lock()

    @property
    def height(self) -> int:
        """Native height in px."""
        return self._frame.height

    @property
    def width(self) -> int:
        """Native width in px."""
        return self._frame.width

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the decoder's format, as `yuv420p`."""
        return self._frame.format.name

    def render(self, height: int, width: int) -> NDArray[np.uint8]:
        """Scaled by area averaging in one pass: uint8 `[height, width, 3]`, RGB. Any rotation tag is ignored."""
        frame = self._frame
        scaler = _scaler((frame.format.name, frame.height, frame.width, height, width))
        with self._lock:  # libswscale's wrapper writes to the frame's colour tags while it works
            scaled = scaler.reformat(
                frame, width=width, height=height, format="rgb24", interpolation=Interpolation.AREA, threads=1,
                src_colorspace=_colorspace(frame),
            )  # fmt: skip
        # A copy: what libswscale wrote has padded rows, and where nothing had to be done it is the frame itself.
        return np.array(scaled.to_ndarray(), dtype=np.uint8, order="C")


def _colorspace(frame: VideoFrame) -> int | None:
    if frame.colorspace != _UNSPECIFIED_COLORSPACE:
        return None
    return Colorspace.ITU709 if frame.height >= HD_HEIGHT else Colorspace.ITU601


def _scaler(key: _Key) -> VideoReformatter:
    scalers: dict[_Key, VideoReformatter] | None = getattr(_local, "scalers", None)
    if scalers is None:
        scalers = _local.scalers = {}
    scaler = scalers.pop(key, None) or VideoReformatter()
    scalers[key] = scaler
    while len(scalers) > SCALERS_PER_THREAD:
        del scalers[next(iter(scalers))]
    return scaler
