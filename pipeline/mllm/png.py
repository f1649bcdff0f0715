"""PNG, the form in which pictures are sent to servers and kept as evidence. Pure."""

from fractions import Fraction

import av
import numpy as np

from allocator_engine.resize import Pixels

_FAST = {"compression_level": "1", "pred": "up"}


def png(pixels: Pixels) -> bytes:
    """A picture, uint8 `[height, width, 3]` RGB, as a PNG file's content."""
    height, width = pixels.shape[:2]
    encoder = av.VideoCodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "rgb24", Fraction(1)
    encoder.options = _FAST
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
