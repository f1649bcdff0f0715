"""What durability costs: grouped commits against one transaction per decision.

    python -m tests.bench.bench_outbox [--streams 200] [--seconds 10] [--event-share 0.05] [--group-s 0.02]

Each stream commits one decision per second at a moment of its own; a share of them carries an event, which a relay
delivers to memory. Both ways run at the same rate, then as fast as they can. CPU is that of the whole process, as a
share of one core; what the pacing alone costs is measured first and taken off in the last line, which is JSON.
`cpu_ratio` and `throughput_ratio` are grouped over single.
"""

import argparse
import asyncio
import json
import platform
import sqlite3
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import sqlalchemy

from pipeline.clock import SystemClock
from pipeline.core.outcome import Decision
from pipeline.delivery.outbox import GROUP_S, Outbox
from pipeline.delivery.relay import Relay
from pipeline.delivery.store import Store
from pipeline.testing import MemorySink
from pipeline.types import Event

STATE = json.dumps({"watches": {"fire@0123456789ab": {"is_open": False, "votes": [[1.0, False, True]] * 4}}, "n": 17})


@dataclass(frozen=True)
class Line:
    way: str
    decisions_per_s: float
    transactions_per_s: float
    cpu_percent: float
    commit_p50_ms: float
    commit_p95_ms: float


def decision(stream: int, n: int, event_share: float) -> Decision:
    name = f"cam{stream:03d}"
    every = round(1 / event_share) if event_share else 0
    data = {"question": "Is there smoke or fire?", "n": n, "score": 0.93, "hop_start_s": float(n)}
    sends = bool(every) and (stream + n) % every == 0
    events = (Event(f"{name}-{n}", "watch.opened", name, datetime.now(UTC), data, "fire"),) if sends else ()
    return Decision(name, STATE, events, float(n))


class Single:
    """One transaction per decision, in the same one thread."""

    def __init__(self, store: Store, wake) -> None:
        self.store, self.wake, self.groups = store, wake, 0
        self.thread = ThreadPoolExecutor(1)

    async def commit(self, decision: Decision) -> None:
        new = await asyncio.get_running_loop().run_in_executor(self.thread, self.store.commit, [decision])
        self.groups += 1
        if new:
            self.wake(new)

    async def close(self) -> None:
        self.thread.shutdown()


class Nothing:
    """What the pacing of the streams costs by itself."""

    groups = 0

    async def commit(self, decision: Decision) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        return


async def paced(outbox, stream: int, streams: int, until_s: float, share: float, waits: list[float]) -> None:
    due_s = time.perf_counter() + stream / streams
    n = 0
    while due_s < until_s:
        await asyncio.sleep(max(due_s - time.perf_counter(), 0))
        began_s = time.perf_counter()
        await outbox.commit(decision(stream, n, share))
        waits.append(time.perf_counter() - began_s)
        n, due_s = n + 1, due_s + 1.0


async def flat_out(outbox, stream: int, until_s: float, share: float, waits: list[float]) -> None:
    n = 0
    while (began_s := time.perf_counter()) < until_s:
        await outbox.commit(decision(stream, n, share))
        waits.append(time.perf_counter() - began_s)
        n += 1


async def measure(way: str, kind: str, rate: bool, options: argparse.Namespace) -> Line:
    with tempfile.TemporaryDirectory() as folder:
        clock = SystemClock()
        store = Store(options.store or f"{folder}/store.db", clock)
        relay = Relay(store, [MemorySink()], clock)
        await relay.start()
        grouped = Outbox(store, clock, relay.wake, group_s=options.group_s)
        outbox = {"nothing": Nothing(), "grouped": grouped, "single": Single(store, relay.wake)}[kind]
        await outbox.commit(decision(999, 0, 0))
        waits: list[float] = []
        began_s, cpu_s = time.perf_counter(), time.process_time()
        until_s = began_s + options.seconds
        share = options.event_share
        await asyncio.gather(
            *(
                paced(outbox, k, options.streams, until_s, share, waits)
                if rate
                else flat_out(outbox, k, until_s, share, waits)
                for k in range(options.streams)
            )
        )
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        groups = outbox.counts.groups if isinstance(outbox, Outbox) else outbox.groups
        await outbox.close()
        await relay.drain(10)
        await relay.close()
        store.close()
    cuts = statistics.quantiles(waits, n=20)
    return Line(way, len(waits) / wall_s, groups / wall_s, 100 * cpu_s / wall_s, 1e3 * cuts[9], 1e3 * cuts[18])


async def main(options: argparse.Namespace) -> None:
    print(f"Python {platform.python_version()}, SQLAlchemy {sqlalchemy.__version__}, SQLite {sqlite3.sqlite_version}")
    print(f"{options.streams} streams, group {1e3 * options.group_s:.0f} ms, {options.event_share:.0%} with an event")
    nothing = await measure("no commits, 1/s each", "nothing", True, options)
    lines = [
        await measure("grouped, 1/s each", "grouped", True, options),
        await measure("single, 1/s each", "single", True, options),
        await measure("grouped, flat out", "grouped", False, options),
        await measure("single, flat out", "single", False, options),
    ]
    print(f"{'way':22s}{'decisions/s':>13s}{'transactions/s':>16s}{'CPU %':>8s}{'p50 ms':>9s}{'p95 ms':>9s}")
    for line in (nothing, *lines):
        numbers = f"{line.decisions_per_s:13.0f}{line.transactions_per_s:16.0f}{line.cpu_percent:8.1f}"
        print(f"{line.way:22s}{numbers}{line.commit_p50_ms:9.1f}{line.commit_p95_ms:9.1f}")
    grouped, single = (line.cpu_percent - nothing.cpu_percent for line in lines[:2])
    numbers = {
        "cpu_percent_grouped": grouped,
        "cpu_percent_single": single,
        "cpu_ratio": grouped / single,
        "throughput_ratio": lines[2].decisions_per_s / lines[3].decisions_per_s,
    }
    print(json.dumps({"bench": "outbox", **numbers, "lines": [asdict(line) for line in (nothing, *lines)]}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--event-share", type=float, default=0.05)
    parser.add_argument("--group-s", type=float, default=GROUP_S)
    parser.add_argument("--store", help="database URL; a temporary SQLite file where absent")
    asyncio.run(main(parser.parse_args()))
