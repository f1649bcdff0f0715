"""Yard cameras that play as live streams: their films and truth, the watches that stand on them, and the score."""

import asyncio
import math
import multiprocessing
import signal
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from allocator_engine.evaluate import tasks
from allocator_engine.evaluate.tasks import Span, f1
from pipeline.errors import SourceUnavailable
from samples.yard.questions.grammar import YardWatch, watch_intervals, watches_for
from samples.yard.questions.matching import WatchScore, spans
from samples.yard.questions.watches import Interval
from samples.yard.world.codec import write_video
from samples.yard.world.facts import FrameFacts
from samples.yard.world.scene import Scene
from samples.yard.world.segments import sampled_times_s

_DRAWN = 64  # watches to choose from

LASTING_S = 3.0
"""Seconds for which the condition of a demo's watch of durations has to hold."""

_SURE_S = 2.0  # seconds more that it takes until two hops in a row have said so, wherever they begin

UNDERSTOOD = (
    "gate and barrier, vehicles (kind, colour, place, plate), people (helmet, vest, bag), a bag left behind, smoke"
    " and dogs"
)
"""What the yard's MLLM knows, for people."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A yard camera whose stream is called `slug`: its film, and the facts of the frames that are sampled from it."""

    slug: str
    seed: int
    film: Path
    facts: tuple[FrameFacts, ...]


@dataclass(frozen=True, slots=True)
class LastingWatch(YardWatch):
    """A watch that opens once its condition has held for `hold_s` seconds."""

    hold_s: float = LASTING_S


@dataclass(frozen=True, slots=True)
class Totals:
    """Scores of several watches taken together. None where nothing happened that a number could be of."""

    f1: float | None
    precision: float | None
    recall: float | None
    onset_delay_p50_s: float | None


async def film(seeds: Sequence[int], seconds: float, sample_fps: float, folder: Path) -> tuple[Camera, ...]:
    """Film the yards of `seeds` for `seconds` as H.264 at 25 fps, each in a process of its own.

    Raises SourceUnavailable if one of them fails, for instance because the disk is full.
    """
    files = {seed: folder / f"camera_{seed}.mp4" for seed in seeds}
    # Spawned, not forked: this process has threads. They find this package wherever this process found it.
    spawn = multiprocessing.get_context("spawn")
    crew = [spawn.Process(target=_film, args=(seed, seconds, file), daemon=True) for seed, file in files.items()]
    for process in crew:
        process.start()
    try:
        facts = await asyncio.to_thread(lambda: [_facts(seed, seconds, sample_fps) for seed in seeds])
        await asyncio.gather(*(asyncio.to_thread(process.join) for process in crew))
    finally:
        for process in crew:
            process.terminate()
        for process in crew:
            process.join()  # so that none writes into a folder that is being removed
    failed = [seed for seed, process in zip(seeds, crew, strict=True) if process.exitcode]
    if failed:
        raise SourceUnavailable(f"the yard of seed {failed[0]} could not be filmed into {folder}; is the disk full?")
    return tuple(Camera(f"yard-{seed}", seed, files[seed], seen) for seed, seen in zip(seeds, facts, strict=True))


@dataclass(frozen=True, slots=True)
class Miss:
    """An event that was not found: the stream it was on, when it was to be seen, and whether it was noticed after all,
    too late to count."""

    stream_id: str
    span: Span
    late: bool


def choose_watches(cameras: Sequence[Camera], seed: int, count: int) -> tuple[YardWatch, ...]:
    """Watches for all of the cameras: those that something happens for before one of them, coarse ones first, which
    the MLLM answers well; one of them about what lasts, where anything does. Others only where these are too few."""
    frames = [facts for camera in cameras for facts in camera.facts]
    drawn = watches_for(frames, np.random.default_rng((seed, 9)), _DRAWN)
    until_s = {camera.slug: math.inf for camera in cameras}
    happening = [watch for watch in drawn if score(watch, cameras, {}, until_s).missed]
    coarse, fine = ([w for w in happening if (w.family == "fine") is wanted] for wanted in (False, True))
    lasting = [LastingWatch(f"{w.slug}-for-{LASTING_S:g}s", w.family, w.condition) for w in coarse]
    lasts = [watch for watch in lasting if score(watch, cameras, {}, until_s).missed][:1]
    others = [watch for watch in drawn if watch not in happening]
    return tuple([*lasts, *coarse, *fine, *others][:count])


def _spans(watch: YardWatch, facts: Sequence[FrameFacts]) -> tuple[Span, ...]:
    """When a watch should be open: of one that waits, what lasts. What only may last counts neither way."""
    found = spans(watch, facts)
    if not isinstance(watch, LastingWatch):
        return found
    sure_s = [one.start_s for one in watch_intervals(facts, watch) if _lasts(one, watch.hold_s + _SURE_S)]
    return tuple(
        replace(span, certain_s=next((s for s in sure_s if span.since_s <= s < span.until_s), None))
        for span in found
        if span.until_s - span.since_s >= watch.hold_s
    )


def _lasts(interval: Interval, seconds: float) -> bool:
    return interval.end_s - interval.start_s >= seconds


def misses(
    watch: YardWatch, cameras: Sequence[Camera], onsets_s: Mapping[str, Sequence[float]], until_s: Mapping[str, float]
) -> tuple[Miss, ...]:
    """The events that `score` counts as missed."""
    found = []
    for camera in cameras:
        facts = [one for one in camera.facts if one.time_s < until_s.get(camera.slug, 0.0)]
        onsets = onsets_s.get(camera.slug, ())
        for span in _spans(watch, facts):
            if tasks.match([span], onsets).missed:
                late = any(span.since_s <= onset_s < span.until_s for onset_s in onsets)
                found.append(Miss(camera.slug, span, late))
    return tuple(found)


def score(
    watch: YardWatch, cameras: Sequence[Camera], onsets_s: Mapping[str, Sequence[float]], until_s: Mapping[str, float]
) -> WatchScore:
    """A watch's opened events (onsets by camera slug) against what its cameras showed until `until_s` (stream time)."""
    scores = [
        tasks.match(
            _spans(watch, [facts for facts in camera.facts if facts.time_s < until_s.get(camera.slug, 0.0)]),
            onsets_s.get(camera.slug, ()),
        )
        for camera in cameras
    ]
    return WatchScore(
        watch.slug,
        watch.family == "fine",
        sum(one.found for one in scores),
        sum(one.missed for one in scores),
        sum(one.false for one in scores),
        tuple(delay_s for one in scores for delay_s in one.delays_s),
    )


def totals(scores: Sequence[WatchScore]) -> Totals:
    """All events of all watches together."""
    found, missed, false = (sum(getattr(one, name) for one in scores) for name in ("found", "missed", "false"))
    delays_s = [delay_s for one in scores for delay_s in one.delays_s]
    whole = f1(scores)
    return Totals(
        f1=round(whole.value, 4) if whole.bottom else None,
        precision=_share(found, found + false),
        recall=_share(found, found + missed),
        onset_delay_p50_s=round(statistics.median(delays_s), 2) if delays_s else None,
    )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _facts(seed: int, seconds: float, sample_fps: float) -> tuple[FrameFacts, ...]:
    scene = Scene(seed, seconds)
    return tuple(scene.look(time_s).facts for time_s in sampled_times_s(seconds, sample_fps))


def _film(seed: int, seconds: float, file: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for this one, which ends it
    cv2.setNumThreads(1)
    write_video(file, Scene(seed, seconds))
