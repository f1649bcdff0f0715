"""CPU of everything in the loop that is not decoding, rendering or the MLLM, against plain decode at 1080p25.

Frames are prepared, rendering copies nothing and the MLLM is null, so what is left is hops, ledger, fit, content ids,
context, judge, outbox (SQLite) and relay (journal).

Run: python -m tests.bench.bench_loop [ROUNDS]      Target: at most 5 % of the decode.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import pipeline.service.supervisor as keeper_module
from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.service.service import Service
from pipeline.sources.base import Notify, Sampler, SourceCounts, ignore
from pipeline.types import Frame
from tests.bench.camera_clips import camera_clip, decode
from tests.bench.report import median, p95, tell

CLIP_S, STREAM_S = 20, 300


class Flat:
    """A picture whose pixels cost nothing to make."""

    height, width = 1080, 1920
    rgb = np.zeros((1080, 1920, 3), np.uint8)

    def render(self, height: int, width: int) -> np.ndarray:
        return self.rgb[:height, :width]


class Prepared:
    """Two frames a second, as fast as they are taken."""

    live = False

    def __init__(self) -> None:
        self.counts = SourceCounts()

    async def frames(self, sampler: Sampler, notify: Notify = ignore) -> AsyncGenerator[Frame, None]:
        at = datetime.now(UTC)
        for number in range(2 * STREAM_S):
            yield Frame(number / 2, at, "file", number, Flat())

    async def close(self) -> None:
        return


async def run_loop(folder: Path) -> None:
    site = parse_site(
        {
            "defaults": {"allocator": "fixed"},
            "streams": {"bench": {"url": "prepared:"}},
            "watches": {f"watch-{i}": {"question": f"is thing {i} in view?"} for i in range(4)},
            "mllm": "null",
            "sinks": {"journal": f"jsonl:{folder / 'events.jsonl'}"},
            "store": f"sqlite:///{folder / 'bench.db'}",
        }
    )
    async with Service(site, SystemClock(), insist=False) as service:
        await service.finished()


def main(rounds: int) -> None:
    keeper_module.build_source = lambda *_: Prepared()  # type: ignore[assignment]
    plain, ours = [], []
    with tempfile.TemporaryDirectory() as scratch:
        path = camera_clip(Path(scratch) / "camera.mp4", 1080, 1920, 25, CLIP_S, 5_000_000)
        for number in range(rounds + 1):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            began = time.process_time()
            decode(path)
            between = time.process_time()
            asyncio.run(run_loop(folder))
            if number:
                plain.append((between - began) / CLIP_S * 1000)
                ours.append((time.process_time() - between) / STREAM_S * 1000)
    ratios = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
    tell(
        "loop without decode, rendering and MLLM",
        ("what", "CPU ms per stream second, median", "p95", "ratio, median of pairs"),
        [
            ("plain PyAV decode 1080p25", median(plain), p95(plain), 1.0),
            ("the rest of the loop, 4 watches", median(ours), p95(ours), median(ratios)),
        ],
        {"ratio": median(ratios), "ratio_max": max(ratios), "target": 0.05, "rounds": rounds},
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
