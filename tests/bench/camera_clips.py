"""Clips that cost a decoder what a camera's do: texture, sensor noise, something that moves; no B-frames."""

from pathlib import Path

import av
import numpy as np

NOISE_TILES = 8


def camera_clip(path: Path, height: int, width: int, fps: int, seconds: int, bit_rate: int) -> Path:
    """Write an H.264 MP4 with a key frame every two seconds; a file that is there already is kept."""
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    ground = np.add.outer(np.linspace(40, 160, height), 30 * np.sin(np.arange(width) / 7)).astype(np.int16)
    noise = rng.normal(0, 4, (NOISE_TILES, height, width)).astype(np.int16)
    unfinished = path.with_suffix(".part.mp4")
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"preset": "veryfast", "bf": "0", "sc_threshold": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate, stream.gop_size = bit_rate, 2 * fps
        grey = np.full((height // 2, width), 128, np.uint8)
        for number in range(fps * seconds):
            luma = ground + noise[number % NOISE_TILES]
            left = (number * width // (8 * fps)) % (width - height // 4)
            luma[height // 2 : height * 3 // 4, left : left + height // 4] = 220
            yuv = np.concatenate([np.clip(luma, 0, 255).astype(np.uint8), grey])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(yuv, "yuv420p")))
        container.mux(stream.encode())
    unfinished.rename(path)
    return path


def repeated(clip: Path, path: Path, times: int) -> Path:
    """Write a clip so many times one behind the other, without coding it anew."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        container.metadata.update(source.metadata)
        video = source.streams.video[0]
        assert video.time_base is not None
        stream = container.add_stream_from_template(video)
        packets = [packet for packet in source.demux(video) if packet.dts is not None]
        steps = [packet.dts for packet in packets if packet.dts is not None]
        length = steps[-1] + (packets[-1].duration or 0) - steps[0]  # the first is below 0 where frames are reordered
        for number in range(times):
            for packet in packets:
                if packet.pts is None or packet.dts is None:
                    continue
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts = packet.pts + number * length, packet.dts + number * length
                copy.time_base, copy.is_keyframe, copy.stream = video.time_base, packet.is_keyframe, stream
                container.mux(copy)
    return path


def decode(path: Path) -> int:
    """The plain way: demux and decode every frame with one thread, and look at none. Returns how many there were."""
    frames = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            frames += len(packet.decode())
    return frames
