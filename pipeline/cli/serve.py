"""`resadapt serve`: all streams of a site file and of the registry, with the API, until a signal drains them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer

from pipeline.cli.ending import Signals, run_to_end, started
from pipeline.cli.options import LogLevel
from pipeline.cli.output import set_up
from pipeline.clock import SystemClock
from pipeline.core.outcome import Outcome
from pipeline.errors import ResadaptError
from pipeline.redact import redact_mllm, scrub
from pipeline.service.logged import log_watch_events
from pipeline.service.memory import keep_steady
from pipeline.service.reconciler import Reconciler
from pipeline.types import Event
from pipeline.waiting import first, stop, supervise

EXAMPLE = "Example: resadapt serve -c site.yaml"

log = structlog.get_logger()


def serve(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="A site file (YAML).")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Run the streams on the nodes of a Ray cluster: auto, or HOST:PORT. Extra: fleet."),
    ] = None,
    log_level: LogLevel = "info",
) -> None:
    """Watch what a site file and the registry want, and offer the API, until SIGTERM drains. SIGHUP reads the file
    again. With --cluster this process is the head of a fleet, and streams run on its nodes."""
    set_up(log_level)
    if cluster is None:
        run_to_end(_serve(config))
        return
    from pipeline.cli.serve_fleet import serve_fleet  # Ray, which a service on one machine does not need

    run_to_end(serve_fleet(config, cluster, _log))


async def _serve(path: Path | None) -> None:
    from pipeline.api.server import Serving  # FastAPI, which the other commands do not need
    from pipeline.page.app import install

    clock = SystemClock()
    reconciler = Reconciler(path, clock, observe=_log)
    signals = Signals(clock, reload_on_hangup=path is not None)
    service = reconciler.service
    reloading = None
    keep_steady(service.site.mllm)
    log.info("starting", config=str(path), mllm=redact_mllm(service.site.mllm.use))
    try:
        async with started(Serving(reconciler, clock, install), signals):
            log.info("serving", streams=sorted(service.site.streams), watches=sorted(service.site.watches))
            reload = partial(reload_when_asked, reconciler, reconciler.reload, signals)
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


async def reload_when_asked(reconciler: Reconciler, reload: Callable[[], Awaitable[None]], signals: Signals) -> None:
    """Read the site file again with each SIGHUP; a file that is wrong changes nothing."""
    while True:
        await signals.hangup.wait()
        signals.hangup.clear()
        if signals.stop.is_set():
            log.info("not_reloaded", reason="the service is draining")
            continue
        try:
            await reload()
            site = reconciler.service.site
            log.info("reloaded", streams=sorted(site.streams), watches=sorted(site.watches))
        except ResadaptError as error:
            log.error("not_reloaded", reason=scrub(str(error)))


def _log(_outcome: Outcome, events: Sequence[Event]) -> None:
    log_watch_events(events)
