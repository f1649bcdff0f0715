"""A clip that costs a decoder what a camera's does, made on the spot."""

from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

NOISE_TILES = 8
"""Different pictures of sensor noise, in turns."""


def write_sample_clip(path: Path, width: int, height: int, fps: int, seconds: int) -> None:
    """Write H.264 with texture, noise and something that moves, at about a tenth of a bit a pixel; a key frame every
    two seconds, no B frames. Width and height, in px, are even."""
    rng = np.random.default_rng(0)
    ground = np.add.outer(np.linspace(40, 160, height), 30 * np.sin(np.arange(width) / 7)).astype(np.int16)
    noise = rng.normal(0, 4, (NOISE_TILES, height, width)).astype(np.int16)
    grey = np.full((height // 2, width), 128, np.uint8)
    side = height // 4
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate, stream.gop_size = round(width * height * fps * 0.1), 2 * fps
        for number in range(fps * seconds):
            luma = ground + noise[number % NOISE_TILES]
            left = number * width // (8 * fps) % (width - side)
            luma[height // 2 : height // 2 + side, left : left + side] = 220
            picture = np.concatenate([np.clip(luma, 0, 255).astype(np.uint8), grey])
            container.mux(stream.encode(VideoFrame.from_ndarray(picture, "yuv420p")))
        container.mux(stream.encode())
