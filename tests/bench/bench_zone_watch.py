"""Whether a watch about a zone is answered better where its stream is cropped, at equal rates of tokens: is there
a person in each of six zones of PETS, in the main loop, by a detector, against boxes that people drew.

Run: TEST_REAL_FOOTAGE=FOLDER python -m tests.bench.bench_zone_watch
Each zone is the watch of a stream of its own, whose frames the allocator `motion` sizes, with `crop: zones` and with
`crop: none`. An answer is right if it is what is true of the newest picture of its hop. Differences have 95 % intervals
over blocks of ten seconds.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import av
import numpy as np

from allocator_engine.encode import native_tokens
from allocator_engine.evaluate.tasks import f1
from pipeline.allocators.motion import MotionAllocator
from pipeline.clock import SystemClock
from pipeline.config.mllm import DetectorConfig
from pipeline.core.budget import Ledger, Rate
from pipeline.core.context import Context, ContextRules
from pipeline.core.cropping import with_crop
from pipeline.core.hops import HopRules
from pipeline.core.state import StreamRun
from pipeline.lab.exam import Journal, Recording
from pipeline.lab.real_truth import read_labelled
from pipeline.loop import Runtime, watch_stream
from pipeline.metrics import Metrics
from pipeline.mllm.detector.backend import DetectorMLLM
from pipeline.mllm.detector.words import YES_AT, understand
from pipeline.sources.av_picture import AvPicture
from pipeline.sources.synthetic import START
from pipeline.testing import StandingWatches
from pipeline.types import Frame, WatchQuery, Zone
from tests.bench.bench_zone_crop import CAMERA, RULES, SIZE, ZoneCounts, interval
from tests.bench.report import tell

FPS = 7.0
SHARES = (0.01, 0.02, 0.05, 0.1, 0.25)
"""Rates, as shares of what the sampled frames cost at native size."""
CUT = HopRules()


def frames_of(file: Path, most: int) -> list[Frame]:
    """The camera's pictures as frames; `seq` is the number of a picture."""
    with av.open(str(file)) as container:
        pictures = [AvPicture(frame) for _, frame in zip(range(most), container.decode(video=0), strict=False)]
    return [
        Frame(number / FPS, START + timedelta(seconds=number / FPS), "file", number, picture)
        for number, picture in enumerate(pictures)
    ]


async def watched(
    mllm: DetectorMLLM, frames: Sequence[Frame], watch: WatchQuery, rate: float
) -> tuple[dict[float, bool], int]:
    """What the main loop is answered at each hop, by the second of its newest picture, and the vision tokens spent."""
    clock, journal = SystemClock(), Journal()
    budget = Ledger(clock)
    budget.open(watch.id, Rate(rate, round(10 * rate)), 0.0)
    allocator = MotionAllocator(RULES)
    runtime = Runtime(clock, StandingWatches(watch), budget, allocator, RULES, mllm, journal, Metrics())
    run = StreamRun(watch.id, CUT, Context.empty(watch.id, ContextRules()), burst_hops=10)
    await watch_stream(run, Recording(frames), runtime)
    mllm.forget(watch.id)
    records = [decision.record for decision in journal.decisions if decision.record]
    said = {one.frames[-1][0]: bool(one.answers and one.answers[0].score >= YES_AT) for one in records}
    return said, run.counts.spent


async def main(footage: Path) -> None:
    (camera,) = (one for one in read_labelled(footage, lambda _: SIZE) if one.name == CAMERA)
    truths = [one for one in camera.truths if one.split == "zone" and "zone" in one.text]
    zones = [question.within[0] for one in truths if (question := understand(one.text))]
    watches = [WatchQuery(f"zone-{n}", "Is there a person?", zone=Zone(f"z{n}", area)) for n, area in enumerate(zones)]
    mllm = DetectorMLLM(DetectorConfig(use=f"detector:{footage / 'real' / 'models'}"))
    await mllm.start()
    frames = frames_of(camera.file, camera.frames)
    native_per_s = native_tokens([frames[0].size], RULES) * CUT.sample_fps
    rows, summary = [], dict[str, object](zones=len(watches), seconds=round(len(frames) / FPS))
    for share in SHARES:
        found: dict[str, list[tuple[dict[float, bool], int]]] = {}
        for kind, standing in (("whole", watches), ("crop", [one for w in watches for one in with_crop([w])])):
            found[kind] = [await watched(mllm, frames, watch, share * native_per_s) for watch in standing]
        times = sorted(set.intersection(*(set(said) for runs in found.values() for said, _ in runs)))
        true = np.array([[one.known[round(at_s * FPS)] == 1 for one in truths] for at_s in times])
        said = {kind: np.array([[one[at_s] for one, _ in runs] for at_s in times]) for kind, runs in found.items()}
        figures = {kind: f1([ZoneCounts(array, true)]).value for kind, array in said.items()}
        spent = {kind: sum(cost for _, cost in runs) / len(runs) for kind, runs in found.items()}
        gain, low, high = interval(said, true)
        tokens = " / ".join(f"{spent[kind]:.0f}" for kind in ("whole", "crop"))
        difference = f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]"
        rows.append((f"{share:.0%}", len(times), figures["whole"], figures["crop"], difference, tokens))
        summary[f"gain_{share:g}"] = round(gain, 4)
    columns = ("rate", "hops", "F1 whole", "F1 crop", "gain", "tokens spent a stream, whole / crop")
    tell("watches about zones of PETS in the main loop", columns, rows, summary)


if __name__ == "__main__":
    if "TEST_REAL_FOOTAGE" not in os.environ:
        sys.exit("bench_zone_watch: TEST_REAL_FOOTAGE names no folder; expected one with real/clips, labels and models")
    asyncio.run(main(Path(os.environ["TEST_REAL_FOOTAGE"])))
