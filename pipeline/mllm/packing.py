"""Pixels of a context, packed without loss: less memory for more work. FFmpeg's Ut Video codec packs pictures of a
camera to between a seventh and a third of their bytes, each by itself, some 60 million pixels a second on a core."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from allocator_engine.resize import Pixels
from pipeline.core.context import Context
from pipeline.types import Segment

_CODEC, _TAG = "utvideo", "ULRG"  # of planar RGB
_MEDIAN = {"pred": "median"}


@dataclass(frozen=True, slots=True)
class PackedPixels:
    """Frames of one size, uint8 `[frames, height, width, 3]` RGB, as packets of a codec without loss. Each `unpack`
    makes them anew."""

    shape: tuple[int, ...]
    packets: tuple[bytes, ...]
    codec_data: bytes

    def unpack(self) -> Pixels:
        """The pixels, each as it was."""
        decoder = _codec("r")
        decoder.height, decoder.width = self.shape[1:3]
        decoder.thread_count, decoder.codec_tag, decoder.extradata = 1, _TAG, self.codec_data
        packets = [*map(Packet, self.packets), None]
        frames = [frame for packet in packets for frame in decoder.decode(packet)]
        return np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in frames])


def pack(pixels: Pixels) -> PackedPixels:
    """The pixels of a segment, packed. Sides are in whole cells of a token grid: FFmpeg's decoder refuses some of what
    its encoder makes of planes whose bytes are no multiple of four. Raises ValueError for such."""
    height, width = pixels.shape[1:3]
    if height * width % 4:
        raise ValueError(f"pictures of {height}x{width} cannot be packed; expected whole cells")
    encoder = _codec("w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "gbrp", Fraction(1)
    encoder.options, encoder.thread_count = _MEDIAN, 1
    frames = [av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="gbrp", threads=1) for picture in pixels]
    packets = [bytes(packet) for frame in (*frames, None) for packet in encoder.encode(frame)]
    return PackedPixels(pixels.shape, tuple(packets), encoder.extradata or b"")


def _codec(mode: Literal["r", "w"]) -> VideoCodecContext:
    codec = av.CodecContext.create(_CODEC, mode)
    assert isinstance(codec, VideoCodecContext)
    return codec


def packed(context: Context) -> Context:
    """The context with the pixels of all its segments packed."""
    if all(isinstance(segment.held, PackedPixels) for segment in context.segments):
        return context
    return replace(context, segments=tuple(map(_packed, context.segments)))


def _packed(segment: Segment) -> Segment:
    return replace(segment, held=pack(segment.held)) if isinstance(segment.held, np.ndarray) else segment
