"""A service over a small recording whose watch opens, with an MLLM that answers by every pixel that it sees."""

import hashlib
from contextlib import asynccontextmanager

from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.delivery.manifests import Manifests
from pipeline.evidence.shelf import Shelf
from pipeline.service.service import Service
from pipeline.testing import ScriptedMLLM
from tests.clips import steady, write

WATCH = {"question": "is a bar in view?", "confirm": [2, 3], "streams": ["gate"]}


def by_pixels(context, query):
    """P(yes), a function of every pixel: above 0.75 until second 8, then below 0.2."""
    digest = hashlib.blake2b(query.asked.encode(), digest_size=4)
    for segment in context.segments:
        digest.update(segment.pixels.tobytes())
    share = int.from_bytes(digest.digest()) / 2**32
    late = context.segments and context.segments[-1].pts_s[-1] >= 8
    return 0.2 * share if late else 0.75 + 0.2 * share


def recording(folder, seconds=12, **how):
    return write(folder / "gate.mp4", steady(seconds), **how)


def site(folder, url, **raw):
    return parse_site(
        {
            "streams": {"gate": {"url": str(url)}},
            "watches": {"bar": WATCH},
            "mllm": "null",
            "sinks": {},
            "store": f"sqlite:///{folder / 'service.db'}",
            "evidence": {"before_s": 2, "after_s": 2, "min_free_mib": 0} | raw.pop("evidence", {}),
            "metrics": {"port": 0},
        }
        | raw
    )


@asynccontextmanager
async def watched(monkeypatch, site, mllm=None):
    """A service that has watched its streams to their end, and written its evidence."""
    monkeypatch.setattr("pipeline.service.opening.build_mllm", lambda *_: mllm or ScriptedMLLM(by_pixels))
    service = Service(site, SystemClock())
    async with service:
        await service.finished()
    yield service


def reopened(store, service):
    return Shelf(store.database, service.evidence_files), Manifests(store.database)
