"""The page before many streams: first paint and tiles in a Chromium, and what browsers that look at the wall cost.

python -m tests.bench.bench_page [--streams 200] [--browsers 20] [--visible 40] [--seconds 20]
python -m tests.bench.bench_page --hour 60 --browsers 10

With --hour MINUTES so many browsers at a time come, look at a screen, and go, while the memory of the service is
measured: a table, and JSON in the last line (`grew_mib`: from the third quarter to the last).
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path
from random import Random
from statistics import mean

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.report import median, p95, tell
from tests.browser import browser
from tests.live.page_service import PageService, page_service

EVERY_S = 2.0
"""How often the wall asks (`wall.js`)."""
STREAM = {
    "url": "synthetic:?seconds=inf&width=160&height=96&fps=1",
    "realtime": True,
    "sample_fps": 0.5,
    "hop_s": 4,
    "health": {"frozen_s": 0, "blind_s": 0, "moved_s": 0},
}
VISITS = 7
"""Times that each page is opened."""
SCREENS = ("", "streams/cam-000", "", "events", "watches/car", "", "system", "?state=up", "streams/cam-001")
STAY_S = (3.0, 30.0)
"""How long a browser looks at a screen, at least and at most."""
SAMPLES = 60
"""Of the memory, in all; but not more often than every five seconds."""
_TICKS = os.sysconf("SC_CLK_TCK")
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
FILLED = """() => [...document.querySelectorAll('.tile')].filter((tile) => {
  const box = tile.getBoundingClientRect();
  return box.top < innerHeight && box.bottom > 0 && !tile.querySelector('.has-picture');
}).length"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--browsers", type=int, default=20)
    parser.add_argument("--visible", type=int, default=40, help="tiles that a browser sees")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--hour", type=float, metavar="MINUTES", help="let browsers come and go for so long")
    asked = parser.parse_args()
    streams = {f"cam-{n:03}": STREAM for n in range(asked.streams)}
    if asked.hour:
        watches = {"car": {"question": "is there a car?"}}
        with (
            tempfile.TemporaryDirectory() as folder,
            page_service(Path(folder), streams=streams, watches=watches) as service,
        ):
            _wait_for_pictures(service, list(streams))
            print(json.dumps(_visited(service, asked.hour, asked.browsers) | {"streams": asked.streams}))
        return
    with tempfile.TemporaryDirectory() as folder, page_service(Path(folder), streams=streams) as service:
        _wait_for_pictures(service, list(streams))
        with browser() as chromium:
            _opened(chromium, service.url)  # Chromium itself starts, and the service compiles what it answers with
            walls = [_opened(chromium, service.url) for _ in range(VISITS)]
            empty = [_painted(chromium, f"{service.url}?state=paused") for _ in range(VISITS)]
        idle = _share(service, asked.seconds)
        polled = asyncio.run(_polled(service, list(streams)[: asked.visible], asked.browsers, asked.seconds))
        lost = _lost(httpx.get(f"{service.url}metrics", timeout=30).text)
    paints, tiles = ([one[name] for one in walls] for name in ("first_paint_ms", "tiles_ms"))
    rows = [
        ("first paint of the wall, ms", median(paints), p95(paints)),
        ("first paint of the same page without a stream, ms", median(empty), p95(empty)),
        ("until all tiles in view have a picture, ms", median(tiles), p95(tiles)),
        ("a request for tiles, ms", polled["p50_ms"], polled["p95_ms"]),
        (f"of a core: {asked.browsers} browsers, and the streams alone", polled["share"] - idle, idle),
        ("frames lost or hops unanswered", lost, ""),
    ]
    summary: dict[str, object] = {
        "streams": asked.streams,
        "first_paint_ms": [median(paints), p95(paints)],
        "paint_ratio": round(median(paints) / median(empty), 2),
        "tiles_ms": [median(tiles), p95(tiles)],
        "browsers": asked.browsers,
        "visible": asked.visible,
        "core_share_idle": round(idle, 3),
        "core_share_of_browsers": round(polled["share"] - idle, 3),
        "tile_requests": polled["requests"],
        "request_ms": [polled["p50_ms"], polled["p95_ms"]],
        "lost": lost,
        "load": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }
    tell(f"page: a wall of {asked.streams} streams", ("what", "median", "p95"), rows, summary)


@dataclass(frozen=True)
class Sample:
    """The service at a time: minutes since the beginning, MiB resident, open files, listeners, visits so far."""

    minute: float
    mib: float
    files: int
    listeners: int
    visits: int


def _visited(service: PageService, minutes: float, browsers: int) -> dict[str, object]:
    """Browsers come and go; the memory of the service meanwhile."""
    process, random, visits = psutil.Process(service.pid), Random(7), 0
    began = time.monotonic()
    until, samples = began + 60 * minutes, list[Sample]()
    every = max(60 * minutes / SAMPLES, 5.0)
    print(f"{'min':>5} {'MiB':>7} {'files':>6} {'listeners':>9} {'visits':>6}")

    def sample() -> None:
        found = Sample(
            (time.monotonic() - began) / 60, process.memory_info().rss / 2**20, process.num_fds(),
            _listeners(service), visits,
        )  # fmt: skip
        samples.append(found)
        print(f"{found.minute:5.1f} {found.mib:7.1f} {found.files:6} {found.listeners:9} {found.visits:6}", flush=True)

    with browser() as chromium:
        present: list[tuple[float, object]] = []
        while time.monotonic() < until:
            if time.monotonic() - began >= every * len(samples):
                sample()
            for leaving in [one for one in present if one[0] <= time.monotonic()]:
                present.remove(leaving)
                leaving[1].context.close()
            if len(present) == browsers:
                present[0][1].wait_for_timeout(200)
                continue
            page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.goto(service.url + SCREENS[visits % len(SCREENS)], wait_until="commit", timeout=120_000)
            present.append((time.monotonic() + random.uniform(*STAY_S), page))
            visits += 1
    deadline = time.monotonic() + 30
    while _listeners(service) and time.monotonic() < deadline:
        time.sleep(1)
    sample()
    return {
        "minutes": minutes, "browsers": browsers, "visits": visits,
        "mib": [round(samples[0].mib, 1), round(samples[-1].mib, 1)],
        "grew_mib": round(_grown(samples), 1),
        "files": [samples[0].files, samples[-1].files],
        "listeners_left": samples[-1].listeners,
        "lost": _lost(httpx.get(f"{service.url}metrics", timeout=30).text),
        "load": round(os.getloadavg()[0], 1), "cores": os.cpu_count(),
    }  # fmt: skip


def _grown(samples: Sequence[Sample]) -> float:
    """Growth of the mean memory from the third quarter to the last, in MiB."""
    quarter = max(len(samples) // 4, 1)
    return mean(one.mib for one in samples[-quarter:]) - mean(one.mib for one in samples[-2 * quarter : -quarter])


def _listeners(service: PageService) -> int:
    """Who listens to events, answers or pictures."""
    for family in text_string_to_metric_families(httpx.get(f"{service.url}metrics", timeout=30).text):
        for one in family.samples:
            if one.name == "resadapt_api_listeners":
                return int(one.value)
    raise SystemExit("the metrics do not say how many listen")


def _wait_for_pictures(service: PageService, streams: list[str]) -> None:
    """Until all streams are up."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = service.api("GET", "v1/streams?limit=1000").json()["items"]
        if sum(one["status"]["state"] == "up" for one in found) == len(streams):
            return
        time.sleep(1)
    raise SystemExit("the streams did not come up")


def _opened(chromium, url: str) -> dict[str, float]:
    """A new browser opens the wall: ms to the first paint, and until all tiles to be seen have a picture."""
    context = chromium.new_context(viewport={"width": 1920, "height": 1080})
    page = context.new_page()
    began = time.monotonic()
    page.goto(url, wait_until="commit")
    page.wait_for_selector(".tile")
    while page.evaluate(FILLED) and time.monotonic() - began < 60:
        page.wait_for_timeout(20)
    tiles_ms = (time.monotonic() - began) * 1000
    found = {"first_paint_ms": round(page.evaluate(PAINTED)), "tiles_ms": round(tiles_ms)}
    context.close()
    return found


def _painted(chromium, url: str) -> float:
    """A new browser opens a page: ms to the first paint."""
    context = chromium.new_context(viewport={"width": 1920, "height": 1080})
    page = context.new_page()
    page.goto(url, wait_until="load")
    page.wait_for_function(f"({PAINTED})() > 0")
    painted_ms = float(round(page.evaluate(PAINTED)))
    context.close()
    return painted_ms


def _lost(metrics: str) -> int:
    """Frames overwritten unread, and hops whose questions were not answered although some were due."""
    lost = 0.0
    for family in text_string_to_metric_families(metrics):
        for one in family.samples:
            if one.name == "resadapt_frames_lost_total" or (
                one.name == "resadapt_hops_skipped_total" and one.labels["reason"] != "nothing_due"
            ):
                lost += one.value
    return int(lost)


def _cpu_s(service: PageService) -> float:
    fields = Path(f"/proc/{service.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _share(service: PageService, seconds: float) -> float:
    before, began = _cpu_s(service), time.monotonic()
    time.sleep(seconds)
    return (_cpu_s(service) - before) / (time.monotonic() - began)


async def _polled(service: PageService, streams: list[str], browsers: int, seconds: float) -> dict[str, float]:
    """Clients that ask for tiles as the wall does: only for pictures that they have not."""
    until, took = time.monotonic() + seconds, []

    async def look(number: int) -> None:
        known = dict.fromkeys(streams, "0")
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
            await asyncio.sleep(EVERY_S * number / browsers)
            while time.monotonic() < until:
                began = time.monotonic()
                asked = ",".join(f"{slug}:{seen}" for slug, seen in known.items())
                response = await client.get("v1/tiles", params={"width": 320, "streams": asked})
                response.raise_for_status()
                took.append((time.monotonic() - began) * 1000)
                known |= _seen(response)
                await asyncio.sleep(max(EVERY_S - (time.monotonic() - began), 0))

    before, began = _cpu_s(service), time.monotonic()
    await asyncio.gather(*(look(number) for number in range(browsers)))
    share = (_cpu_s(service) - before) / (time.monotonic() - began)
    took.sort()
    at = [round(took[int(part * (len(took) - 1))], 1) for part in (0.5, 0.95)]
    return {"share": share, "requests": len(took), "p50_ms": at[0], "p95_ms": at[1]}


def _seen(response: httpx.Response) -> dict[str, str]:
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    names = [part.get_filename() or "" for part in BytesParser().parsebytes(head + response.content).get_payload()]
    return {name.split(".")[0]: name.split(".")[1] for name in names if name}


if __name__ == "__main__":
    main()
