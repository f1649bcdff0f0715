"""The work of a recording's encoder, sizes of packets and motion vectors: change can be told from it without pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av import VideoFrame
from av.error import FFmpegError

from pipeline.errors import ConfigError
from pipeline.sources.av_decoder import VideoPacket

EXPORTS_MOTION = {"flags2": "+export_mvs"}
"""Options of a decoder that gives motion vectors with its pictures."""


@dataclass(frozen=True, slots=True)
class CodecSign:
    """A picture's cost to its encoder: stream seconds from the first picture, bytes of its packet, True for a
    key frame, and the mean length of its motion vectors as a share of the picture's diagonal."""

    pts_s: float
    bytes: int
    key: bool
    motion: float


def read_signs(file: Path) -> tuple[CodecSign, ...]:
    """The signs of a recording's pictures, in order. Raises ConfigError for one that cannot be decoded."""
    try:
        with av.open(f"file:{file}", "r", metadata_errors="replace") as container:
            if not container.streams.video:
                raise ConfigError(f"{file} holds no picture that can be decoded")
            stream = container.streams.video[0]
            stream.codec_context.options = EXPORTS_MOTION
            sizes: dict[int, int] = {}
            frames = []
            for packet in container.demux(stream):
                place = packet.pts if packet.pts is not None else packet.dts  # AVI has no PTS
                if place is not None:
                    sizes[place] = packet.size
                for frame in _decoded(packet):
                    place = frame.pts if frame.pts is not None else frame.dts
                    frames.append((place, frame.key_frame, motion_of(frame)))
            tick_s = float(stream.time_base or 0)
    except FFmpegError as error:
        raise ConfigError(f"{file} cannot be decoded: {error.strerror}") from error
    known = [(pts, key, motion) for pts, key, motion in frames if pts is not None]
    first = known[0][0] if known else 0
    return tuple(CodecSign((pts - first) * tick_s, sizes.get(pts, 0), bool(key), motion) for pts, key, motion in known)


def motion_of(frame: VideoFrame) -> float:
    """The mean length of a picture's motion vectors as a share of its diagonal; 0 where it has none."""
    found = frame.side_data.get("MOTION_VECTORS")
    if found is None:
        return 0.0
    vectors = found.to_ndarray()
    if not len(vectors):
        return 0.0
    scale = np.maximum(vectors["motion_scale"].astype(np.float64), 1.0)
    lengths = np.hypot(vectors["motion_x"] / scale, vectors["motion_y"] / scale)
    areas = vectors["w"].astype(np.float64) * vectors["h"]
    return float((lengths * areas).sum() / (frame.height * frame.width) / np.hypot(frame.height, frame.width))


def _decoded(packet: VideoPacket) -> Iterator[VideoFrame]:
    """The pictures of a packet; none of one that is damaged, as players have it."""
    try:
        for frame in packet.decode():
            if isinstance(frame, VideoFrame):
                yield frame
    except FFmpegError:
        return
