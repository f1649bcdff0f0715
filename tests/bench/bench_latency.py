"""From the capture of the deciding frame to the broker's acknowledgement: a live RTSP camera, null MLLM, real Kafka.

Every hop decides something. The deciding frame is the last of its hop; the first of the hop, which waited for it, is
shown too. The alternative in the same run is a local journal with one fsync per batch.

Run: KAFKA_BOOTSTRAP_SERVERS=host:port python -m tests.bench.bench_latency [SECONDS]      Target: p95 <= 1 hop + 50 ms.
"""

import asyncio
import os
import sys
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pipeline.build as build_module
from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.core.context import Context
from pipeline.mllm.null import NullMLLM
from pipeline.service.service import Service
from pipeline.types import Event, WatchQuery
from tests.bench.report import median, p95, tell
from tests.live.cameras import rtsp_camera

HOP_S, WARM_UP = 1.0, 5


def turning(context: Context, query: WatchQuery) -> float:
    """Another answer at every hop."""
    return float(int(context.segments[-1].pts_s[-1] / HOP_S) % 2)


async def measure(url: str, bootstrap: str, seconds: float, folder: Path) -> dict[str, list[float]]:
    """Seconds from the deciding frame to the acknowledgement, by sink."""
    site = parse_site(
        {
            "streams": {"camera": {"url": url}},
            "watches": {"turning": {"question": "has it turned?"}},
            "mllm": "null",
            "sinks": {
                "kafka": f"kafka://{bootstrap}/bench-{uuid.uuid4().hex[:8]}",
                "journal": f"jsonl:{folder / 'events.jsonl'}",
            },
            "store": f"sqlite:///{folder / 'bench.db'}",
            "metrics": {"port": 0},
        }
    )
    delays: dict[str, list[float]] = defaultdict(list)

    class Measured(Service):
        def _delivered(self, sink: str, events: Sequence[Event], now: datetime) -> None:
            for event in events:
                if event.watch_id:
                    captured_at = datetime.fromisoformat(str(event.data["captured_at"]))
                    delays[sink].append((now - captured_at).total_seconds())

    async with Measured(site, SystemClock()):
        await asyncio.sleep(seconds)
    return delays


def main(seconds: float) -> None:
    build_module.NullMLLM = lambda: NullMLLM(turning)  # type: ignore[assignment,misc]
    bootstrap = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if not bootstrap:
        sys.exit("KAFKA_BOOTSTRAP_SERVERS is not set; expected host:port of a Kafka broker")
    with rtsp_camera() as camera, tempfile.TemporaryDirectory() as scratch:
        delays = asyncio.run(measure(camera.url, bootstrap, seconds, Path(scratch)))
    kafka, journal = delays["kafka"][WARM_UP:], delays["journal"][WARM_UP:]
    waited = [delay + HOP_S / 2 for delay in kafka]
    rows = [
        ("Kafka, from the deciding frame", median(kafka) * 1000, p95(kafka) * 1000, len(kafka)),
        ("Kafka, from the first frame of the hop", median(waited) * 1000, p95(waited) * 1000, len(kafka)),
        ("journal, from the deciding frame", median(journal) * 1000, p95(journal) * 1000, len(journal)),
    ]
    summary = {"p50_s": median(kafka), "p95_s": p95(kafka), "first_frame_p95_s": p95(waited), "target_s": HOP_S + 0.05}
    summary |= {"kafka_vs_journal": median(kafka) / median(journal), "events": len(kafka)}
    tell("event latency, RTSP to acknowledged", ("what", "median ms", "p95 ms", "events"), rows, summary)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
