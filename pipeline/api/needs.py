"""The needs of all streams that are wanted, against what there is."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from pipeline.api.auth import Caller
from pipeline.api.desk import Desk
from pipeline.config.entries import parse_stream
from pipeline.config.site import SiteConfig
from pipeline.core.sizing import Need
from pipeline.delivery.nodes import NodeBook
from pipeline.errors import ConfigError
from pipeline.fleet.overview import costs_of
from pipeline.service.plan import running_needs, warnings_of


def load_warnings(desk: Desk, caller: Caller) -> list[str]:
    """What does not fit of all that is wanted by now. Blocks."""
    return [*warnings_of(needs_now(desk)), *late_streams(desk, caller)]


def needs_now(desk: Desk) -> Sequence[Need]:
    """The needs, what gives first at the top. Blocks."""
    service = desk.reconciler.service
    costs = costs_of(NodeBook(desk.registry.database, desk.clock)) if service.in_fleet else service.costs
    return running_needs(_wanted(desk), costs)


def _wanted(desk: Desk) -> SiteConfig:
    """The site with the streams that the registry has now, those that were added a moment ago too."""
    site, streams = desk.reconciler.service.site, {}
    for slug, entry in desk.registry.snapshot().of("stream").items():
        with suppress(ConfigError):  # one that cannot run is no load
            streams[slug] = site.streams.get(slug) or parse_stream(slug, entry.spec, desk.reconciler.raw)
    return replace(site, streams=streams)


def late_streams(desk: Desk, caller: Caller) -> list[str]:
    """Says so if many of the streams that the caller sees are late already, whatever their needs look like."""
    look = desk.look(caller)
    running = [one for one in (look.status(entry) for entry in look.entries("stream")) if one.state == "up"]
    late = sum(one.step > 0 for one in running)
    if not late or late < desk.reconciler.service.site.service.degraded_share * len(running):
        return []
    return [
        f"{late} of {len(running)} streams are late already, and ask less than they should (`resadapt status` has their"
        " steps of the ladder); lower their budgets, raise every_s of watches, or add a machine"
    ]
