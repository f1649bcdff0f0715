"""A question tried on recordings, the yard's MLLM on every core, beside the same on one.

Run: python -m tests.bench.bench_back_test [MINUTES]
Target: five times as fast as the recording plays, on two cores, over an hour, of the yard and of a synthetic scene in
which something moves in every frame, so that all of the budget is spent. One core is measured on the first four
minutes, as all cores are too.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av

from pipeline.service.here import usable_cores
from pipeline.sources.synthetic import parse_scene
from samples.yard.world.codec import write_video
from samples.yard.world.scene import Scene
from tests.bench.camera_clips import repeated
from tests.bench.report import tell

QUESTION = "is a vehicle in view?"
PART_S = 240
"""A recording is a scene of so many seconds, again and again."""


def write_yard(path: Path) -> None:
    write_video(path, Scene(7, float(PART_S)))


def write_synthetic(path: Path) -> None:
    scene = parse_scene(f"synthetic:?width=640&height=360&fps=25&seconds={PART_S}&seed=3")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        stream.codec_context.gop_size = 50
        for number in range(25 * PART_S):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene.draw(number / 25), "rgb24")))
        container.mux(stream.encode(None))


RECORDINGS: dict[str, Callable[[Path], None]] = {"yard": write_yard, "synthetic": write_synthetic}


def tried(recording: Path, threads: int | None) -> dict[str, float]:
    """What `resadapt watch test` says in its last line."""
    site = recording.with_suffix(".yaml")
    site.write_text(json.dumps({"mllm": {"use": "yard", "threads": threads}}))
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "watch", "test", QUESTION]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((os.getcwd(), os.environ.get("PYTHONPATH", "")))}
    done = subprocess.run(
        [*command, "--on", str(recording), "-c", str(site), "--json"],
        env=environment, cwd=recording.parent, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(minutes: float) -> None:
    rows: list[tuple[object, ...]] = []
    summary: dict[str, object] = {"cores": usable_cores()}
    for name, write in RECORDINGS.items():
        with tempfile.TemporaryDirectory() as scratch:
            part = Path(scratch, "part.mp4")
            write(part)
            whole = repeated(part, Path(scratch, "whole.mp4"), max(1, round(minutes * 60 / PART_S)))
            one, every = tried(part, 1), tried(part, None)
            long = tried(whole, None)
        cores = (("one", one), ("every", every), ("every", long))
        rows += [
            (name, on, found["seconds"], found["realtime_factor"], found["tokens"], found["events"])
            for on, found in cores
        ]
        summary[name] = {
            "realtime_factor": long["realtime_factor"],
            "on_part": every["realtime_factor"],
            "ratio_to_one_core": round(every["realtime_factor"] / one["realtime_factor"], 2),
        }
    columns = ("recording", "MLLM on cores", "seconds", "times real time", "tokens", "events")
    tell("back-test of recordings", columns, rows, summary)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
