"""What the registry, its API and the answers it keeps cost: 200 streams and 20 watches.

    python -m tests.bench.bench_registry [--streams 200] [--watches 20] [--edits 40] [--hops 2000]

A service with that many paused streams is listed, edited and reconciled over HTTP; the time from an edit to what runs
is that of one watch more on the board. Then as many decisions are committed with and without the record of their
answers: `answers_core_percent` is what that costs more at one hop a second of each stream, as a share of one core.
Times are milliseconds.

`--listeners` clients listen to the answers of eight live streams for `--listen-s` seconds: `hops_lost` is how many of
the hops that were decided between the first and the last that a client got it did not get, of all clients together.
`--attach` times a camera (RTSP) is attached by the API to a service whose MLLM, the yard's, is warm: the time until its
first answer is in the history. Without an RTSP server on this machine that is left out, saying so.
"""

import argparse
import asyncio
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from pipeline.clock import SystemClock
from pipeline.core.outcome import Decision, HopRecord
from pipeline.delivery.history import Keep
from pipeline.delivery.store import Store
from pipeline.types import Answer
from tests.api import LIVE, running
from tests.bench.report import median, p95, tell
from tests.live.cameras import has_rtsp_server, rtsp_camera


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


def hops_lost(got: Sequence[int], decided: Sequence[int]) -> int:
    """How many of the decided hops a listener did not get, from the first that it got on."""
    return len({seq for seq in decided if got[0] <= seq <= got[-1]} - set(got)) if got else len(decided)


async def listened(folder: Path, listeners: int, seconds: float) -> tuple[int, int]:
    """Hops decided while all listened, and how many were lost on the way to them."""
    live = {f"cam{n}": LIVE for n in range(8)}
    async with running(folder, free_port(), streams=live, watches={"w": {"question": "is there one?"}}) as service:
        heard: list[list[int]] = [[] for _ in range(listeners)]

        async def listen(place: int) -> None:
            async with client.stream("GET", "/v1/answers/stream") as answers:
                async for line in answers.aiter_lines():
                    if line.startswith("id: "):
                        heard[place].append(int(line[4:]))

        limits = httpx.Limits(max_connections=None)
        client = httpx.AsyncClient(base_url=service.client.base_url, limits=limits, timeout=None)
        tasks = [asyncio.create_task(listen(place)) for place in range(listeners)]
        while not all(heard):
            await asyncio.sleep(0.1)
        await asyncio.sleep(seconds)
        stored = await asyncio.to_thread(service.reconciler.history().answers_after, 0, 100_000)
        decided = [one.seq for one in stored]
        await asyncio.sleep(2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.aclose()
        upto = [[seq for seq in got if seq <= decided[-1]] for got in heard]
        behind = sum(1 for got in upto for seq in decided if seq > got[-1])
        return len(decided), behind + sum(hops_lost(got, decided) for got in upto)


async def attach_seconds(folder: Path, times: int) -> list[float]:
    """Seconds from asking for a camera to its first answer, with a warm MLLM."""
    if not has_rtsp_server():
        return []
    warm = {"file": {"url": "synthetic:?seconds=inf&width=320&height=180", "realtime": True}}
    watches = {"car": {"question": "is there a car?"}}
    took = []
    with rtsp_camera() as camera:
        async with running(folder, free_port(), streams=warm, watches=watches, mllm="yard") as service:
            history = service.reconciler.history()

            async def answered(slug: str) -> None:
                while not any(one.record["answers"] for one in await asyncio.to_thread(history.answers, [slug], 5)):
                    await asyncio.sleep(0.02)

            await answered("file")
            for n in range(times):
                began_s = time.perf_counter()
                body = {"slug": f"cam{n}", "url": camera.url}
                (await service.client.post("/v1/streams", json=body)).raise_for_status()
                await answered(f"cam{n}")
                took.append(time.perf_counter() - began_s)
                (await service.client.delete(f"/v1/streams/cam{n}")).raise_for_status()
    return took


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
    for name, value in (("--listeners", 100), ("--listen-s", 20), ("--attach", 5)):
        parser.add_argument(name, type=int, default=value)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = asyncio.run(over_http(folder, given.streams, given.watches, given.edits))
        without, with_answers = (
            commit_seconds(folder, given.streams, given.watches, given.hops, kept) for kept in (False, True)
        )
        folders = [folder / name for name in ("listeners", "attach")]
        for one in folders:
            one.mkdir()
        decided, lost = (
            asyncio.run(listened(folders[0], given.listeners, given.listen_s)) if given.listeners else (0, 0)
        )
        attached = asyncio.run(attach_seconds(folders[1], given.attach)) if given.attach else []
    rows: list[tuple[str, object, object]] = [(what, median(values), p95(values)) for what, values in times.items()]
    core = 100 * given.streams * (with_answers - without) / given.hops
    rows.append(("answers kept: % of a core", core, core))
    rows.append((f"hops to {given.listeners} listeners, lost", decided, lost))
    if attached:
        rows.append(("attach to first answer, s", median(attached), p95(attached)))
    elif given.attach:
        rows.append(("attach to first answer", "left out:", "no RTSP server here"))
    summary: dict[str, object] = {f"{what.replace(' ', '_')}_p95_ms": p95(values) for what, values in times.items()}
    summary |= {"answers_core_percent": core, "listeners": given.listeners, "hops_decided": decided, "hops_lost": lost}
    tell("registry", ("what", "p50", "p95"), rows, summary | {"attach_p95_s": p95(attached) if attached else None})


if __name__ == "__main__":
    main()
