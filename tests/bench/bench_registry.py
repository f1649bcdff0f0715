"""What the registry, its API and the answers it keeps cost: 200 streams and 20 watches.

    python -m tests.bench.bench_registry [--streams 200] [--watches 20] [--edits 40] [--hops 2000]

A service with that many paused streams is listed, edited and reconciled over HTTP; the time from an edit to what runs
is that of one watch more on the board. Then as many decisions are committed with and without the record of their
answers: `answers_core_percent` is what that costs more at one hop a second of each stream, as a share of one core.
Times are milliseconds.
"""

import argparse
import asyncio
import socket
import tempfile
import time
from pathlib import Path

from pipeline.clock import SystemClock
from pipeline.core.outcome import Decision, HopRecord
from pipeline.delivery.history import Keep
from pipeline.delivery.store import Store
from pipeline.types import Answer
from tests.api import LIVE, running
from tests.bench.report import median, p95, tell


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def over_http(folder: Path, streams: int, watches: int, edits: int) -> dict[str, list[float]]:
    paused = {f"cam{n:03d}": {**LIVE, "paused": True, "tags": [f"t{n % 7}"]} for n in range(streams)}
    site = {"streams": paused, "watches": {f"w{n:02d}": {"question": f"is there a {n}?"} for n in range(watches)}}
    times: dict[str, list[float]] = {"list streams": [], "list watches": [], "edit": [], "edit to applied": []}
    async with running(folder, free_port()) as service:
        (await service.client.post("/v1/apply", json=site)).raise_for_status()

        async def timed(what: str, method: str, path: str, **more: object) -> None:
            began_s = time.perf_counter()
            (await service.client.request(method, path, **more)).raise_for_status()
            times[what].append(1000 * (time.perf_counter() - began_s))

        for n in range(edits):
            await timed("list streams", "GET", "/v1/streams", params={"limit": 1000})
            await timed("list watches", "GET", "/v1/watches", params={"limit": 1000})
            began_s = time.perf_counter()
            await timed("edit", "PATCH", "/v1/watches/w00", json={"priority": n % 50 + 1})
            while service.reconciler.service.site.watches["w00"].priority != n % 50 + 1:
                await asyncio.sleep(0)
            times["edit to applied"].append(1000 * (time.perf_counter() - began_s))
    return times


def commit_seconds(folder: Path, streams: int, watches: int, hops: int, kept: bool) -> float:
    """CPU seconds of committing as many hops, a group of all streams at a time."""
    store = Store(str(folder / f"answers-{kept}.db"), SystemClock(), keep=Keep(answers_bytes=2**29 if kept else 0))
    answers = tuple(Answer(f"w{n:02d}", 0.123456, 0.98765) for n in range(watches))
    record = HopRecord(10.0, 11.0, 400, 380, 390, 0, None, ((10.0, 0.5), (10.5, 0.25)), answers)
    began_s = time.process_time()
    for second in range(hops // streams):
        store.commit([Decision(f"cam{n:03d}", "{}", (), float(second), record) for n in range(streams)])
    spent_s = time.process_time() - began_s
    store.close()
    return spent_s


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("--streams", 200), ("--watches", 20), ("--edits", 40), ("--hops", 20_000)):
        parser.add_argument(name, type=int, default=value)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = asyncio.run(over_http(folder, given.streams, given.watches, given.edits))
        without, with_answers = (
            commit_seconds(folder, given.streams, given.watches, given.hops, kept) for kept in (False, True)
        )
    rows = [(what, median(values), p95(values)) for what, values in times.items()]
    core = 100 * given.streams * (with_answers - without) / given.hops
    rows.append(("answers kept: % of a core", core, core))
    summary = {f"{what.replace(' ', '_')}_p95_ms": p95(values) for what, values in times.items()}
    tell("registry", ("what", "p50", "p95"), rows, summary | {"answers_core_percent": core})


if __name__ == "__main__":
    main()
