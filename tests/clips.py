"""Small test videos, made with PyAV and the same on every run."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.clock import Clock, SystemClock
from pipeline.sources.av import AvSource
from pipeline.sources.settings import SourceConfig

TICK = Fraction(1, 90_000)


def picture(number: int, height: int, width: int) -> np.ndarray:
    """A grey ramp with a white bar that moves right with `number`: uint8 `[height, width, 3]`, RGB."""
    rgb = np.linspace(40, 160, max(width, 1), dtype=np.uint8)[None, :, None].repeat(height, 0).repeat(3, 2).copy()
    left = number * 4 % max(width, 1)
    rgb[:, left : left + max(width // 10, 1)] = 255
    return rgb


def write(
    path: Path,
    times_s: Iterable[float],
    *,
    size: tuple[int, int] = (180, 320),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 25,
    b_frames: int = 0,
    start_ticks: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """A video with one picture at each of `times_s` (seconds, rising). `size` is (height, width) in px."""
    height, width = size
    with av.open(str(path), "w", options=options or {}) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = TICK
        if codec == "libx264":
            stream.codec_context.gop_size = gop
            stream.codec_context.max_b_frames = b_frames
            stream.options = {"preset": "ultrafast", "sc_threshold": "0", "bf": str(b_frames)}
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), "rgb24").reformat(format=pix_fmt)
            frame.time_base, frame.pts = TICK, start_ticks + round(time_s / TICK)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def steady(seconds: float, fps: float = 25.0, start_s: float = 0.0) -> list[float]:
    """The times of a constant frame rate, in seconds."""
    return [start_s + number / fps for number in range(round(seconds * fps))]


def variable(seconds: float) -> list[float]:
    """The times of a rate that swings between 5 and 30 fps, in seconds."""
    times, now = [], 0.0
    while now < seconds:
        times.append(now)
        now += 1 / 30 if int(now) % 2 else 1 / 5
    return times


def resized(path: Path, sizes: Sequence[tuple[int, int]], frames_each: int = 25) -> Path:
    """A bare H.264 stream at 25 fps whose picture size changes in mid-stream, as a camera's does when it is set."""
    parts = []
    for number, size in enumerate(sizes):
        part = write(path.with_suffix(f".{number}.h264"), steady(frames_each / 25), size=size)
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))
    return path


def sound_only(path: Path) -> Path:
    """One second of silence."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48_000)
        for start in range(0, 48_000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def flip_bits(path: Path, count: int, seed: int = 0) -> Path:
    """Damage a file in place: `count` random bits behind its first and before its last tenth."""
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for position in random.integers(len(data) // 10, len(data) * 9 // 10, count):
        data[position] ^= 1 << int(random.integers(8))
    path.write_bytes(data)
    return path


def truncate(path: Path, share: float) -> Path:
    """Cut a file off, in place, behind this share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def av_source(url: Path | str, *, name: str = "clip", clock: Clock = SystemClock(), **options: object) -> AvSource:
    """A source that FFmpeg serves, decoded on the CPU; `options` are the source's own and those of its settings."""
    own = {key: options.pop(key) for key in ("live", "start_s", "shown") if key in options}
    settings = SourceConfig(**{"hwaccel": "none", **options})  # type: ignore[arg-type]
    return AvSource(str(url), settings, name=name, clock=clock, **own)  # type: ignore[arg-type]
