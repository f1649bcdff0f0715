"""CPU of a stream in a fleet of one node and in one of several, on a Ray cluster of this machine, with PostgreSQL.

    python -m tests.bench.bench_scaling [--nodes 4] [--streams 16] [--seconds 60] [--rounds 3]

`--streams` are those of each node: a small camera each, one watch, the null MLLM. The CPU is that of the processes that
run streams; what Ray's own processes take is shown beside it. The ratio is the cost of a stream with `--nodes` nodes
over that with one, in the same run: the rounds alternate. Wanted: at most 1.1. Needs what bench_failover needs. The
last line is JSON.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.bench_failover import Run
from tests.bench.report import median, tell
from tests.ray_cluster import can_run, in_namespace, wait_for

ACTOR = "ray::"
"""The title of a process of Ray that runs our code begins so."""
SETTLE_S = 20.0
"""How long a fleet runs before it is measured: streams move, and tables are filled."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU in per cent of a core: a stream's, of the process that runs it, and of Ray's own processes of a node."""

    stream: float
    of_ray: float


def cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def measured(nodes: int, streams: int, seconds: float) -> Cost:
    """The cost in a fleet of its own."""
    folder = Path(tempfile.mkdtemp(prefix="rs", dir="/tmp"))
    options = argparse.Namespace(nodes=nodes, streams=nodes * streams)
    run = Run(folder, options)
    try:
        wait_for(lambda: run.all_decide(nodes), 240, "the fleet")
        time.sleep(SETTLE_S)
        every = [process for name in run.cluster.nodes for process in run.cluster.all_of(name)]
        ours = [process for process in every if process.cmdline()[0].startswith(ACTOR)]
        others = [process for process in every if process not in ours]
        before, began_s = (cpu_s(ours), cpu_s(others)), time.monotonic()
        time.sleep(seconds)
        spent_s = time.monotonic() - began_s
        after = cpu_s(ours), cpu_s(others)
        run.stop()
        found = run.audit()
        assert (found["lost"], found["two_owners"]) == (0, 0), found
    finally:
        run.close()
    percent = [100 * (late - early) / spent_s for early, late in zip(before, after, strict=True)]
    return Cost(percent[0] / (nodes * streams), percent[1] / nodes)


def main(options: argparse.Namespace) -> None:
    one, several = [], []
    for _ in range(options.rounds):
        one.append(measured(1, options.streams, options.seconds))
        several.append(measured(options.nodes, options.streams, options.seconds))
    ratios = [many.stream / single.stream for single, many in zip(one, several, strict=True)]
    rows = [
        (f"{nodes} x {options.streams}", median([cost.stream for cost in costs]), median([c.of_ray for c in costs]))
        for nodes, costs in ((1, one), (options.nodes, several))
    ]
    head = ("nodes x streams", "% of a core a stream, median", "% of a core for Ray itself, a node")
    summary = {"nodes": options.nodes, "streams": options.streams, "rounds": options.rounds}
    tell("scaling", head, rows, summary | {"ratio": median(ratios), "ratio_max": max(ratios), "target": 1.1})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    if reason := can_run():
        parser.exit(2, f"bench_scaling: {reason}\n")
    in_namespace("tests.bench.bench_scaling", sys.argv[1:])
    main(chosen)
