"""`resadapt serve`: all streams of a site file, until a signal drains them."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import structlog

from pipeline.cli.ending import Signals, run_to_end, started
from pipeline.cli.options import LogLevel, SiteFile
from pipeline.cli.output import set_up
from pipeline.clock import SystemClock
from pipeline.config.site import SiteConfig, load_site, read_yaml
from pipeline.core.outcome import Outcome
from pipeline.errors import ResadaptError
from pipeline.redact import redact_mllm, scrub
from pipeline.service.logged import log_watch_events
from pipeline.service.service import Service
from pipeline.service.unnamed import require_mllm_or_yard
from pipeline.types import Event
from pipeline.waiting import first, stop, supervise

EXAMPLE = "Example: resadapt serve -c site.yaml"

log = structlog.get_logger()


def serve(config: SiteFile, log_level: LogLevel = "info") -> None:
    """Watch all streams of a site file until SIGTERM drains them. SIGHUP reads the file again."""
    set_up(log_level)
    run_to_end(_serve(config))


async def _serve(path: Path) -> None:
    clock, site = SystemClock(), _site(path)
    signals = Signals(clock, reload_on_hangup=True)
    service = Service(site, clock, observe=_log)
    reloading = None
    log.info("starting", config=str(path), mllm=redact_mllm(site.mllm.use))
    try:
        async with started(service, signals):
            log.info("serving", streams=sorted(service.site.streams), watches=sorted(service.site.watches))
            reload = partial(_reload_when_asked, service, path, signals)
            reloading = asyncio.create_task(supervise("reload", reload, clock), name="reload")
            broken = asyncio.create_task(service.broken())
            await first(signals.stop.wait(), asyncio.wait({broken}))
            log.info("draining", at_most_s=service.site.drain_s)
        if broken.done():
            await broken
        await stop([broken])
    finally:
        if reloading:
            await stop([reloading])
    log.info("stopped")


async def _reload_when_asked(service: Service, path: Path, signals: Signals) -> None:
    while True:
        await signals.hangup.wait()
        signals.hangup.clear()
        if signals.stop.is_set():
            log.info("not_reloaded", reason="the service is draining")
            continue
        try:
            await service.reconcile(_site(path))
            log.info("reloaded", streams=sorted(service.site.streams), watches=sorted(service.site.watches))
        except ResadaptError as error:
            log.error("not_reloaded", reason=scrub(str(error)))


def _log(_outcome: Outcome, events: Sequence[Event]) -> None:
    log_watch_events(events)


def _site(path: Path) -> SiteConfig:
    site = load_site(path)
    require_mllm_or_yard(read_yaml(path), site)
    return site
