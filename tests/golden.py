"""Golden outputs of everything that figures hang on, by subject: what the code makes now, and what is kept of it.

    python -m tests.golden

writes `tests/unit/golden.json` anew. It refuses a subject whose outputs have changed while its version has not.
"""

import asyncio
import dataclasses
import json
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from allocator_engine.evaluate import tasks
from allocator_engine.evaluate.equal import purse
from allocator_engine.evaluate.tasks import Span, TaskQuestion
from allocator_engine.fit import FitRules
from allocator_engine.grid import GRIDS
from allocator_engine.manifest import SHIPPED
from pipeline.allocators.fixed import FixedAllocator
from pipeline.allocators.learned import open_learned
from pipeline.allocators.motion import MotionAllocator
from pipeline.clock import SystemClock
from pipeline.core.budget import BURST_HOPS, BURST_S
from pipeline.core.context import Context, ContextRules
from pipeline.lab.comparison import ANSWERS_VERSION, SPENDING_VERSION
from pipeline.lab.exam import TrialRuntime, as_hops
from pipeline.lab.trial import spend
from pipeline.metrics import Metrics
from pipeline.mllm.null import NullMLLM
from pipeline.mllm.prompt import Text, looks, opening, suffix
from pipeline.types import Segment, WatchQuery
from samples.yard.card.replay import SETTINGS, replay
from samples.yard.card.score import families
from samples.yard.episodes.clips import YardClips, film
from samples.yard.episodes.tasks import YardTasks
from samples.yard.questions.grammar import ask, grade, holds, watch_questions, watches_for
from samples.yard.questions.matching import spans
from samples.yard.shape import grid
from samples.yard.versions import VERSIONS
from samples.yard.world.codec import surveillance
from samples.yard.world.scene import Scene

FILE = Path(__file__).parent / "unit" / "golden.json"

SEEDS = (800_001, 800_007)
SECONDS = 8.0
BLOCK_PX = 64
LEVELS = 2
"""Difference of a block's mean colour, 0 to 255, that other CPUs may make; decoded pictures differ by twice that."""

Golden = dict[str, Any]


class Kept(NamedTuple):
    """What is kept of a subject."""

    version: str
    outputs: Golden


@cache
def facts(seed: int) -> list[Any]:
    return [frame for hop in film(seed, SECONDS).facts for frame in hop]


def blocks(pixels: np.ndarray) -> list[list[int]]:
    """Mean colours of a picture's blocks, row by row."""
    rows, columns = pixels.shape[0] // BLOCK_PX, pixels.shape[1] // BLOCK_PX
    means = pixels.reshape(rows, BLOCK_PX, columns, BLOCK_PX, 3).mean((1, 3)).round().astype(int)
    return means.reshape(-1, 3).tolist()


def world() -> Golden:
    made: Golden = {}
    for seed in SEEDS:
        scene = Scene(seed)
        shown = [scene.look(time_s) for time_s in (0.0, 9.0, 21.5)]
        coded = surveillance([look.pixels for look in shown], 2.0, seed=seed)
        made[str(seed)] = {
            "facts": [dataclasses.asdict(look.facts) for look in shown],
            "blocks": [blocks(look.pixels) for look in shown],
            "coded blocks": [blocks(picture) for picture in coded],
        }
    return made


def grammar() -> Golden:
    made: Golden = {}
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        asked = [*ask(facts(seed), rng, count=12), *ask(facts(seed), rng, count=6, held_out=True)]
        made[str(seed)] = {
            "questions": [dataclasses.asdict(question) for question in asked],
            "watches": [watch.text for watch in watches_for(facts(seed), rng, 8)],
        }
    return made


def truth() -> Golden:
    made: Golden = {}
    for seed in SEEDS:
        frames = facts(seed)
        watches = list(islice(watch_questions(), 0, None, 5))
        asked = ask(frames, np.random.default_rng(seed + 1), kinds=("interval",), count=2)
        made[str(seed)] = {
            "holds": {watch.slug: [holds(watch, frames[: last + 1]) for last in (1, 5, 15)] for watch in watches},
            "spans": {watch.slug: [dataclasses.asdict(one) for one in spans(watch, frames)] for watch in watches},
            "grades": [[grade(one, said) for said in (one.answer, "yes", "1.0 to 3.0")] for one in asked],
        }
    return made


def tasks_() -> Golden:
    source = YardTasks(range(SEEDS[0], SEEDS[0] + 1), SECONDS)
    distracted = YardTasks(range(SEEDS[0], SEEDS[0] + 1), SECONDS, distracted=True)
    quiet = YardTasks(range(SEEDS[0], SEEDS[0] + 1), SECONDS, quiet_s=4.0)
    before = quiet.hops(quiet.tasks(0)[0].clip)[1].pictures[0]
    return {
        "yard": [dataclasses.asdict(task) for task in source.tasks(0)],
        "yard-distracted": [dataclasses.asdict(task) for task in distracted.tasks(0)],
        "quiet": [dataclasses.asdict(task) for task in quiet.tasks(0)],
        "quiet coded blocks": blocks(before.render(before.height, before.width)),
    }


class Guessing(NullMLLM):
    """An MLLM whose answers follow from the question and how much it has been shown."""

    def __init__(self) -> None:
        super().__init__(lambda context, query: _draw(query.question, len(context.segments)), grid())

    async def say(self, context: Context, questions: Sequence[str], *more: Any, **named: Any) -> list[str]:
        words = ("yes", "no", "unknown", "red", "2", "2.0 to 5.5")
        return [words[int(len(words) * _draw(one, len(context.segments)))] for one in questions]


def _draw(text: str, shown: int) -> float:
    return zlib.crc32(f"{text} {shown}".encode()) / 2**32


def evaluation() -> Golden:
    record = asyncio.run(replay(SEEDS[0], SETTINGS["motion"], Guessing()))
    return {
        "tokens": [record.tokens, record.native_tokens],
        "graded": [dataclasses.asdict(one) for one in record.graded[::4]],
        "opinions": [dataclasses.asdict(one) for one in record.opinions[::16]],
        "watches": [dataclasses.asdict(one) for one in record.watches],
        "figures": {name: dataclasses.asdict(one) for name, one in families([record]).items()},
    }


def training() -> Golden:
    episode = YardClips().episode(3, 1)
    assert episode.cells is not None
    return {
        "name": episode.name,
        "hops": [[hop.start_s, *hop.pts_s] for hop in episode.hops],
        "standing": episode.standing,
        "beside": episode.beside[:12],
        "probes": [dataclasses.asdict(probe) for probe in episode.probes],
        "holds": episode.holds[:12].tolist(),
        "cells": [int(zlib.crc32(np.ascontiguousarray(part).tobytes())) for part in episode.cells[::8]],
    }


def answers() -> Golden:
    """What an MLLM is asked of allocated pictures, and what its answers are worth."""
    sizes = ((64, 96), (32, 32))
    segments = [
        Segment((second, second + 0.5), np.zeros((2, *size, 3), np.uint8), 1, str(second))
        for second, size in enumerate(sizes, 3)
    ]
    context = Context.empty("camera", ContextRules())
    asked = TaskQuestion("From when to when was the gate open, at 4.0?", "4.0 to 7.0", "interval", 3, timed=True)
    said = ("4.0 to 7.0", "from 1.0 s to 2.5 s", "yes", "")
    times = [Span(2.0, 3.0, 6.0), Span(8.0, None, 9.0), Span(12.0, 12.5, 14.0)]
    return {
        "prompt": {
            family: [
                part.text if isinstance(part, Text) else [part.pad, list(part.segment.size)]
                for part in (opening(family), *looks(segments, 3.0), suffix("is there a car?", family))
            ]
            for family in GRIDS
        },
        "restart": [context.max_s, context.epoch],
        "asked": [asked.at(anchor_s) for anchor_s in (0.0, 2.5)],
        "grades": [[asked.grade(text, anchor_s) for text in said] for anchor_s in (0.0, 2.5)],
        "events": [
            dataclasses.asdict(tasks.match(times, onsets)) for onsets in ([2.5, 2.8, 12.0], [4.5, 8.5, 10.0], [])
        ],
    }


def spending() -> Golden:
    """What fixed, motion and the shipped engine make of a short clip at a tenth of its native tokens."""
    rules = FitRules(grid(), 2)
    hops = as_hops(film(SEEDS[0], SECONDS).hops)
    texts = [watch.text for watch in watches_for(facts(SEEDS[0]), np.random.default_rng(1), 3)]
    standing = [[WatchQuery(str(place), text) for place, text in enumerate(texts)]] * len(hops)
    pocket = purse(112 * len(hops), round(BURST_HOPS * 112), SECONDS, 0.1, 0, BURST_S)
    clock = SystemClock()
    runtime = TrialRuntime(clock, rules, Metrics())
    makers: Mapping[str, Callable[[], Any]] = {
        "fixed": lambda: FixedAllocator(rules),
        "motion": lambda: MotionAllocator(rules),
        "learned": lambda: open_learned(SHIPPED, rules, clock, "onnxruntime"),
    }

    async def made(make: Callable[[], Any]) -> list[Any]:
        allocator = make()
        try:
            found, _ = await spend(hops, standing, allocator, pocket, runtime)
        finally:
            await allocator.close()
        return [[[list(one.frames), one.height, one.width] for one in hop.segments] for hop in found]

    return {name: asyncio.run(made(make)) for name, make in makers.items()}


SUBJECTS: Mapping[str, tuple[Callable[[], Golden], Callable[[], str], str]] = {
    "world": (world, lambda: VERSIONS["world"], "VERSIONS['world'] in samples/yard/versions.py"),
    "grammar": (grammar, lambda: VERSIONS["grammar"], "VERSIONS['grammar'] in samples/yard/versions.py"),
    "truth": (truth, lambda: VERSIONS["truth"], "VERSIONS['truth'] in samples/yard/versions.py"),
    "tasks": (tasks_, lambda: VERSIONS["tasks"], "VERSIONS['tasks'] in samples/yard/versions.py"),
    "evaluation": (evaluation, lambda: VERSIONS["evaluation"], "VERSIONS['evaluation'] in samples/yard/versions.py"),
    "training": (training, lambda: VERSIONS["training"], "VERSIONS['training'] in samples/yard/versions.py"),
    "answers": (answers, lambda: ANSWERS_VERSION, "ANSWERS_VERSION in pipeline/lab/comparison.py"),
    "spending": (spending, lambda: SPENDING_VERSION, "SPENDING_VERSION in pipeline/lab/comparison.py"),
}
"""What makes a subject's outputs, its declared version, and where that is declared."""


def made(subject: str) -> Golden:
    """A subject's outputs as JSON has them."""
    outputs: Golden = json.loads(json.dumps(SUBJECTS[subject][0](), allow_nan=True))
    return outputs


def kept() -> dict[str, Kept]:
    """What is kept of each subject."""
    return {name: Kept(**one) for name, one in json.loads(FILE.read_text()).items()} if FILE.exists() else {}


def difference(kept: Any, found: Any, path: str = "") -> str | None:
    """Where two outputs first differ by more than rounding, in words; None where they do not."""
    if isinstance(kept, dict) and isinstance(found, dict) and kept.keys() == found.keys():
        pairs = [(key, kept[key], found[key]) for key in kept]
    elif isinstance(kept, list) and isinstance(found, list) and len(kept) == len(found):
        pairs = [(place, *both) for place, both in enumerate(zip(kept, found, strict=True))]
    else:
        return None if _alike(kept, found, path) else f"at {path} there is {found!r} where {kept!r} is kept"
    return next((said for key, *both in pairs if (said := difference(*both, f"{path}/{key}"))), None)


def _alike(kept: Any, found: Any, path: str) -> bool:
    if isinstance(kept, bool) or not isinstance(kept, int | float) or not isinstance(found, int | float):
        return type(kept) is type(found) and kept == found
    if "blocks" in path:
        return abs(kept - found) <= LEVELS * (2 if "coded" in path else 1)
    if path.startswith("/learned"):
        return abs(kept - found) <= grid().cell_px  # a scale on the border between two sizes
    return kept == found or (isinstance(kept, float) and abs(kept - found) <= 1e-3 * max(1.0, abs(kept)))


def main() -> None:
    """Write the file anew."""
    before, now = kept(), {}
    for name, (_, version, declared) in SUBJECTS.items():
        now[name] = Kept(version(), made(name))
        if (
            name in before
            and before[name].version == version()
            and (said := difference(before[name].outputs, now[name].outputs))
        ):
            sys.exit(f"{name}: {said}: raise {declared} first")
    FILE.write_text(json.dumps({name: one._asdict() for name, one in now.items()}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
