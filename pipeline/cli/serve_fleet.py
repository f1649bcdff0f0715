"""`resadapt serve --cluster`: the head of a fleet, with the API, until a signal."""

import asyncio
from functools import partial
from pathlib import Path

import structlog

from pipeline.api.node_pictures import offer_pictures
from pipeline.api.server import Serving
from pipeline.build import require_installed
from pipeline.cli.ending import Signals, started
from pipeline.cli.serve import reload_when_asked
from pipeline.clock import SystemClock
from pipeline.config.site import load_site
from pipeline.errors import ConfigError
from pipeline.fleet.head import FleetHead, require_server
from pipeline.loop import Observe
from pipeline.page.app import install
from pipeline.redact import redact_mllm
from pipeline.service.memory import keep_steady
from pipeline.waiting import first, stop, supervise

log = structlog.get_logger()


async def serve_fleet(path: Path | None, address: str, observe: Observe) -> None:
    """Head the fleet of a site file on a Ray cluster. A cluster that was started for it ends with it; on any other the
    nodes go on, and another head takes over."""
    if path is None:
        raise ConfigError("--cluster needs a site file (-c), whose store is a PostgreSQL database")
    require_server(load_site(path))
    require_installed("ray", "fleet", f"--cluster {address} is a Ray cluster")
    from pipeline.fleet.cluster import RayCluster

    cluster = RayCluster(address, offer_pictures)
    try:
        await _lead(FleetHead(path, SystemClock(), cluster, observe), end_nodes=cluster.is_own)
    finally:
        await asyncio.to_thread(cluster.close)
    log.info("stopped")


async def _lead(head: FleetHead, end_nodes: bool) -> None:
    clock, reconciler = SystemClock(), head.reconciler
    service = reconciler.service
    signals = Signals(clock, reload_on_hangup=True)
    keep_steady(service.site.mllm)
    log.info("starting", config=str(reconciler.path), mllm=redact_mllm(service.site.mllm.use), head=head.holder)
    async with started(Serving(reconciler, clock, install), signals):
        head.begin()
        log.info("serving", streams=sorted(service.site.streams), watches=sorted(service.site.watches))
        reload = partial(reload_when_asked, reconciler, head.reload, signals)
        reloading = asyncio.create_task(supervise("reload", reload, clock), name="reload")
        broken = asyncio.create_task(service.broken())
        try:
            await first(signals.stop.wait(), asyncio.wait({broken}))
            log.info("draining", at_most_s=service.site.drain_s, nodes="end" if end_nodes else "go on")
        finally:
            await stop([reloading])
            await head.close(end_nodes)
    if broken.done():
        await broken
    await stop([broken])
