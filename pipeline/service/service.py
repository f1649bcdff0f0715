"""Running streams match the configuration: started, reconciled, drained. One process, one event loop, many streams."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self

import structlog

from pipeline.allocators.switch import AllocatorSwitch
from pipeline.build import MakeAllocator, build_allocator, build_fit_rules, build_keep, build_mllm
from pipeline.clock import Clock
from pipeline.config.site import BudgetConfig, MLLMConfig, SiteConfig, StreamConfig, resolve
from pipeline.core.budget import Ledger, Rate
from pipeline.core.outcome import Decision
from pipeline.core.state import StreamState
from pipeline.delivery.outbox import Outbox
from pipeline.delivery.relay import Relay, SinkCounts
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError
from pipeline.loop import Runtime
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLM, Counting
from pipeline.service.attachment import Attachment, StopReason
from pipeline.service.board import WatchBoard
from pipeline.service.exchange import EXCHANGED, RESTARTING, MetricsPort, SinkSet, changed_parts, needs_allocator
from pipeline.service.streams import RunningStreams
from pipeline.service.supervisor import StreamSupervisor
from pipeline.sinks.base import Sink
from pipeline.types import Event

log = structlog.get_logger()


class Service:
    """Everything one process runs. Use as `async with Service(...) as service`; leaving drains.

    `extra_sinks` are sinks that no site file names (the screen of `resadapt run`). With `insist` False a stream that
    cannot be opened at first is given up instead of being tried for ever. `compose` gives the site to begin with once
    the store is open. `left` says after draining how many events wait in the store, by sink; `on_commit` is called when
    decisions have become durable.
    """

    def __init__(
        self,
        site: SiteConfig,
        clock: Clock,
        extra_sinks: Sequence[Sink] = (),
        insist: bool = True,
        compose: Callable[[Store], Awaitable[SiteConfig]] | None = None,
    ) -> None:
        self.site = site
        self.left: dict[str, int] = {}
        self.metrics = Metrics()
        self.on_commit: Callable[[], None] = lambda: None
        self._clock = clock
        self._insist = insist
        self._compose = compose
        self._sinks = SinkSet(clock, extra_sinks)
        self._metrics_port = MetricsPort(self.metrics)
        self._streams = RunningStreams(self._start, self._stopped, lambda: self.site.drain_s)
        self._reconciling = asyncio.Lock()
        self._closing = False
        self._board = WatchBoard()

    @property
    def attachments(self) -> dict[str, Attachment]:
        """The streams that have been attached, by slug, ended ones included."""
        return {slug: running.attachment for slug, running in self.supervisors.items() if running.attachment}

    @property
    def supervisors(self) -> dict[str, StreamSupervisor]:
        """The streams that run, or have ended by themselves, by slug."""
        return self._streams.running

    @property
    def store(self) -> Store:
        """Where decisions are durable. There while the service is open."""
        return self._store

    @property
    def sink_counts(self) -> dict[str, SinkCounts]:
        """Totals by sink name."""
        return self._relay.counts

    @property
    def allocator(self) -> str:
        """Name of the allocator that serves all streams."""
        return self._allocator.name

    def sink(self, name: str) -> Sink | None:
        """A sink that is served, by its name."""
        return self._relay.sinks.get(name)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            await self._open(opened)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.__aexit__(kind, error, trace)

    async def reconcile(self, site: SiteConfig, retry: bool = True) -> None:
        """Make what runs that of `site`, and return when it is so; see `begin_reconciling`."""
        await (await self.begin_reconciling(site, retry))

    async def begin_reconciling(self, site: SiteConfig, retry: bool = True) -> Awaitable[object]:
        """Begin to make what runs that of `site`: streams start, stop and restart, each where it has changed.

        Watches, sinks, the metrics port and the allocator change without touching a stream. With `retry` streams that
        had given up are tried again. Returns what can be awaited to see the streams as they are wanted. Raises
        ConfigError, before anything changes, if what needs a restart differs or what is new cannot be had.
        """
        changed = changed_parts(self.site, site, RESTARTING)
        if changed:
            raise ConfigError(f"{', '.join(changed)} changed; that needs a restart of the process")
        async with self._reconciling:
            if self._closing:
                return asyncio.gather()
            await self._exchange(site)
            self.site = site
            self._board.replace(site.streams, site.watches)
            return self._streams.want(site.streams, retry)

    async def finished(self) -> None:
        """Wait until every stream has ended. Raises what ended the first of them, if it was an error."""
        tasks = [running.task for running in self.supervisors.values()]
        ends = await asyncio.gather(*tasks, return_exceptions=True)
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
            Store, resolve(site.store), self._clock, keep=build_keep(site.keep), exclusive=True
        )
        opened.callback(self._store.close)
        if self._compose:
            self.site = site = await self._compose(self._store)
        sinks = self._sinks.build(site.sinks)
        self._relay = relay = Relay(self._store, sinks, self._clock, self._delivered)
        opened.push_async_callback(relay.close)
        await mllm.start()
        others = set(self._store.sinks_owed()) - {sink.name for sink in sinks}
        if others:
            log.warning("events_wait_for_sinks_not_named_here", sinks=sorted(others))
        await relay.start()
        opened.push_async_callback(self._drain, relay)
        self._outbox = Outbox(self._store, self._clock, self._committed)
        opened.push_async_callback(self._outbox.close)
        self._runtime = self._furnish(site.mllm, mllm, make_allocator)
        opened.push_async_callback(self._allocator.close)
        self._offer_metrics()
        opened.callback(self._metrics_port.close)
        if site.metrics.port and self._insist:
            self._metrics_port.move(site.metrics)
        opened.push_async_callback(self._detach_all)
        await self._clear_orphans()
        await self.begin_reconciling(site)

    async def _exchange(self, site: SiteConfig) -> None:
        """Exchange what all streams share where it differs: all of it is made before anything changes."""
        differs = frozenset(changed_parts(self.site, site, EXCHANGED))
        make = await asyncio.to_thread(build_allocator, site, self._clock) if needs_allocator(self.site, site) else None
        sinks = self._sinks.build(site.sinks) if "sinks" in differs else None
        if "metrics" in differs and self._insist:
            close_before = self._metrics_port.move(site.metrics)
            await asyncio.to_thread(close_before)
        if make:
            await self._allocator.switch(make(self._runtime.fit_rules, self.metrics.engine_call))
        if sinks is not None:
            before = set(self._relay.counts)
            await self._relay.exchange(sinks)
            for name in before - set(self._relay.counts):
                self.metrics.forget_sink(name)
            self._offer_sinks()
        self._runtime.budget.share(_rate(site.gpu_budget) if site.gpu_budget else None)
        self._store.keep = build_keep(site.keep)

    def _furnish(self, config: MLLMConfig, mllm: MLLM, make_allocator: MakeAllocator) -> Runtime:
        rules = build_fit_rules(config, mllm.info)
        gpu = self.site.gpu_budget
        self._allocator = AllocatorSwitch(make_allocator(rules, self.metrics.engine_call))
        return Runtime(
            clock=self._clock,
            watches=self._board,
            budget=Ledger(self._clock, _rate(gpu) if gpu else None),
            allocator=self._allocator,
            fit_rules=rules,
            mllm=mllm,
            outbox=self._outbox,
            metrics=self.metrics,
        )

    def _start(self, slug: str, stream: StreamConfig) -> StreamSupervisor:
        return StreamSupervisor(slug, stream, self._runtime, self._store, self._insist)

    async def _stopped(self, slug: str, reason: StopReason) -> None:
        self.metrics.forget(slug)
        if reason != "drained":
            await self._clear_watches(slug, f"stream {reason}")

    async def _clear_orphans(self) -> None:
        """Clear what is open on streams that went while the service was down."""
        for slug in await asyncio.to_thread(self._store.streams):
            stream = self.site.streams.get(slug)
            if stream is None or stream.paused:
                await self._clear_watches(slug, "stream detached" if stream is None else "stream paused")

    async def _clear_watches(self, slug: str, reason: str) -> None:
        """Clear what a stream that does not run has left open in the store."""
        stored = await asyncio.to_thread(self._store.load, slug)
        if stored is None:
            return
        state = StreamState.from_json(stored.state)
        state, events = state.clear_watches(slug, stored.resume_s, self._clock.now(), reason)
        if events:
            await self._outbox.commit(Decision(slug, state.to_json(), events, stored.resume_s))
            self.metrics.events.labels("watch.cleared").inc(len(events))

    async def _detach_all(self) -> None:
        async with self._reconciling:
            self._closing = True
        await self._streams.drain()

    def _committed(self, new_events: int) -> None:
        self._relay.wake(new_events)
        self.on_commit()

    async def _drain(self, relay: Relay) -> None:
        """Deliver what is decided, for at most `drain_s`; the rest stays in the store for the next start."""
        counted = await relay.drain(self.site.drain_s)
        transient = {sink.name for sink in self._sinks.extra}
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

    def _offer_metrics(self) -> None:
        self.metrics.commit_retries.set_function(partial(getattr, self._outbox.counts, "retries"))
        self._offer_sinks()
        if isinstance(self._runtime.mllm, Counting):
            self.metrics.watch_mllm(self._runtime.mllm.counts)

    def _offer_sinks(self) -> None:
        for name, counts in self._relay.counts.items():
            self.metrics.sink_pending.labels(name).set_function(partial(getattr, counts, "pending"))
            self.metrics.sink_failures.labels(name).set_function(partial(getattr, counts, "failures"))


def _rate(budget: BudgetConfig) -> Rate:
    return Rate(budget.rate_tokens_per_s, budget.burst_tokens)
