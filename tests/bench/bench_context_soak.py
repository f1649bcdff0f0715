"""One hour of stream time at full speed through one backend: memory, KV cache and time per hop stay where they are,
prefixes are found again, and nothing is ever answered from stale pixels.

python -m tests.bench.bench_context_soak SPEC [STREAM_SECONDS]     SPEC: transformers:PATH, vllm:PATH, yard or tiny

Every minute the pixels of one segment change while its time stamp stays: its content id has to change, and the answers
have to be those of a stream that never saw the old ones. Last line: JSON; `worst_stale` is the largest difference of a
score there, `moved` the largest change of a score that the new pixels made (without one nothing would be shown).
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import psutil

from allocator_engine.fit import Allocation, FitRules, fit
from pipeline.build import build_mllm
from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.core.context import Context, ContextRules
from pipeline.mllm.base import MLLM
from pipeline.testing import ArrayPicture, frame_at
from pipeline.types import Answers, Frame, Hop, Segment, WatchQuery
from tests.bench.report import median, p95, tell

SIZE = (64, 96)
"""Native (height, width) of the frames in px: small, so that an hour takes minutes."""
WATCHES = [WatchQuery(f"watch-{n}", f"Is there a {thing}?") for n, thing in enumerate(("van", "person", "dog", "gate"))]
SETTLED_S = 300
"""Seconds of stream until which caches may fill."""
MUTATION_S = 60
SAMPLE_S = 20


@dataclass
class Seen:
    """What was sampled: stream second, resident MiB of this process and its children, prompt tokens or blocks kept."""

    at_s: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)

    def settled(self, values: Sequence[float]) -> list[tuple[float, float]]:
        """Behind the time in which caches fill."""
        found = [pair for pair in zip(self.at_s, values, strict=True) if pair[0] >= SETTLED_S]
        return found or list(zip(self.at_s, values, strict=True))


def slope_per_hour(points: Sequence[tuple[float, float]]) -> float:
    """Change per hour of stream of the line through the points, as a part of their mean."""
    if len(points) < 2:
        return 0.0
    at_s, values = np.array(points).T
    return float(np.polyfit(at_s, values, 1)[0] * 3600 / max(values.mean(), 1e-9))


class Stream:
    """A stream of generated frames through one backend."""

    def __init__(self, mllm: MLLM) -> None:
        self._mllm = mllm
        self._rules = FitRules(mllm.info.grid, min(2, mllm.info.max_frames_per_segment), min_tokens_per_segment=1)
        self._ground = cv2.resize(np.random.default_rng(0).integers(40, 200, (4, 6, 3), np.uint8), SIZE[::-1])
        self._names = 0
        self.context = Context.empty("soak", ContextRules())

    def hop(self, second: int, negative: bool = False) -> Hop:
        """The frames of a second; `negative` changes their pixels and nothing else."""
        frames = tuple(self._frame(second + index / 2, negative) for index in range(2))
        return Hop("soak", float(second), second + 1.0, frames)

    def _frame(self, at_s: float, negative: bool) -> Frame:
        rgb = self._ground.copy()
        rgb[16:48, int(at_s * 14) % SIZE[1] :][:, :24] = (220, 30, 40)
        rgb[:8, :8] = int(at_s) % 256, int(at_s) // 256 % 256, round(at_s * 2) % 2 * 255  # no two moments are alike
        return frame_at(at_s, ArrayPicture(255 - rgb if negative else rgb))

    def allocation(self, hop: Hop) -> Allocation:
        return fit([SIZE] * len(hop.frames), [1.0] * len(hop.frames), 1000, self._rules)

    def render(self, second: int, negative: bool = False) -> tuple[Segment, ...]:
        hop = self.hop(second, negative)
        return hop.render(self.allocation(hop))

    async def step(self, second: int) -> Answers:
        self.context = self.context.append(self.render(second), self._mllm.room(self.context))
        return await self._mllm.ask(self.context, WATCHES)

    async def mutate(self, second: int, before: Answers) -> tuple[float, float]:
        """Change the newest pixels under their time stamps; how far the answers are from those of a stream that never
        saw the old ones, and how far from the old ones."""
        fresh = self.render(second, negative=True)
        kept = self.context.segments[: len(self.context.segments) - len(fresh)]
        changed = replace(self.context, segments=(*kept, *fresh))
        assert [one.pts_s for one in changed.segments] == [one.pts_s for one in self.context.segments]
        after = await self._mllm.ask(changed, WATCHES)
        self._names += 1
        name = f"unseen-{self._names}"
        unseen = tuple(replace(one, content_id=f"{name}:{one.content_id}") for one in changed.segments)
        truth = await self._mllm.ask(replace(changed, stream_id=name, segments=unseen), WATCHES)
        self._mllm.forget(name)
        return difference(after, truth), difference(after, before)


def difference(one: Answers, other: Answers) -> float:
    """The largest difference of a score."""
    return max(abs(a.score - b.score) for a, b in zip(one.answers, other.answers, strict=True))


def resident_mib() -> float:
    """Of this process and all that it has started."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            continue
    return total


async def soak(mllm: MLLM, seconds: int) -> dict[str, object]:
    stream, seen = Stream(mllm), Seen()
    walls: list[float] = []
    stale: list[float] = []
    moved: list[float] = []
    hits: list[tuple[float, float]] = []
    began = time.monotonic()
    for second in range(seconds):
        asked = time.monotonic()
        answers = await stream.step(second)
        walls.append(time.monotonic() - asked)
        usage = answers.usage
        hits.append((float(second), usage.cached_tokens / (usage.cached_tokens + usage.prefilled_tokens)))
        if second % MUTATION_S == MUTATION_S - 1:
            off, changed = await stream.mutate(second, answers)
            stale.append(off)
            moved.append(changed)
        if second % SAMPLE_S == SAMPLE_S - 1:
            seen.at_s.append(float(second))
            seen.resident.append(resident_mib())
            seen.kept.append(float(kept_tokens(mllm)))
    resident, kept = seen.settled(seen.resident), seen.settled(seen.kept)
    found = [hit for at_s, hit in hits if at_s >= min(SETTLED_S, seconds // 2)]
    return {
        "stream_s": seconds,
        "wall_s": time.monotonic() - began,
        "times_real_time": seconds / (time.monotonic() - began),
        "restarts": stream.context.epoch,
        "hop_p50_s": median(walls),
        "hop_p95_s": p95(walls),
        "hop_slope_per_hour": slope_per_hour(list(enumerate(walls))[min(SETTLED_S, seconds // 2) :]),
        "resident_mib": resident[-1][1],
        "resident_slope_per_hour": slope_per_hour(resident),
        "kept_tokens_most": max(value for _, value in kept),
        "kept_slope_per_hour": slope_per_hour(kept),
        "hit_ratio": sum(found) / len(found),
        "evicted": getattr(getattr(mllm, "kept", None), "evicted", 0),
        "mutations": len(stale),
        "worst_stale": max(stale, default=0.0),
        "moved": max(moved, default=0.0),
    }


def kept_tokens(mllm: MLLM) -> int:
    """Prompt tokens that the backend keeps of all streams, or counts on being kept."""
    kept = getattr(mllm, "kept", None)
    return kept.tokens if kept is not None else 0


async def main(spec: str, seconds: int) -> None:
    clock = SystemClock()
    # A cache of pictures that is full within the minutes until memory is compared.
    given = {"use": spec, "timeout_s": 600, "kv_cache_gib": 0.25, "picture_cache_gib": 0.03}
    config = parse_site({"mllm": given}).mllm
    mllm = build_mllm(config, clock)
    try:
        await mllm.start()
        summary = await soak(mllm, seconds)
    finally:
        await mllm.close()
    rows = [(name, value) for name, value in summary.items()]
    tell(f"soak of a context: {spec}, {len(WATCHES)} watches", ("what", "value"), rows, {"mllm": spec} | summary)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "yard", int(sys.argv[2]) if len(sys.argv) > 2 else 3600))
