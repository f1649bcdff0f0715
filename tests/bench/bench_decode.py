"""CPU of the source at 1080p25 (decode, 2 fps sampling, thumbnail, allocated size), against plain decode.

Run: python -m tests.bench.bench_decode [ROUNDS]      Target: at most 1.11.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from allocator_engine.spec import THUMBNAIL
from pipeline.clock import SystemClock
from pipeline.sources.av import AvSource
from pipeline.sources.base import Sampler
from tests.bench.camera_clips import camera_clip, decode
from tests.bench.report import median, p95, tell

SECONDS = 20


async def sample_and_render(path: Path) -> None:
    async for frame in AvSource(str(path), name="bench", clock=SystemClock()).frames(Sampler(2.0)):
        frame.picture.render(*THUMBNAIL)
        frame.picture.render(256, 448)


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = camera_clip(Path(folder) / "camera.mp4", 1080, 1920, 25, SECONDS, 5_000_000)
        plain, ours = [], []
        for number in range(rounds + 1):
            began = time.process_time()
            decode(path)
            between = time.process_time()
            asyncio.run(sample_and_render(path))
            if number:  # the first round warms up
                plain.append((between - began) / SECONDS * 1000)
                ours.append((time.process_time() - between) / SECONDS * 1000)
    ratios = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
    rows = [
        ("plain PyAV decode", median(plain), p95(plain), 1.0),
        ("source: decode, sample, thumbnail, render", median(ours), p95(ours), median(ratios)),
    ]
    tell(
        "decode 1080p25",
        ("what", "CPU ms per stream second, median", "p95", "ratio, median of pairs"),
        rows,
        {"ratio": median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios), "target": 1.11, "rounds": rounds},
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
