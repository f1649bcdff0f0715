"""H.264 at surveillance bit rates: pictures through the codec in memory, and files."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipeline.sources.av_decoder import VideoPacket
from pipeline.sources.codec_signs import EXPORTS_MOTION, CodecSign, motion_of
from pipeline.sources.mark import YARD
from samples.yard.world.facts import FPS
from samples.yard.world.scene import Scene

CRF = (26, 30)
"""Constant rate factors of surveillance cameras, first and last."""

Pixels = NDArray[np.uint8]


def pick_crf(seed: int) -> int:
    """The rate factor of a seed's camera."""
    return int(np.random.default_rng((seed, 53)).integers(CRF[0], CRF[1] + 1))


def surveillance(frames: Iterable[Pixels], fps: float, *, seed: int = 0, crf: int | None = None) -> list[Pixels]:
    """Pictures as a camera's H.264 leaves them, [height, width, 3] RGB: as many, of the same size, in order.

    `fps` only tells the rate control how far pictures lie apart. `crf` is drawn from the seed unless given.
    """
    decoder = VideoCodecContext.create("h264", "r")
    decoder.thread_count = 1
    encoder: VideoCodecContext | None = None
    decoded: list[Pixels] = []
    count = 0
    for pixels in frames:
        if encoder is None:
            encoder = _encoder(pixels, fps, pick_crf(seed) if crf is None else crf)
        elif (encoder.height, encoder.width) != pixels.shape[:2]:
            raise ValueError(f"every picture must be {encoder.height} x {encoder.width} px; got {pixels.shape[:2]}")
        frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
        frame.pts, count = count, count + 1
        for packet in encoder.encode(frame):
            decoded += _pictures(decoder.decode(packet))
    if encoder is None:
        return []
    for packet in encoder.encode(None):
        decoded += _pictures(decoder.decode(packet))
    decoded += _pictures(decoder.decode(None))
    return decoded


def signs(frames: Iterable[Pixels], fps: float, *, seed: int = 0) -> list[CodecSign]:
    """The work of a camera's encoder for pictures that lie 1/`fps` seconds apart, as `surveillance` encodes them."""
    decoder = VideoCodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoder.options = EXPORTS_MOTION
    encoder: VideoCodecContext | None = None
    found: list[CodecSign] = []
    sizes: list[int] = []

    def take(packets: "Iterable[VideoPacket | None]") -> None:
        for packet in packets:
            if packet is not None:
                sizes.append(packet.size)
            for frame in decoder.decode(packet):
                found.append(CodecSign(len(found) / fps, sizes[len(found)], bool(frame.key_frame), motion_of(frame)))

    for count, pixels in enumerate(frames):
        encoder = encoder or _encoder(pixels, fps, pick_crf(seed))
        frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
        frame.pts = count
        take(encoder.encode(frame))
    if encoder is not None:
        take([*encoder.encode(None), None])
    return found


def write_video(
    path: Path | str, scene: Scene, *, start_s: float = 0.0, seconds: float | None = None, crf: int | None = None
) -> int:
    """Write a scene as H.264 (MP4 or MKV by suffix), 25 fps, a key frame every 2 s, no B frames; return the frames."""
    last_s = scene.seconds if seconds is None else start_s + seconds
    frames = round((last_s - start_s) * FPS)
    first = scene.look(start_s, facts=False).pixels
    with av.open(str(path), "w") as out:
        out.metadata["comment"] = f"{YARD}, seed {scene.seed}"
        stream = out.add_stream("libx264", rate=FPS, options=_options(pick_crf(scene.seed) if crf is None else crf))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 2 * FPS
        stream.codec_context.max_b_frames = 0
        stream.codec_context.thread_count = 1
        for index in range(frames):
            frame = VideoFrame.from_ndarray(scene.look(start_s + index / FPS, facts=False).pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return frames


def _pictures(frames: list[VideoFrame]) -> list[Pixels]:
    return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]


def _options(crf: int) -> dict[str, str]:
    return {"preset": "veryfast", "crf": str(crf)}


def _encoder(pixels: Pixels, fps: float, crf: int) -> VideoCodecContext:
    rate = Fraction(fps).limit_denominator(1000)
    encoder = VideoCodecContext.create("libx264", "w")
    encoder.height, encoder.width = pixels.shape[:2]
    encoder.pix_fmt = "yuv420p"
    encoder.time_base, encoder.framerate = 1 / rate, rate
    encoder.gop_size = max(1, round(2 * rate)) if rate >= 5 else 250
    encoder.max_b_frames = 0
    encoder.thread_count = 1
    encoder.options = _options(crf)
    return encoder
