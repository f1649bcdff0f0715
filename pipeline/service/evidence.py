"""The evidence of a service: whether it is kept, where, and what of a stream may be in it."""

import asyncio

import structlog

from pipeline.clock import Clock
from pipeline.config.site import SiteConfig, StreamConfig
from pipeline.config.values import resolve_url
from pipeline.delivery.database import Database
from pipeline.delivery.manifests import Manifests
from pipeline.evidence.folder import Folder
from pipeline.evidence.hashes import model_of, sizing_of
from pipeline.evidence.keeper import EvidenceKeeper
from pipeline.evidence.writer import About
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLMInfo

log = structlog.get_logger()


def folder_of(site: SiteConfig) -> Folder:
    """The folder of a site's evidence. Raises ConfigError for a location that is no folder."""
    return Folder(site.evidence.folder(resolve_url(site.store, whole_path=True)))


def wants_evidence(site: SiteConfig, insist: bool) -> bool:
    """True if a service keeps evidence: one that a person has just typed does so only if a folder is named."""
    return site.evidence.enabled and (insist or site.evidence.dir is not None)


async def open_keeper(
    site: SiteConfig, database: Database, info: MLLMInfo, clock: Clock, shared: bool = False
) -> EvidenceKeeper:
    """The keeper of a site, writing; `shared` with other processes. A folder that cannot be written now is tried again
    later.

    Raises ConfigError for one that is another store's.
    """
    folder, manifests = folder_of(site), Manifests(database)

    def about() -> About:
        return About(model_of(site.mllm, info), sizing_of(site))

    try:
        await asyncio.to_thread(lambda: folder.open(manifests.identity()))
    except OSError as error:
        log.warning("evidence_folder_unusable", dir=str(folder.root), reason=error.strerror)
    keeper = EvidenceKeeper(folder, manifests, site.evidence, clock, about, shared)
    keeper.start()
    return keeper


def clip_refusal(stream: StreamConfig) -> str | None:
    """Why a stream has no clips: packets hold what its masks hide."""
    return "the stream has masks, and its packets hold what they hide" if stream.masks else None


def count(keeper: EvidenceKeeper, metrics: Metrics) -> None:
    """Show in the metrics what a keeper counts."""
    metrics.evidence_written.set_function(lambda: keeper.written)
    metrics.evidence_bytes.set_function(lambda: keeper.bytes)
    for reason in ("queue", "disk", "room", "store", "closing", "crash"):
        metrics.evidence_lost.labels(reason).set_function(lambda reason=reason: keeper.lost[reason])  # type: ignore[misc]
    metrics.task_crashes.labels("evidence").set_function(lambda: keeper.crashes)
