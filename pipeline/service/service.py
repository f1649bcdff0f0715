"""Running streams match the configuration: started, reconciled, drained. One process, one event loop, many streams."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import structlog

from pipeline.build import (
    MakeAllocator,
    build_allocator,
    build_fit_rules,
    build_sink,
    build_watch,
    check_names,
)
from pipeline.clock import Clock
from pipeline.config.mllm import MLLMConfig
from pipeline.config.site import BudgetConfig, SiteConfig
from pipeline.config.values import resolve_url
from pipeline.core.budget import Ledger, Rate
from pipeline.delivery.outbox import FATAL, Outbox
from pipeline.delivery.relay import Relay
from pipeline.errors import ConfigError, ResadaptError, StoreUnavailable
from pipeline.loop import Observe, Runtime, unobserved
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLM, Counting
from pipeline.service.attachment import Attachment, EndReason
from pipeline.service.health import Health, Phase, Trouble
from pipeline.service.opening import check_sinks, open_store, patiently, start_mllm
from pipeline.service.port import Port
from pipeline.service.removed import clear_removed
from pipeline.service.supervisor import StreamSupervisor
from pipeline.sinks.base import Sink
from pipeline.types import Event, WatchQuery
from pipeline.waiting import first, stop

log = structlog.get_logger()

_T = TypeVar("_T")

OUTBOX_CLOSE_S = 5.0
"""How long, after the streams have ended, a store that is away is still tried, if `drain_s` is not shorter."""
BEAT_S = 1.0
"""How often the event loop shows that it runs."""
STUCK_S = 60.0
"""Without a beat for so long it counts as stuck, and the service as dead."""


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
    cannot be opened at first is given up instead of being tried for ever, and so is a store or MLLM that is away at the
    start. `observe` is called after every hop. `left` says after draining how many events wait in the store, by sink.
    """

    def __init__(
        self,
        site: SiteConfig,
        clock: Clock,
        extra_sinks: Sequence[Sink] = (),
        insist: bool = True,
        observe: Observe = unobserved,
    ) -> None:
        self.site = site
        self.left: dict[str, int] = {}
        self.metrics = Metrics()
        self._clock = clock
        self._insist = insist
        self._observe = observe
        self._extra_sinks = list(extra_sinks)
        self._keepers: dict[str, StreamSupervisor] = {}
        self._reconciling = asyncio.Lock()
        self._closing = False
        self._board = WatchBoard()
        self._phase: Phase = "starting"
        self._waiting_for: dict[str, str] = {}
        self._hurried = asyncio.Event()
        self._lost: ResadaptError | None = None
        self._broken = asyncio.Event()
        self._beat_at_s = clock.monotonic_s()
        self._outbox: Outbox | None = None
        self._relay: Relay | None = None

    @property
    def attachments(self) -> dict[str, Attachment]:
        """The streams that have been attached, by slug, ended ones included."""
        return {slug: keeper.attachment for slug, keeper in self._keepers.items() if keeper.attachment}

    @property
    def supervisors(self) -> dict[str, StreamSupervisor]:
        """The streams that run, or have ended by themselves, by slug."""
        return self._keepers

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            await self._open(opened)
            self._opened = opened.pop_all()
        self._phase = "serving"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._phase = "draining"
        await self._opened.__aexit__(kind, error, trace)
        self._phase = "ended"

    def hurry(self) -> None:
        """Cut short what drains, now or later: streams are cut, events stay in the store."""
        self._hurried.set()

    async def broken(self) -> None:
        """Wait until the service can do nothing more. Raises why: NotOwner or StoreDamaged."""
        await self._broken.wait()
        if self._lost:
            raise self._lost

    def health(self) -> Health:
        """How the service is. May be called from any thread."""
        troubles = [Trouble(what, reason) for what, reason in list(self._waiting_for.items())]
        outage = self._outbox.outage if self._outbox else None
        if outage:
            troubles.append(Trouble("store", outage))
        for name, counts in list(self._relay.counts.items()) if self._relay else ():
            if counts.last_error:
                troubles.append(Trouble(f"sink {name}", counts.last_error))
        for slug, keeper in list(self._keepers.items()):
            if keeper.trouble:
                troubles.append(Trouble(f"stream {slug}", keeper.trouble))
        silent_s = self._clock.monotonic_s() - self._beat_at_s
        if silent_s > STUCK_S:
            troubles.append(Trouble("process", f"its event loop has been stuck for {silent_s:.0f} s"))
        live = self._lost is None and silent_s <= STUCK_S
        return Health(live, live and self._phase == "serving" and not outage, self._phase, tuple(troubles))

    @property
    def runtime(self) -> Runtime:
        """What the streams share; once it has been entered."""
        return self._runtime

    async def reconcile(self, site: SiteConfig) -> None:
        """Make the running streams those of `site`: start the new, stop the gone, restart the changed.

        Watches change without a restart; streams that had failed are tried again. Raises ConfigError, before anything
        changes, if what all streams share differs.
        """
        changed = [name for name, value in _shared(site).items() if value != _shared(self.site)[name]]
        if changed:
            raise ConfigError(f"{', '.join(changed)} changed; that needs a restart of the process")
        check_names(site, self._clock)
        async with self._reconciling:
            if self._closing:
                return
            keepers = self._keepers.items()
            stale = [slug for slug, keeper in keepers if keeper.failed or site.streams.get(slug) != keeper.stream]
            await asyncio.gather(
                *(self._detach(slug, "drained" if slug in site.streams else "detached") for slug in stale)
            )
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
        """Check what is cheap to check, then open what the streams need. What is opened last is closed first: streams,
        outbox, relay, MLLM, store."""
        site = self.site
        check_names(site, self._clock)
        sinks = [build_sink(slug, sink, self._clock) for slug, sink in site.sinks.items()] + self._extra_sinks
        beating = asyncio.create_task(self._beat(), name="beat")
        opened.push_async_callback(stop, [beating])
        if self._insist and site.metrics.port:
            opened.callback(Port(site.metrics, self.metrics.registry, self.health).open().close)
        self._store = await self._patiently(
            "store", partial(open_store, resolve_url(site.store, whole_path=True), self._clock)
        )
        opened.callback(self._store.close)
        self._relay = relay = Relay(self._store, sinks, self._clock, self._delivered, self._lose)
        opened.push_async_callback(relay.close)
        await check_sinks(sinks, self._clock, refuse=self._insist)
        make_allocator = await asyncio.to_thread(build_allocator, site, self._clock)
        mllm = await self._patiently("mllm", partial(start_mllm, site.mllm, self._clock))
        opened.push_async_callback(mllm.close)
        others = set(self._store.sinks_owed()) - {sink.name for sink in sinks}
        if others:
            log.warning("events_wait_for_sinks_not_named_here", sinks=sorted(others))
        await relay.start()
        opened.push_async_callback(self._drain, relay)
        self._outbox = outbox = Outbox(self._store, self._clock, relay.wake, self._lose)
        opened.push_async_callback(outbox.close, min(OUTBOX_CLOSE_S, site.drain_s))
        self._runtime = self._furnish(site.mllm, mllm, outbox, make_allocator)
        opened.push_async_callback(self._runtime.allocator.close)
        self._count(relay, outbox)
        opened.push_async_callback(self._detach_all)
        if self._insist:
            await clear_removed(self._store, outbox, self._clock, kept=site.streams)
        await self.reconcile(site)

    async def _patiently(self, what: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """`attempt()`, again until what it needs is there, unless a person waits."""
        if not self._insist:
            return await attempt()
        return await patiently(what, attempt, self._clock, self._waiting_for)

    async def _beat(self) -> None:
        while True:
            self._beat_at_s = self._clock.monotonic_s()
            await self._clock.sleep(BEAT_S)

    def _lose(self, error: ResadaptError) -> None:
        self._lost = self._lost or error
        self._broken.set()

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
            observe=self._observe,
        )

    async def _detach(self, slug: str, reason: EndReason) -> None:
        await self._keepers.pop(slug).stop(self.site.drain_s, self._hurried, reason)
        self.metrics.forget(slug)

    async def _detach_all(self) -> None:
        async with self._reconciling:
            self._closing = True
            await asyncio.gather(*(self._detach(slug, "drained") for slug in list(self._keepers)))

    async def _drain(self, relay: Relay) -> None:
        """Deliver what is decided, for at most `drain_s`; the rest stays in the store for the next start."""
        if not self._lost:
            await first(relay.drain(self.site.drain_s), self._hurried.wait())
        transient = {sink.name for sink in self._extra_sinks}
        for name, counts in relay.counts.items():
            try:
                if name in transient:
                    await asyncio.to_thread(self._store.forget_sink, name)
                elif count := await asyncio.to_thread(self._store.pending, name):
                    self.left[name] = count
            except (StoreUnavailable, *FATAL):
                if counts.pending and name not in transient:
                    self.left[name] = counts.pending
        if self.left and self._insist:
            log.warning("events_left_in_store", **self.left)

    def _delivered(self, sink: str, events: Sequence[Event], now: datetime) -> None:
        self.metrics.sink_published.labels(sink).inc(len(events))
        for event in events:
            self.metrics.event_seconds.labels(sink).observe((now - event.time).total_seconds())

    def _count(self, relay: Relay, outbox: Outbox) -> None:
        """Show in the metrics what store, sinks and MLLM count."""
        self.metrics.commit_retries.set_function(partial(getattr, outbox.counts, "retries"))
        self.metrics.event_conflicts.set_function(partial(getattr, self._store, "conflicts"))
        self.metrics.task_crashes.labels("outbox").set_function(partial(getattr, outbox.counts, "crashes"))
        for name, counts in relay.counts.items():
            self.metrics.sink_pending.labels(name).set_function(partial(getattr, counts, "pending"))
            self.metrics.sink_failures.labels(name).set_function(partial(getattr, counts, "failures"))
            self.metrics.task_crashes.labels(f"relay {name}").set_function(partial(getattr, counts, "crashes"))
        if isinstance(self._runtime.mllm, Counting):
            self.metrics.watch_mllm(self._runtime.mllm.counts)


def _rate(budget: BudgetConfig) -> Rate:
    return Rate(budget.rate_tokens_per_s, budget.burst_tokens)


def _shared(site: SiteConfig) -> dict[str, object]:
    """What all streams use, and what therefore cannot change under them."""
    names = ("mllm", "engine", "sinks", "store", "metrics", "gpu_budget")
    return {name: getattr(site, name) for name in names} | {"defaults.allocator": site.defaults.allocator}
