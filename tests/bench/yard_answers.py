"""Answers of the yard's MLLM to its watches over episodes on which nothing was trained, asked once and kept in a
folder: `python -m tests.bench.yard_answers FOLDER [--episodes 80] [--scale 0.5]`. A run that was broken off goes on."""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allocator_engine.fit import FitRules, fit
from allocator_engine.train.rollout import Episode, GradedQuestion
from pipeline.build import YARD
from samples.yard.episodes.answerer import YardAnswerer
from samples.yard.episodes.clips import SECONDS, Film, film
from samples.yard.questions.watches import watch_intervals, watch_questions
from samples.yard.shape import TRAINING_SEEDS, grid

FIRST_SEED = TRAINING_SEEDS + 2000
"""Behind the seeds of the card and of the comparisons."""

WATCHES = watch_questions()[:20]
_HOPS_AT_ONCE = 4
_UNBOUNDED = 2**30


@dataclass(frozen=True)
class KeptEpisode:
    """Of an episode: probabilities of yes `[watches, hops]`, and of each watch when its condition is visible, and when
    it may be, in seconds of the episode."""

    said: NDArray[np.float32]
    certain: tuple[tuple[tuple[float, float], ...], ...]
    possible: tuple[tuple[tuple[float, float], ...], ...]


def kept_episodes(folder: Path, episodes: int, scale: float) -> list[KeptEpisode]:
    """The answers of so many episodes, those that are not kept yet asked now; frames are shown at `scale`."""
    folder.mkdir(parents=True, exist_ok=True)
    answerer: YardAnswerer | None = None
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + episodes):
        file = folder / f"yard-{seed}-{scale:g}.npy"
        shown = None
        if not file.exists():
            answerer = answerer or YardAnswerer(YARD)
            began_s = time.perf_counter()
            shown = film(seed, SECONDS)
            made = file.with_suffix(".part")
            with made.open("wb") as out:
                np.save(out, _ask(answerer, seed, shown, scale))
            os.replace(made, file)
            print(f"{file.name}: {time.perf_counter() - began_s:.1f} s", flush=True)
        found.append(_episode(np.load(file), folder / f"yard-{seed}.truth.npy", seed, shown))
    return found


def _ask(answerer: YardAnswerer, seed: int, shown: Film, scale: float) -> NDArray[np.float32]:
    """All watches once each hop has been shown, a few hops at a time. Only yes is asked for: together with no it has
    0.9999 of the probability."""
    rules = FitRules(grid(), frames_per_segment=2)
    allocations = [fit(hop.sizes, [scale] * len(hop.sizes), _UNBOUNDED, rules) for hop in shown.hops]
    texts = tuple(watch.text for watch in WATCHES)
    said = np.zeros((len(texts), len(shown.hops)), np.float32)
    for first in range(0, len(shown.hops), _HOPS_AT_ONCE):
        last = min(first + _HOPS_AT_ONCE, len(shown.hops))
        places = [(number, hop) for hop in range(first, last) for number in range(len(texts))]
        probes = tuple(GradedQuestion(texts[number], "yes", "yes_no", hop, hop) for number, hop in places)
        unknown = np.full((len(texts), last), -1, np.int8)
        episode = Episode(f"yard-{seed}", shown.hops[:last], texts, probes, unknown)
        for place, share in zip(places, answerer.rewards(episode, [allocations[:last]])[0], strict=True):
            said[place] = share
    return said


def _episode(said: NDArray[np.float32], file: Path, seed: int, shown: Film | None) -> KeptEpisode:
    """With the truth, which is kept beside: rendering costs more than asking."""
    if not file.exists():
        flat = [frame for hop in (shown or film(seed, SECONDS)).facts for frame in hop]
        rows = [
            (number, float(undecided), one.start_s, one.end_s)
            for number, watch in enumerate(WATCHES)
            for undecided in (False, True)
            for one in watch_intervals(flat, watch, undecided=undecided)
        ]
        np.save(file, np.array(rows, float).reshape(-1, 4))
    rows = np.load(file)

    def times(number: int, undecided: bool) -> tuple[tuple[float, float], ...]:
        chosen = rows[(rows[:, 0] == number) & (rows[:, 1] == undecided)]
        return tuple((float(row[2]), float(row[3])) for row in chosen)

    numbers = range(len(WATCHES))
    return KeptEpisode(said, tuple(times(n, False) for n in numbers), tuple(times(n, True) for n in numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=80)
    parser.add_argument("--scale", type=float, default=0.5)
    given = parser.parse_args()
    kept_episodes(given.folder, given.episodes, given.scale)


if __name__ == "__main__":
    main()
