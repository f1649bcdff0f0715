"""What placing costs, and how little moves.

    python -m tests.bench.bench_placement [--streams 2000] [--nodes 100] [--seed 1]

Streams of uneven cost are placed on nodes of uneven size; then one node goes, one joins, one is drained, each alone.
`moved` is over the least that must move: the streams of the node that goes, and for one that joins the number of mean
streams that make up its share. The last line is JSON.
"""

import argparse
import random
import time

from pipeline.fleet.placement import NodeRoom, StreamNeed, place
from tests.bench.report import tell


def measured(needs, rooms, now):
    began_s = time.perf_counter()
    found = place(needs, rooms, now)
    seconds = time.perf_counter() - began_s
    moved = sum(now.get(stream, node) != node for stream, node in found.nodes.items())
    return found, seconds, moved


def main(options: argparse.Namespace) -> None:
    rng = random.Random(options.seed)
    needs = [StreamNeed(f"s{n:04d}", round(rng.uniform(0.05, 0.5), 3)) for n in range(options.streams)]
    whole = sum(need.cost for need in needs)
    sizes = [rng.choice([4, 8, 16]) for _ in range(options.nodes)]
    spare = 1.5 * whole / sum(sizes)
    rooms = [NodeRoom(f"n{n:03d}", size * spare) for n, size in enumerate(sizes)]
    found, fresh_s, _ = measured(needs, rooms, {})
    gone = rooms[options.nodes // 2]
    must = sum(node == gone.node for node in found.nodes.values())
    _, gone_s, moved = measured(needs, [room for room in rooms if room is not gone], found.nodes)
    newcomer = NodeRoom("new", 8 * spare)
    share = newcomer.capacity / sum(room.capacity for room in [*rooms, newcomer]) * options.streams
    _, joined_s, taken = measured(needs, [*rooms, newcomer], found.nodes)
    drained = [NodeRoom(one.node, one.capacity, takes=one is not gone, keeps=one is not gone) for one in rooms]
    _, drained_s, left = measured(needs, drained, found.nodes)
    _, again_s, again = measured(needs, rooms, found.nodes)
    rows = [
        ("placed anew", fresh_s, len(found.nodes), len(needs)),
        ("one node goes", gone_s, moved, must),
        ("one joins", joined_s, taken, round(share)),
        ("one is drained", drained_s, left, must),
        ("nothing has changed", again_s, again, 0),
    ]
    summary = {
        "streams": options.streams,
        "nodes": options.nodes,
        "place_s": max(fresh_s, gone_s, joined_s, drained_s),
        "moved_over_least": moved / must,
        "joined_over_share": taken / share,
        "unplaced": len(found.reasons),
    }
    tell("placement", ("what", "seconds", "streams moved", "the least"), rows, summary)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    main(parser.parse_args())
