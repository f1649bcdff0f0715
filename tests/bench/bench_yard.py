"""How fast the yard is filmed: rendering and H.264 encoding, against encoding alone.

    python -m tests.bench.bench_yard [--seconds 8] [--runs 5]

CPU seconds of one core per second of film at 25 fps, 448 x 256 px. The alternative encodes the same pictures, rendered
before. The last line is JSON; `realtime` is seconds of film per CPU second, `ratio` filming over encoding alone.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2

from samples.yard.world.codec import write_video
from samples.yard.world.facts import FPS
from samples.yard.world.scene import Look, Scene
from tests.bench.report import median, p95, tell

SEED = 800_100


class Rendered:
    """A scene whose pictures are there already."""

    def __init__(self, scene: Scene) -> None:
        self.seed, self.seconds = scene.seed, scene.seconds
        self._looks = [scene.look(index / FPS, facts=False) for index in range(round(scene.seconds * FPS))]

    def look(self, time_s: float, *, facts: bool = True) -> Look:
        return self._looks[round(time_s * FPS)]


def cpu_s(work) -> float:
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    ways: dict[str, list[float]] = {"build, render and encode": [], "encode alone": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "yard.mp4"
        write_video(file, Scene(SEED, 1.0))
        for run in range(given.runs):
            ready = Rendered(Scene(SEED + run, given.seconds))
            filmed = cpu_s(lambda run=run: write_video(file, Scene(SEED + run, given.seconds)))
            encoded = cpu_s(lambda ready=ready: write_video(file, ready))
            for way, spent in zip(ways, (filmed, encoded), strict=True):
                ways[way].append(spent / given.seconds)
    rows = [
        (way, f"{median(spent):.3f}", f"{p95(spent):.3f}", f"{1 / median(spent):.1f}x") for way, spent in ways.items()
    ]
    filmed, encoded = (median(spent) for spent in ways.values())
    summary = {"realtime": 1 / filmed, "ratio": filmed / encoded, "runs": given.runs, "seconds": given.seconds}
    tell("Filming the yard", ("way", "CPU s per s", "p95", "real time"), rows, summary)


if __name__ == "__main__":
    main()
