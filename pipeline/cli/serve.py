"""`resadapt serve`: all streams of a site file, until a signal drains them."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

import structlog

from pipeline.cli.options import LogLevel, SiteFile
from pipeline.cli.output import set_up
from pipeline.cli.play import stop_signal
from pipeline.clock import SystemClock
from pipeline.config.site import SiteConfig, load_site, read_yaml
from pipeline.core.outcome import Outcome
from pipeline.errors import ConfigError
from pipeline.redact import redact_mllm, scrub
from pipeline.service.service import Service
from pipeline.service.unnamed import require_mllm_or_yard
from pipeline.types import Event

EXAMPLE = "Example: resadapt serve -c site.yaml"

log = structlog.get_logger()


def serve(config: SiteFile, log_level: LogLevel = "info") -> None:
    """Watch all streams of a site file until SIGTERM drains them. SIGHUP reads the file again."""
    set_up(log_level)
    asyncio.run(_serve(config))


async def _serve(path: Path) -> None:
    stop = stop_signal()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()
    site = _site(path)
    log.info("starting", config=str(path), mllm=redact_mllm(site.mllm.use))
    async with Service(site, SystemClock(), observe=log_watches) as service:
        loop.add_signal_handler(signal.SIGHUP, lambda: reloads.add(loop.create_task(_reload(service, path))))
        log.info("serving", streams=sorted(service.site.streams), watches=sorted(service.site.watches))
        await stop.wait()
        loop.remove_signal_handler(signal.SIGHUP)
        log.info("draining", at_most_s=service.site.drain_s)
    log.info("stopped")


def log_watches(_outcome: Outcome, events: Sequence[Event]) -> None:
    """Log each event of a watch; those of the stream itself are logged where they are decided."""
    for event in events:
        if event.watch_id is None:
            continue
        data = event.data
        at_s = data.get("onset_s", data.get("cleared_s"))
        about = {"score": round(float(str(data["score"])), 2)} if "score" in data else {"reason": data.get("reason")}
        log.info(
            event.type, stream=event.stream_id, watch=event.watch_id, stream_s=at_s, **about,
            **({"question": data["question"]} if "question" in data else {}),
        )  # fmt: skip


async def _reload(service: Service, path: Path) -> None:
    try:
        await service.reconcile(_site(path))
        log.info("reloaded", streams=sorted(service.site.streams), watches=sorted(service.site.watches))
    except ConfigError as error:
        log.error("not_reloaded", reason=scrub(str(error)))


def _site(path: Path) -> SiteConfig:
    site = load_site(path)
    require_mllm_or_yard(read_yaml(path), site)
    return site
