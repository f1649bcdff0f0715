"""A service with its API, asked by real HTTP on the test's own loop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.parser import BytesParser

import httpx
import yaml

from pipeline.api.server import ApiServer, Serving
from pipeline.clock import SystemClock
from pipeline.page.app import install
from pipeline.service.reconciler import Reconciler

LIVE = {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4", "realtime": True}
"""A camera that never ends."""


@dataclass(frozen=True)
class Running:
    reconciler: Reconciler
    api: ApiServer
    client: httpx.AsyncClient


def site_file(folder, **raw):
    path = folder / "site.yaml"
    whole = {
        "mllm": "null",
        "sinks": {},
        "store": f"sqlite:///{folder / 'service.db'}",
        "metrics": {"port": 0},
        "drain_s": 5,
    } | raw
    path.write_text(yaml.safe_dump(whole))
    return path


@asynccontextmanager
async def running(folder, port, **raw) -> AsyncIterator[Running]:
    """A service on the null MLLM, its API on a port of loopback."""
    api = {"port": port, "rate_per_s": 10_000, "burst": 10_000, "allow_addresses": ["loopback"]} | raw.pop("api", {})
    reconciler = Reconciler(site_file(folder, api=api, **raw), SystemClock())
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20)
    async with Serving(reconciler, SystemClock(), install) as serving, client:
        yield Running(reconciler, serving.api, client)


async def tiles(client, streams):
    """The statuses of streams as JSON, and the new pictures by STREAM.NUMBER."""
    response = await client.get("/v1/tiles", params={"streams": streams})
    assert response.status_code == 200
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    parts = BytesParser().parsebytes(head + response.content).get_payload()
    names = [part.get_param("name", header="content-disposition") for part in parts]
    pictures = {part.get_filename(): part.get_payload(decode=True) for part in parts[1:]}
    assert names[0] == "status"
    return parts[0].get_payload(), pictures
