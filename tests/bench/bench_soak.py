"""Cameras of 360p through `resadapt serve` with the null MLLM, four watches and a store: every hop is decided, and
memory, threads and descriptors stay where they are.

Run: python -m tests.bench.bench_soak [STREAMS [MINUTES]] [--overloaded] [--packed] [--keys]
Target: every hop, no frame lost, and over the last two thirds less than 1 MiB a minute. Contexts of streams restart at
different times and hold 10 to 20 MiB a stream more before than behind it, so that short runs show that as a slope.
Watches open at most every ten minutes, as a site's do: the null MLLM alone would open each three times a minute, and
evidence of that is work for more cores than this is about. Memory is told every minute on stderr.

Overloaded, frames are sampled at 60 a second and shown at native size, more than the process can take: frames are
lost, and memory has to stay where it is all the same. Packed, contexts are kept without loss in less memory. Keys: key
frames alone are decoded, of which there is one every two seconds, and every other one is looked at.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from tests.bench.camera_clips import camera_clip, repeated
from tests.bench.report import tell

SAMPLE_S = 5.0
KEYS_S = 4.0
"""Seconds from one hop to the next where key frames alone are decoded."""
PART_S = 60
"""The camera's clip is so many seconds, again and again."""
EMPTY_S = 30.0
"""How long a service without a stream runs, from which the cost of a stream is counted."""
WATCHES = ("a car", "a person", "a dog", "an open gate")


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at `at_s` seconds: resident MiB, threads, open descriptors, CPU seconds used so far."""

    at_s: float
    resident: float
    threads: int
    descriptors: int
    cpu_s: float


def site_of(clip: Path, streams: int, overloaded: bool, packed: bool, keys: bool) -> dict[str, object]:
    load: dict[str, object] = {"allocator": "motion", "context_packed": packed}
    if keys:
        load |= {"decode": "keys", "hop_s": KEYS_S, "sample_fps": 1 / KEYS_S}
    if overloaded:
        load |= {
            "allocator": "fixed",
            "sample_fps": 60,
            "budget": {"rate_tokens_per_s": 16_000, "burst_tokens": 64_000},
        }
    return {
        "defaults": load | {"realtime": True},
        "streams": {f"camera-{number:02}": {"url": str(clip)} for number in range(streams)},
        "watches": {
            f"watch-{number}": {"question": f"is {thing} in view?", "cooldown_s": 600}
            for number, thing in enumerate(WATCHES)
        },
        "mllm": "null",
        "store": "sqlite:///soak.db",
        "sinks": {"journal": "jsonl:events.jsonl"},
        "metrics": {"port": 0},
        "api": {"port": 0},
    }


@contextmanager
def serving(folder: Path, site: dict[str, object]) -> Iterator[psutil.Process]:
    """A service of its own; ended by SIGTERM, which has to succeed."""
    folder.mkdir()
    (folder / "site.yaml").write_text(json.dumps(site))
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "serve", "-c", "site.yaml"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((os.getcwd(), os.environ.get("PYTHONPATH", "")))}
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen([*command, "--log-level", "warning"], cwd=folder, env=environment, stderr=log)
        try:
            yield psutil.Process(child.pid)
        finally:
            child.send_signal(signal.SIGTERM)
            code = child.wait(120)
    assert code == 0, (folder / "log").read_text()


def sampled(process: psutil.Process, seconds: float) -> list[Sample]:
    began, samples = time.monotonic(), []
    while (at_s := time.monotonic() - began) < seconds:
        with process.oneshot():
            used = process.cpu_times()
            resident = process.memory_info().rss / 2**20
            samples.append(Sample(at_s, resident, process.num_threads(), process.num_fds(), used.user + used.system))
        if at_s // 60 != (at_s - SAMPLE_S) // 60:
            print(f"{at_s / 60:4.0f} min {resident:7.0f} MiB", file=sys.stderr, flush=True)
        time.sleep(SAMPLE_S)
    return samples


def slope_per_minute(samples: Sequence[Sample]) -> float:
    """MiB a minute of the line through the samples."""
    line = np.polyfit([one.at_s / 60 for one in samples], [one.resident for one in samples], 1)
    return float(line[0])


def main(streams: int, minutes: float, overloaded: bool, packed: bool, keys: bool) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        part = camera_clip(folder / "part.mp4", 360, 640, 60 if overloaded else 10, PART_S, 400_000)
        # As a camera it has no index, which a reader of MP4 holds in memory.
        clip = repeated(part, folder / "camera.ts", round(minutes * 60 / PART_S) + 1)
        with serving(folder / "empty", site_of(clip, 0, overloaded, packed, keys)) as process:
            empty = sampled(process, EMPTY_S)[-1]
        with serving(folder / "busy", site_of(clip, streams, overloaded, packed, keys)) as process:
            samples = sampled(process, 60 * minutes)
        written = (folder / "busy" / "events.jsonl").open()
        ends = [json.loads(line)["data"] for line in written if '.stream.ended"' in line]
    third = samples[len(samples) // 3 :]
    first, last = third[0], third[-1]
    hops, lost, frames = (sum(end["counts"][name] for end in ends) for name in ("hops", "lost", "frames"))
    due = sum(end["stream_s"] for end in ends) / (KEYS_S if keys else 1.0)
    core = (last.cpu_s - first.cpu_s) / (last.at_s - first.at_s)
    each = {
        "mib_a_stream": (last.resident - empty.resident) / streams,
        "threads_a_stream": (last.threads - empty.threads) / streams,
        "descriptors_a_stream": (last.descriptors - empty.descriptors) / streams,
        "core_share_a_stream": core / streams,
    }
    rows = [
        ("hops decided, of those due", hops, due),
        ("frames, lost", frames, lost),
        (
            "resident MiB without a stream, at a third, at the end",
            empty.resident,
            f"{first.resident:.0f}, {last.resident:.0f}",
        ),
        ("MiB a minute over the last two thirds", slope_per_minute(third), ""),
        ("threads without a stream, at a third, at the end", empty.threads, f"{first.threads}, {last.threads}"),
        (
            "descriptors without a stream, at a third, at the end",
            empty.descriptors,
            f"{first.descriptors}, {last.descriptors}",
        ),
        *((name.replace("_", " "), value, "") for name, value in each.items()),
    ]
    summary = {
        "streams": len(ends),
        "minutes": minutes,
        "overloaded": overloaded,
        "packed": packed,
        "keys": keys,
        "hop_ratio": hops / due,
    }
    summary |= {"lost": lost, "mib": last.resident, "mib_per_minute": slope_per_minute(third)} | each
    tell(f"soak: {streams} x 360p, null MLLM, {len(WATCHES)} watches", ("what", "value", "and"), rows, summary)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", nargs="?", type=int, default=64)
    parser.add_argument("minutes", nargs="?", type=float, default=25.0)
    parser.add_argument("--overloaded", action="store_true")
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--keys", action="store_true")
    given = parser.parse_args()
    main(given.streams, given.minutes, given.overloaded, given.packed, given.keys)
