"""The needs of all streams that are wanted, against what there is."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from pipeline.api.auth import Caller
from pipeline.api.desk import Desk
from pipeline.config.entries import parse_stream
from pipeline.config.site import SiteConfig
from pipeline.core.sizing import Need
from pipeline.delivery.nodes import NodeBook
from pipeline.errors import ConfigError, ResadaptError
from pipeline.fleet.overview import costs_of
from pipeline.redact import scrub
from pipeline.service.plan import running_needs, warnings_of, warnings_of_steps

log = structlog.get_logger()


def load_warnings(desk: Desk, caller: Caller, edited: str, before: SiteConfig) -> list[str]:
    """Warnings of what does not fit by now, after a stream was edited in the site as it was `before`; none where that
    cannot be known, for the edit stands. Blocks."""
    try:
        return [*warnings_of(needs_now(desk, edited, before)), *late_streams(desk, caller)]
    except ResadaptError as error:
        log.warning("load_not_known", stream=edited, error=type(error).__name__, reason=scrub(str(error)))
        return []


def needs_now(desk: Desk, edited: str | None = None, before: SiteConfig | None = None) -> Sequence[Need]:
    """The needs, what gives first at the top; `edited` is a stream that counts as it is wanted, even where it was
    measured with the settings that it had in the site `before`. Blocks."""
    service = desk.reconciler.service
    costs = costs_of(NodeBook(desk.registry.database, desk.clock)) if service.in_fleet else service.costs
    return running_needs(_wanted(desk, edited), costs, before)


def _wanted(desk: Desk, edited: str | None) -> SiteConfig:
    """The site with the streams that the registry has now, those that were added a moment ago too."""
    reconciler = desk.reconciler
    site, streams = reconciler.service.site, {}
    for slug, entry in desk.registry.snapshot().of("stream").items():
        known = None if slug == edited else site.streams.get(slug)
        if known or slug == edited or ("stream", slug) not in reconciler.faults:
            with suppress(ConfigError):  # one that cannot run is no load
                streams[slug] = known or parse_stream(slug, entry.spec, reconciler.raw)
    return replace(site, streams=streams)


def late_streams(desk: Desk, caller: Caller) -> Sequence[str]:
    """Says so if many of the streams that the caller sees are late already, whatever their needs look like."""
    look = desk.look(caller)
    steps = [one.step for one in (look.status(entry) for entry in look.entries("stream")) if one.state == "up"]
    return warnings_of_steps(steps, desk.reconciler.service.site.service.degraded_share)
