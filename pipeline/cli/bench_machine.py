"""Measures what a machine does for each stream beside the MLLM: decoding, allocating, committing."""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from allocator_engine.encode import native_tokens
from allocator_engine.fit import FitRules
from allocator_engine.grid import GRIDS
from pipeline.build import allocator_name, build_allocator, build_source
from pipeline.clock import Clock
from pipeline.config.site import SiteConfig, StreamConfig
from pipeline.core.hops import HopRules, hops
from pipeline.core.outcome import Decision, HopRecord
from pipeline.delivery.store import Store
from pipeline.sources.sample_clip import write_sample_clip
from pipeline.types import Answer, Hop, Json, WatchQuery

FPS = 25
TURNS = 3
"""Times the hops are allocated; the first time does not count."""
STREAMS = 50
"""Streams whose decisions a transaction of the store holds, as when so many are watched."""
COMMITS = 40
WATCHES = 8


@dataclass(frozen=True, slots=True)
class MachineReport:
    """Pixels that a core decodes a second, and seconds of a core: of a sampled frame's allocation, and of a hop's
    commit."""

    size: tuple[int, int]
    core_pixels_per_s: float
    allocator: str
    allocate_s: float
    commit_s: float

    def as_json(self) -> dict[str, Json]:
        """For `resadapt plan --measured`."""
        figures = {
            "core_pixels_per_s": self.core_pixels_per_s,
            "allocate_s": self.allocate_s,
            "commit_s": self.commit_s,
        }
        return {"machine": {**figures, "allocator": self.allocator, "size": list(self.size), "cores": os.cpu_count()}}


async def measure_machine(site: SiteConfig, clock: Clock, width: int, height: int, seconds: int) -> MachineReport:
    """Decode a clip of so many seconds, allocate its hops, and commit decisions to a store on this disk."""
    with tempfile.TemporaryDirectory(prefix="resadapt-bench-") as folder:
        clip = Path(folder) / "clip.mp4"
        write_sample_clip(clip, width, height, FPS, seconds)
        began_s = _cpu_s()
        cut = await _decoded(clip, clock)
        decode_s = _cpu_s() - began_s
        allocate_s = await _allocating(site, clock, cut)
        commit_s = _committing(Path(folder) / "store.db", clock)
    pixels = width * height * FPS * seconds
    return MachineReport((width, height), pixels / decode_s, allocator_name(site), allocate_s, commit_s)


async def _decoded(clip: Path, clock: Clock) -> list[Hop]:
    source = build_source("bench", StreamConfig(url=str(clip), hwaccel="none"), clock, 0.0)
    try:
        return [hop async for hop in hops(source, "bench", HopRules())]
    finally:
        await source.close()


async def _allocating(site: SiteConfig, clock: Clock, cut: Sequence[Hop]) -> float:
    rules = FitRules(GRIDS["qwen3_vl"], 2)
    allocator = build_allocator(site, clock)(rules, lambda hops, seconds: None)
    queries = [WatchQuery(f"w{number}", f"Is there anything of kind {number}?") for number in range(WATCHES)]
    began_s, frames = 0.0, 0
    for turn in range(TURNS):
        if turn == 1:
            began_s, frames = _cpu_s(), 0
        for hop in cut:
            grant = native_tokens([frame.size for frame in hop.frames], rules) // 4
            await allocator.allocate(hop, queries, grant)
            frames += len(hop.frames)
    await allocator.close()
    return (_cpu_s() - began_s) / frames


def _committing(file: Path, clock: Clock) -> float:
    store = Store(str(file), clock)
    answers = tuple(Answer(f"w{number}", 0.5, 0.9) for number in range(WATCHES))
    state = json.dumps({f"w{number}@0123456789ab": {"votes": [[1.0, False, True]] * 4} for number in range(WATCHES)})
    began_s = _cpu_s()
    for second in range(COMMITS):
        record = HopRecord(second, second + 1.0, 400, 400, 400, 0, None, ((0.0, 0.5), (0.5, 0.5)), answers, clock.now())
        store.commit([Decision(f"cam{number}", state, (), second + 1.0, record) for number in range(STREAMS)])
    spent_s = _cpu_s() - began_s
    store.close()
    return spent_s / COMMITS / STREAMS


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system
