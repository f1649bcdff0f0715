"""The evidence of a service: whether it is kept, where, and what of a stream may be in it."""

import asyncio

import structlog

from pipeline.clock import Clock
from pipeline.config.site import SiteConfig, StreamConfig
from pipeline.config.values import resolve_url
from pipeline.delivery.database import Database
from pipeline.delivery.manifests import Manifests
from pipeline.errors import ConfigError
from pipeline.evidence.files import EvidenceFiles
from pipeline.evidence.folder import Folder
from pipeline.evidence.hashes import model_of, sizing_of
from pipeline.evidence.keeper import EvidenceKeeper
from pipeline.evidence.writer import About
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLMInfo

log = structlog.get_logger()


def files_of(site: SiteConfig) -> EvidenceFiles:
    """The place of a site's evidence. Raises ConfigError for one that is no folder and no bucket."""
    url = site.evidence.bucket
    if url is None:
        return Folder(site.evidence.folder(resolve_url(site.store, whole_path=True)))
    try:
        from pipeline.evidence.bucket import EvidenceBucket  # needs the extra `s3`
    except ModuleNotFoundError:
        raise ConfigError(f"evidence.dir {url} needs pip install 'resadapt-stream[s3]'") from None
    return EvidenceBucket(url)


def wants_evidence(site: SiteConfig, insist: bool) -> bool:
    """True if a service keeps evidence: one that a person has just typed does so only if a folder is named."""
    return site.evidence.enabled and (insist or site.evidence.dir is not None)


async def open_keeper(site: SiteConfig, database: Database, info: MLLMInfo, clock: Clock) -> EvidenceKeeper:
    """The keeper of a site, writing. A place that cannot be written now is tried again later.

    Raises ConfigError for one that is another store's.
    """
    files, manifests = files_of(site), Manifests(database)

    def about() -> About:
        return About(model_of(site.mllm, info), sizing_of(site))

    try:
        await asyncio.to_thread(lambda: files.open(manifests.identity()))
    except OSError as error:
        log.warning("evidence_folder_unusable", dir=files.place, reason=error.strerror)
    keeper = EvidenceKeeper(files, manifests, site.evidence, clock, about)
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
