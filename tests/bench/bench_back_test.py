"""A question tried on a recording of the yard, its MLLM on every core, beside the same on one.

Run: python -m tests.bench.bench_back_test [MINUTES]
Target: five times as fast as the recording plays, on two cores, over an hour. One core is measured on the first four
minutes, as all cores are too.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.service.here import usable_cores
from samples.yard.world.codec import write_video
from samples.yard.world.scene import Scene
from tests.bench.camera_clips import repeated
from tests.bench.report import tell

QUESTION = "is a vehicle in view?"
PART_S = 240
"""The recording is a scene of so many seconds, again and again."""


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
    with tempfile.TemporaryDirectory() as scratch:
        part = Path(scratch, "part.mp4")
        write_video(part, Scene(7, float(PART_S)))
        whole = repeated(part, Path(scratch, "whole.mp4"), max(1, round(minutes * 60 / PART_S)))
        one, every = tried(part, 1), tried(part, None)
        long = tried(whole, None)
    rows = [
        (name, found["seconds"], found["realtime_factor"], found["tokens"], found["events"])
        for name, found in (
            ("one core", one),
            ("every core", every),
            (f"every core, {long['seconds'] / 60:.0f} minutes", long),
        )
    ]
    summary = {
        "cores": usable_cores(),
        "realtime_factor": long["realtime_factor"],
        "on_part": every["realtime_factor"],
        "ratio_to_one_core": round(every["realtime_factor"] / one["realtime_factor"], 2),
    }
    columns = ("MLLM on", "seconds of recording", "times real time", "tokens", "events")
    tell("back-test of a yard's recording", columns, rows, summary)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
