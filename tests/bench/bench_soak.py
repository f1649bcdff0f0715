"""Sixteen 720p5 cameras through `resadapt serve` with the null MLLM: hops processed, and memory that stays where it is.

Run: python -m tests.bench.bench_soak [MINUTES]      Target: >= 95 % of hops, RSS within 2 % after minute 3.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.bench.camera_clips import camera_clip
from tests.bench.report import median, p95, tell

STREAMS = 16
SETTLED_S = 180


def site_of(clip: Path) -> dict[str, object]:
    return {
        "streams": {f"camera-{i:02}": {"url": str(clip), "realtime": True} for i in range(STREAMS)},
        "watches": {"car": {"question": "is there a car in view?"}, "person": {"question": "is anyone there?"}},
        "mllm": "null",
        "sinks": {"journal": "jsonl:events.jsonl"},
        "metrics": {"port": 0},
        "api": {"port": 0},
    }


def watch_memory(process: psutil.Process, seconds: float) -> tuple[list[float], float]:
    """Resident MiB once a second, and the share of a core that was used."""
    resident, began, used = [], time.monotonic(), process.cpu_times()
    while time.monotonic() - began < seconds:
        resident.append(process.memory_info().rss / 2**20)
        time.sleep(1.0)
    spent = process.cpu_times()
    return resident, (spent.user + spent.system - used.user - used.system) / (time.monotonic() - began)


def main(minutes: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clip = camera_clip(folder / "camera.mp4", 720, 1280, 5, round(60 * minutes) + 30, 1_000_000)
        (folder / "site.yaml").write_text(json.dumps(site_of(clip)))
        command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "serve", "-c", "site.yaml"]
        environment = os.environ | {"PYTHONPATH": os.getcwd()}
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen([*command, "--log-level", "warning"], cwd=folder, env=environment, stderr=log)
            resident, core_share = watch_memory(psutil.Process(child.pid), 60 * minutes)
            child.send_signal(signal.SIGTERM)
            assert child.wait(60) == 0, (folder / "log").read_text()
        ends = [json.loads(line)["data"] for line in (folder / "events.jsonl").open() if '.stream.ended"' in line]
    hops = sum(end["counts"]["hops"] for end in ends)
    lost = sum(end["counts"]["lost"] for end in ends)
    due = sum(end["stream_s"] for end in ends)
    settled = resident[SETTLED_S:] or resident
    drift = settled[-1] / settled[0] - 1
    spread = (max(settled) - min(settled)) / settled[0]
    rows = [
        ("hops decided", hops, due, hops / due),
        ("sampled frames lost, counted", lost, 2 * due, lost / (2 * due)),
        ("resident MiB after minute 3, median", median(settled), p95(settled), drift),
        ("share of a core", core_share, 2, core_share / 2),
    ]
    summary = {"streams": len(ends), "hops": hops, "hop_ratio": hops / due, "lost": lost, "rss_drift": drift}
    summary |= {"rss_spread": spread, "core_share": core_share, "minutes": minutes}
    tell("soak: 16 x 720p5, null MLLM", ("what", "value", "of / p95", "ratio / drift"), rows, summary)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
