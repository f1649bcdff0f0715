"""Running streams match the configuration: started, reconciled, drained. One process, one event loop, many streams."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self

import structlog
from prometheus_client import start_http_server

from pipeline.build import MakeAllocator, build_allocator, build_fit_rules, build_mllm, build_sink, build_watch
from pipeline.clock import Clock
from pipeline.config.site import BudgetConfig, MLLMConfig, SiteConfig, resolve_url
from pipeline.core.budget import Ledger, Rate
from pipeline.delivery.outbox import Outbox
from pipeline.delivery.relay import Relay
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError
from pipeline.loop import Runtime
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLM, Counting
from pipeline.service.attachment import Attachment
from pipeline.service.supervisor import StreamSupervisor
from pipeline.sinks.base import Sink
from pipeline.types import Event, WatchQuery

log = structlog.get_logger()


class WatchBoard:
    """The watches that stand now, by stream: larger priority first, then by slug."""

    def __init__(self) -> None:
        self._queries: dict[str, tuple[WatchQuery, ...]] = {}

    def on(self, stream_id: str) -> Sequence[WatchQuery]:
        return self._queries.get(stream_id, ())

    def replace(self, site: SiteConfig) -> None:
        """Replace all watches by the site's."""
        ordered = sorted(site.watches.items(), key=lambda item: (-item[1].priority, item[0]))
        self._queries = {
            stream: tuple(
                build_watch(slug, watch) for slug, watch in ordered if not watch.streams or stream in watch.streams
            )
            for stream in site.streams
        }


class Service:
    """Everything one process runs. Use as `async with Service(...) as service`; leaving drains.

    `extra_sinks` are sinks that no site file names (the screen of `resadapt run`). With `insist` False a stream that
    cannot be opened at first is given up instead of being tried for ever. `left` says after draining how many events
    wait in the store, by sink.
    """

    def __init__(self, site: SiteConfig, clock: Clock, extra_sinks: Sequence[Sink] = (), insist: bool = True) -> None:
        self.site = site
        self.left: dict[str, int] = {}
        self.metrics = Metrics()
        self._clock = clock
        self._insist = insist
        self._extra_sinks = list(extra_sinks)
        self._keepers: dict[str, StreamSupervisor] = {}
        self._reconciling = asyncio.Lock()
        self._closing = False
        self._board = WatchBoard()

    @property
    def attachments(self) -> dict[str, Attachment]:
        """The streams that have been attached, by slug, ended ones included."""
        return {slug: keeper.attachment for slug, keeper in self._keepers.items() if keeper.attachment}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            await self._open(opened)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.__aexit__(kind, error, trace)

    async def reconcile(self, site: SiteConfig) -> None:
        """Make the running streams those of `site`: start the new, stop the gone, restart the changed.

        Watches change without a restart; streams that had failed are tried again. Raises ConfigError, before anything
        changes, if what all streams share differs.
        """
        changed = [name for name, value in _shared(site).items() if value != _shared(self.site)[name]]
        if changed:
            raise ConfigError(f"{', '.join(changed)} changed; that needs a restart of the process")
        async with self._reconciling:
            if self._closing:
                return
            keepers = self._keepers.items()
            stale = [slug for slug, keeper in keepers if keeper.failed or site.streams.get(slug) != keeper.stream]
            await asyncio.gather(*(self._detach(slug) for slug in stale))
            self.site = site
            self._board.replace(site)
            for slug, stream in site.streams.items():
                if slug not in self._keepers:
                    self._keepers[slug] = StreamSupervisor(slug, stream, self._runtime, self._store, self._insist)

    async def finished(self) -> None:
        """Wait until every stream has ended. Raises what ended the first of them, if it was an error."""
        ends = await asyncio.gather(*(keeper.task for keeper in self._keepers.values()), return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _open(self, opened: AsyncExitStack) -> None:
        """Open what the streams need. What is opened last is closed first: streams, outbox, relay, store."""
        site = self.site
        make_allocator = await asyncio.to_thread(build_allocator, site, self._clock)
        mllm = build_mllm(site.mllm, self._clock)
        opened.push_async_callback(mllm.close)
        self._store = await asyncio.to_thread(
            Store, resolve_url(site.store, whole_path=True), self._clock, exclusive=True
        )
        opened.callback(self._store.close)
        sinks = [build_sink(slug, sink, self._clock) for slug, sink in site.sinks.items()] + self._extra_sinks
        relay = Relay(self._store, sinks, self._clock, self._delivered)
        opened.push_async_callback(relay.close)
        await mllm.start()
        others = set(self._store.sinks_owed()) - {sink.name for sink in sinks}
        if others:
            log.warning("events_wait_for_sinks_not_named_here", sinks=sorted(others))
        await relay.start()
        opened.push_async_callback(self._drain, relay)
        outbox = Outbox(self._store, self._clock, relay.wake)
        opened.push_async_callback(outbox.close)
        self._runtime = self._furnish(site.mllm, mllm, outbox, make_allocator)
        opened.push_async_callback(self._runtime.allocator.close)
        self._offer_metrics(relay, outbox, opened)
        opened.push_async_callback(self._detach_all)
        await self.reconcile(site)

    def _furnish(self, config: MLLMConfig, mllm: MLLM, outbox: Outbox, make_allocator: MakeAllocator) -> Runtime:
        rules = build_fit_rules(config, mllm.info)
        gpu = self.site.gpu_budget
        return Runtime(
            clock=self._clock,
            watches=self._board,
            budget=Ledger(self._clock, _rate(gpu) if gpu else None),
            allocator=make_allocator(rules, self.metrics.engine_call),
            fit_rules=rules,
            mllm=mllm,
            outbox=outbox,
            metrics=self.metrics,
        )

    async def _detach(self, slug: str) -> None:
        await self._keepers.pop(slug).stop(self.site.drain_s)
        self.metrics.forget(slug)

    async def _detach_all(self) -> None:
        async with self._reconciling:
            self._closing = True
            await asyncio.gather(*(self._detach(slug) for slug in list(self._keepers)))

    async def _drain(self, relay: Relay) -> None:
        """Deliver what is decided, for at most `drain_s`; the rest stays in the store for the next start."""
        counted = await relay.drain(self.site.drain_s)
        transient = {sink.name for sink in self._extra_sinks}
        for name in counted:
            if name in transient:
                await asyncio.to_thread(self._store.forget_sink, name)
            elif count := await asyncio.to_thread(self._store.pending, name):
                self.left[name] = count
        if self.left and self._insist:
            log.warning("events_left_in_store", **self.left)

    def _delivered(self, sink: str, events: Sequence[Event], now: datetime) -> None:
        self.metrics.sink_published.labels(sink).inc(len(events))
        for event in events:
            self.metrics.event_seconds.labels(sink).observe((now - event.time).total_seconds())

    def _offer_metrics(self, relay: Relay, outbox: Outbox, opened: AsyncExitStack) -> None:
        self.metrics.commit_retries.set_function(partial(getattr, outbox.counts, "retries"))
        for name, counts in relay.counts.items():
            self.metrics.sink_pending.labels(name).set_function(partial(getattr, counts, "pending"))
            self.metrics.sink_failures.labels(name).set_function(partial(getattr, counts, "failures"))
        if isinstance(self._runtime.mllm, Counting):
            self.metrics.watch_mllm(self._runtime.mllm.counts)
        address = self.site.metrics
        if not address.port or not self._insist:
            return
        try:
            server, thread = start_http_server(address.port, address.host, self.metrics.registry)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be offered on {address.host}:{address.port}: {error.strerror}"
            ) from error
        opened.callback(server.server_close)
        opened.callback(thread.join, 5.0)
        opened.callback(server.shutdown)


def _rate(budget: BudgetConfig) -> Rate:
    return Rate(budget.rate_tokens_per_s, budget.burst_tokens)


def _shared(site: SiteConfig) -> dict[str, object]:
    """What all streams use, and what therefore cannot change under them."""
    names = ("mllm", "engine", "sinks", "store", "metrics", "gpu_budget")
    return {name: getattr(site, name) for name in names} | {"defaults.allocator": site.defaults.allocator}
