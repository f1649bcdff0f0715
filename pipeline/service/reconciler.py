"""The registry's process: what is wanted is composed, applied to a running service, and watched for edits."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from pipeline.build import build_sink, build_source
from pipeline.clock import Clock
from pipeline.config.sinks import SinkConfig
from pipeline.config.site import SiteConfig, StreamConfig, load_site, parse_site, read_yaml
from pipeline.delivery.history import History
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError, StoreUnavailable
from pipeline.loop import Observe, unobserved
from pipeline.redact import scrub
from pipeline.registry.desired import Composer, Desired
from pipeline.registry.entry import Change
from pipeline.registry.registry import Registry, Snapshot
from pipeline.service.board import armed_profiles
from pipeline.service.exchange import RESTARTING, changed_parts
from pipeline.service.service import Service
from pipeline.service.share import WHOLE, WorkShare
from pipeline.service.unnamed import require_mllm_or_yard
from pipeline.sinks.base import Sink
from pipeline.waiting import first, stop

log = structlog.get_logger()

POLL_S = 1.0
"""How often edits by other processes are looked for; edits of this one are applied at once."""


class Reconciler:
    """A service that runs what its registry wants. Use as `async with Reconciler(...) as reconciler`; leaving drains.

    `path` is the site file, if there is one: it is applied to the registry at start and by `reload`. `faults` says of
    entries that cannot run why, by kind and slug. `said` is a site from elsewhere than a file, such as a command line;
    `extra_sinks`, `insist` and `share` are the Service's. `opening` is awaited once the store is open, before anything
    is read from it. In a fleet the one who keeps house applies the file.
    """

    def __init__(
        self,
        path: Path | None,
        clock: Clock,
        observe: Observe = unobserved,
        said: Composer | None = None,
        extra_sinks: Sequence[Sink] = (),
        insist: bool = True,
        share: WorkShare = WHOLE,
        opening: Callable[[Store], Awaitable[None]] | None = None,
    ) -> None:
        self.path = path
        self.faults: Mapping[tuple[str, str], str] = {}
        self._clock = clock
        self._composer = said or _composer(path)
        self._share = share
        self._opening = opening
        self.service = Service(self._composer.site, clock, extra_sinks, insist, observe, self._open, share)
        self._registry: Registry | None = None
        self._woken = asyncio.Event()
        self._applied = 0
        self._applying = asyncio.Lock()
        self._tried: dict[str, tuple[SinkConfig, str]] = {}
        self._judged: dict[str, tuple[StreamConfig, str]] = {}

    @property
    def registry(self) -> Registry:
        """There once the store is open. Raises StoreUnavailable before."""
        if self._registry is None:
            raise StoreUnavailable("the service is starting; its store is not open yet")
        return self._registry

    def history(self) -> History:
        """Events and answers that are kept. Raises StoreUnavailable before the store is open."""
        return History(self.registry.database)

    @property
    def applied(self) -> int:
        """The newest edit that what runs takes into account."""
        return self._applied

    @property
    def own_armed(self) -> tuple[str, ...]:
        """The profiles that the site file arms."""
        return self._composer.site.armed

    @property
    def raw(self) -> Mapping[str, object]:
        """The site that the process was started with, as plain mappings."""
        return self._composer.raw

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(self.service)
            watching = asyncio.create_task(self._watch(), name="registry")
            opened.push_async_callback(stop, [watching])
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.__aexit__(kind, error, trace)

    async def reload(self) -> None:
        """Read the site file again and apply it. Streams that had given up are tried again.

        Raises ConfigError, before anything changes, for a file that is wrong or changes what needs a restart.
        """
        await self.take_over(_composer(self.path))

    async def take_over(self, composer: Composer) -> None:
        """`reload` with a site that was read elsewhere."""
        changed = changed_parts(self._composer.site, composer.site, RESTARTING)
        if changed:
            raise ConfigError(f"{', '.join(changed)} changed; that needs a restart of the process")
        async with self._applying:
            await self._apply_file(composer, self.registry)
            before, self._composer = self._composer, composer
            try:
                await self._apply(await asyncio.to_thread(self.registry.snapshot), retry=True)
            except ConfigError:
                self._composer = before
                await self._apply_file(before, self.registry)
                raise

    async def preview(self) -> tuple[list[Change], Snapshot, list[str]]:
        """The entries that `reload` would change, and the parts for which it would refuse."""
        composer = await asyncio.to_thread(_composer, self.path)
        snapshot = await asyncio.to_thread(self.registry.snapshot)
        return composer.changes(snapshot), snapshot, changed_parts(self.service.site, composer.site, RESTARTING)

    async def _open(self, store: Store) -> SiteConfig:
        """The site to begin with, once the store is there."""
        if self._opening:
            await self._opening(store)
        registry = Registry(store.database, self._clock)
        await self._apply_file(self._composer, registry)
        loop = asyncio.get_running_loop()

        def edited() -> None:
            loop.call_soon_threadsafe(self._woken.set)

        registry.on_edit = edited
        snapshot = await asyncio.to_thread(registry.snapshot)
        self._registry = registry
        self._applied = snapshot.generation
        return await self._compose(snapshot)

    async def _apply_file(self, composer: Composer, registry: Registry) -> None:
        if not self._share.keeps_house:
            return
        snapshot = await asyncio.to_thread(registry.snapshot)
        changes = composer.changes(snapshot)
        for change in changes:
            entry = snapshot.entries.get((change.kind, change.slug))
            if entry and entry.file is None:
                log.warning("site_file_takes_over", kind=change.kind, slug=change.slug, owner=entry.owner)
        await asyncio.to_thread(registry.edit, changes, composer.owner)

    async def _watch(self) -> None:
        while True:
            await first(self._woken.wait(), self._clock.sleep(POLL_S))
            self._woken.clear()
            try:
                snapshot = await asyncio.to_thread(self.registry.snapshot)
                if snapshot.generation != self._applied:
                    async with self._applying:
                        await self._apply(snapshot, retry=False)
            except StoreUnavailable as error:
                log.warning("registry_not_read", reason=str(error))
            except ConfigError as error:
                log.error("registry_not_applied", reason=scrub(str(error)))

    async def _apply(self, snapshot: Snapshot, retry: bool) -> None:
        site = await self._compose(snapshot)
        await self.service.begin_reconciling(site, retry)
        self._applied = snapshot.generation

    async def _compose(self, snapshot: Snapshot) -> SiteConfig:
        """The site of a snapshot, without what cannot be built."""
        desired = await asyncio.to_thread(self._composer.compose, snapshot)
        unbuilt = {
            **await asyncio.to_thread(self._unbuilt_streams, snapshot, desired),
            **await self._unbuilt_sinks(snapshot, desired),
        }
        faults = {**desired.faults, **unbuilt}
        for (kind, slug), reason in faults.items():
            if self.faults.get((kind, slug)) != reason:
                log.error("entry_not_applied", kind=kind, slug=slug, reason=reason)
        self.faults = faults
        streams = {slug: one for slug, one in desired.site.streams.items() if ("stream", slug) not in unbuilt}
        sinks = {slug: one for slug, one in desired.site.sinks.items() if ("sink", slug) not in unbuilt}
        return replace(desired.site, streams=streams, sinks=sinks, armed=armed_profiles(self.own_armed, snapshot))

    def _unbuilt_streams(self, snapshot: Snapshot, desired: Desired) -> dict[tuple[str, str], str]:
        """Why streams that no site file says cannot be opened, whatever is tried. Each is judged once as it is."""
        streams = desired.site.streams
        added = {slug for slug in streams if snapshot.entries["stream", slug].file is None}
        for slug in added:
            if self._judged.get(slug, (None, ""))[0] != streams[slug]:
                self._judged[slug] = streams[slug], self._fault_of_stream(slug, streams[slug], desired.site)
        self._judged = {slug: judged for slug, judged in self._judged.items() if slug in added}
        return {("stream", slug): reason for slug, (_, reason) in self._judged.items() if reason}

    def _fault_of_stream(self, slug: str, stream: StreamConfig, site: SiteConfig) -> str:
        try:
            require_mllm_or_yard(self.raw, replace(site, streams={slug: stream}))
            build_source(slug, stream, self._clock, 0.0)
        except ConfigError as error:
            return scrub(str(error))
        return ""

    async def _unbuilt_sinks(self, snapshot: Snapshot, desired: Desired) -> dict[tuple[str, str], str]:
        """Why sinks that no site file says cannot be built. Each is tried once as it is configured, by the process that
        delivers to it: what it cannot build is owed its events all the same."""
        if not self._share.keeps_house:
            return {}
        sinks = desired.site.sinks
        added = {slug for slug, entry in snapshot.of("sink").items() if entry.file is None and slug in sinks}
        for slug in added:
            if self._tried.get(slug, (None, ""))[0] != sinks[slug]:
                self._tried[slug] = sinks[slug], await self._fault_of(slug, sinks[slug])
        self._tried = {slug: tried for slug, tried in self._tried.items() if slug in added}
        return {("sink", slug): reason for slug, (_, reason) in self._tried.items() if reason}

    async def _fault_of(self, slug: str, config: SinkConfig) -> str:
        try:
            await build_sink(slug, config, self._clock).close()
        except ConfigError as error:
            return scrub(str(error))
        return ""


def _composer(path: Path | None) -> Composer:
    if path is None:
        return Composer(parse_site({}), {}, None)
    site, raw = load_site(path), read_yaml(path)
    require_mllm_or_yard(raw, site)
    return Composer(site, raw, path.resolve())
