"""Many cameras of 360p on one machine, key frames alone, in a fleet of several nodes that all run on it: is every hop
decided, and what does a camera cost?

    python -m tests.bench.bench_crowd [STREAMS [MINUTES]] [--nodes 2]

A process of Python runs one thread at a time, and a camera is a thread: more cameras than one process takes want more
processes, which are nodes of a fleet. The cameras are those of `bench_soak --keys`: a key frame every two seconds, a
hop of four, four watches, the null MLLM, evidence as by default. Needs what bench_failover needs. The last line is
JSON.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil
import sqlalchemy as sa

from pipeline.delivery.tables import HOP_ANSWERS
from tests.bench.bench_failover import Run
from tests.bench.bench_scaling import ACTOR, cpu_s
from tests.bench.bench_soak import KEYS_S, PART_S, site_of
from tests.bench.camera_clips import camera_clip, repeated
from tests.bench.report import tell
from tests.ray_cluster import can_run, in_namespace, wait_for

SETTLE_S = 60.0
"""How long the fleet runs before it is measured."""
START_S = 420.0
"""How long all cameras may take to be placed and decided."""


class Crowd(Run):
    NODE = ("--num-cpus=64",)
    HOP_S = KEYS_S

    def watched(self):
        part = camera_clip(self.folder / "part.mp4", 360, 640, 10, PART_S, 400_000)
        clip = repeated(part, self.folder / "camera.ts", round(self.options.minutes + START_S / 60) + 1)
        site = site_of(clip, 1, overloaded=False, packed=False, keys=True)
        (camera,) = site["streams"].values()
        return {
            "defaults": site["defaults"],
            "streams": dict.fromkeys(self.streams, camera),
            "watches": site["watches"],
            "evidence": {"dir": str(self.folder / "evidence")},
        }

    def decided(self):
        """Hops that were decided so far, of all streams."""
        return self.query(sa.select(sa.func.count()).select_from(HOP_ANSWERS))[0][0]


def main(options: argparse.Namespace) -> None:
    run = Crowd(Path(tempfile.mkdtemp(prefix="rc", dir="/tmp")), options)
    try:
        wait_for(lambda: run.all_decide(options.nodes), START_S, "all cameras")
        time.sleep(SETTLE_S)
        nodes = [one for name in run.cluster.nodes for one in run.cluster.all_of(name)]
        ours = [one for one in nodes if one.cmdline()[0].startswith(ACTOR)]
        before, cpu, began_s = run.decided(), cpu_s(ours), time.monotonic()
        time.sleep(60 * options.minutes)
        seconds = time.monotonic() - began_s
        hops, cores = run.decided() - before, (cpu_s(ours) - cpu) / seconds
        resident = sum(one.memory_info().rss for one in ours) / 2**20
        busy = psutil.cpu_percent(1.0) * psutil.cpu_count() / 100
        run.stop()
        found = run.audit()
    finally:
        run.close()
    due = options.streams * seconds / KEYS_S
    rows = [
        ("hops decided, of those due", hops, round(due)),
        ("hops of stream time that nobody decided, or two nodes", found["missed"], found["two_owners"]),
        ("% of a core a camera, and cores of the machine that are busy", 100 * cores / options.streams, busy),
        ("MiB of all nodes, and a camera", resident, resident / options.streams),
    ]
    summary = {"streams": options.streams, "nodes": options.nodes, "hop_ratio": hops / due, "lost": found["lost"]}
    summary |= {"core_share_a_stream": cores / options.streams, "mib_a_stream": resident / options.streams}
    tell(f"crowd: {options.streams} x 360p on {options.nodes} nodes", ("what", "value", "and"), rows, summary)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", nargs="?", type=int, default=200)
    parser.add_argument("minutes", nargs="?", type=float, default=3.0)
    parser.add_argument("--nodes", type=int, default=2)
    chosen = parser.parse_args()
    if reason := can_run():
        parser.exit(2, f"bench_crowd: {reason}\n")
    in_namespace("tests.bench.bench_crowd", sys.argv[1:])
    main(chosen)
