"""CPU that evidence costs a stream of a 1080p25 camera whose watch opens and clears every 20 seconds, and hops lost.

The same recording is watched with and without evidence, in turns: decode, loop, store and the null MLLM are the same,
so the difference is the packets kept, the pictures and the clip written. Three openings a minute are many: a watch that
opens more often has a cooldown.

Run: python -m tests.bench.bench_evidence [ROUNDS]      Target: at most 3 % more CPU, and no hop less.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.service.service import Service
from tests.bench.camera_clips import camera_clip
from tests.bench.report import median, tell

CLIP_S = 60


async def watch(clip: Path, folder: Path, enabled: bool) -> tuple[int, float, float]:
    """Hops decided, events of which evidence was written, and its MiB."""
    site = parse_site(
        {
            "defaults": {"allocator": "motion"},
            "streams": {"bench": {"url": str(clip)}},
            "watches": {"thing": {"question": "is a thing in view?"}},
            "mllm": "null",
            "sinks": {},
            "store": f"sqlite:///{folder / 'bench.db'}",
            "evidence": {"enabled": enabled, "dir": str(folder / "evidence"), "min_free_mib": 0},
            "metrics": {"port": 0},
        }
    )
    async with Service(site, SystemClock(), insist=False) as service:
        await service.finished()
        hops = service.attachments["bench"].run.counts.hops
    written, held = service.metrics.value("evidence_written"), service.metrics.value("evidence_bytes") / 2**20
    return hops, written, held


def main(rounds: int) -> None:
    cpu: dict[bool, list[float]] = {False: [], True: []}
    hops: dict[bool, int] = {}
    written = held = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        clip = camera_clip(Path(scratch) / "camera.mp4", 1080, 1920, 25, CLIP_S, 5_000_000)
        for number in range(rounds + 1):
            for enabled in (False, True):
                folder = Path(scratch) / f"{number}-{enabled}"
                folder.mkdir()
                began = time.process_time()
                hops[enabled], more, bytes_ = asyncio.run(watch(clip, folder, enabled))
                if number:
                    cpu[enabled].append((time.process_time() - began) / CLIP_S * 1000)
                if enabled:
                    written, held = more, bytes_
    ratios = [with_ / without - 1 for without, with_ in zip(cpu[False], cpu[True], strict=True)]
    tell(
        "evidence of a 1080p25 stream, three openings and clearings a minute",
        ("what", "CPU ms per stream second, median", "hops"),
        [("without evidence", median(cpu[False]), hops[False]), ("with", median(cpu[True]), hops[True])],
        {
            "more_cpu": median(ratios),
            "more_cpu_max": max(ratios),
            "target": 0.03,
            "hops_lost": hops[False] - hops[True],
            "written": written,
            "mib": held,
            "rounds": rounds,
        },
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
