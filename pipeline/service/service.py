"""Running streams match the configuration: started, reconciled, drained. One process, one event loop, many streams."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import structlog

from pipeline.allocators.switch import AllocatorSwitch
from pipeline.build import (
    MakeAllocator,
    build_allocator,
    build_fit_rules,
    build_keep,
    check_names,
)
from pipeline.clock import Clock, SystemClock
from pipeline.config.mllm import EmbeddedConfig, MLLMConfig
from pipeline.config.site import SiteConfig, StreamConfig
from pipeline.config.values import resolve_url
from pipeline.core.budget import Ledger
from pipeline.core.outcome import Outcome
from pipeline.core.vitals import SERVICE, ServiceRules, Vitals
from pipeline.delivery.outbox import FATAL, Outbox
from pipeline.delivery.relay import POLL_S, Relay, SinkCounts
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError, ResadaptError, StoreUnavailable, StreamTaken
from pipeline.evidence.files import EvidenceFiles
from pipeline.evidence.keeper import EvidenceKeeper
from pipeline.loop import Observe, Runtime, unobserved
from pipeline.metrics import Metrics
from pipeline.mllm.base import MLLM, Counting
from pipeline.service.announcing import for_sink, standing_watches
from pipeline.service.attachment import Attachment, EndReason
from pipeline.service.board import WatchBoard
from pipeline.service.canary import checked, trial_event
from pipeline.service.evidence import clip_refusal, count, files_of, open_keeper, wants_evidence
from pipeline.service.exchange import EXCHANGED, RESTARTING, MetricsPort, SinkSet, changed_parts, needs_allocator
from pipeline.service.health import Health, Phase, Trouble
from pipeline.service.load import LoadMeter
from pipeline.service.opening import check_sinks, open_store, patiently, start_mllm
from pipeline.service.plan import RunningCosts
from pipeline.service.removed import clear_removed, clear_stopped
from pipeline.service.share import WHOLE, PicturePlace, WorkShare
from pipeline.service.status import StreamStatus, stream_status
from pipeline.service.streams import RunningStreams
from pipeline.service.supervisor import StreamSupervisor
from pipeline.service.tags import StreamTags
from pipeline.service.tracing import ServiceTraces, open_traces
from pipeline.service.vitals import VitalSigns, vitals_of
from pipeline.sinks.base import Sink
from pipeline.sources.packets import PacketRing
from pipeline.types import Event
from pipeline.waiting import first, stop, supervise

log = structlog.get_logger()

_T = TypeVar("_T")

OUTBOX_CLOSE_S = 5.0
"""How long, after the streams have ended, a store that is away is still tried, if `drain_s` is not shorter."""
SHARED_POLL_S = 0.5
"""How often events that other processes have committed are looked for."""
BEAT_S = 1.0
"""How often the event loop shows that it runs."""
LEAST_HOPS = 30
"""Hops of a stream after which its vision tokens are taken for measured."""
STUCK_S = 60.0
"""Without a beat for so long it counts as stuck, and the service as dead."""


class Service:
    """Everything one process runs. Use as `async with Service(...) as service`; leaving drains.

    `extra_sinks` are sinks that no site file names (the screen of `resadapt run`). With `insist` False a stream that
    cannot be opened at first is given up instead of being tried for ever, and so is a store or MLLM that is away at the
    start. `observe` is called after every hop, `on_commit` when decisions have become durable. `compose` gives the site
    to begin with once the store is open. `share` is what of the work is done here. With `mllm` it asks one that is
    running already, and leaves it open. `left` says after draining how many events wait in the store, by sink.
    """

    def __init__(
        self,
        site: SiteConfig,
        clock: Clock,
        extra_sinks: Sequence[Sink] = (),
        insist: bool = True,
        observe: Observe = unobserved,
        compose: Callable[[Store], Awaitable[SiteConfig]] | None = None,
        share: WorkShare = WHOLE,
        mllm: MLLM | None = None,
    ) -> None:
        self.site = site
        self._share = share
        self.left: dict[str, int] = {}
        self.metrics = Metrics()
        self.on_commit: Callable[[], None] = lambda: None
        self._clock = clock
        self._insist = insist
        self._observe = observe
        self._compose = compose
        self._shared_mllm = mllm
        self._hurried = asyncio.Event()
        self._sinks = SinkSet(clock, extra_sinks)
        self._tags = StreamTags(site.streams)
        self._metrics_port = MetricsPort(self.metrics, self.health)
        self._streams = RunningStreams(self._start, self._stopped, lambda: self.site.drain_s, self._hurried)
        self._reconciling = asyncio.Lock()
        self._closing = False
        self._board = WatchBoard()
        self._phase: Phase = "starting"
        self._waiting_for: dict[str, str] = {}
        self._lost: ResadaptError | None = None
        self._broken = asyncio.Event()
        self._beat_at_s = clock.monotonic_s()
        self._load = LoadMeter(clock.monotonic_s, SystemClock().cpu_s, self.metrics.mllm_worked_s)
        self._outbox: Outbox | None = None
        self._relay: Relay | None = None
        self._vitals: VitalSigns | None = None
        self._evidence: EvidenceKeeper | None = None
        self._traces: ServiceTraces | None = None

    @property
    def attachments(self) -> dict[str, Attachment]:
        """The streams that have been attached, by slug, ended ones included."""
        running = dict(self.supervisors)  # the loop may add some meanwhile, where this is asked in a thread
        return {slug: one.attachment for slug, one in running.items() if one.attachment}

    @property
    def supervisors(self) -> dict[str, StreamSupervisor]:
        """The streams that run, or have ended by themselves, by slug."""
        return self._streams.running

    @property
    def store(self) -> Store:
        """The store of decisions; present while the service is open."""
        return self._store

    @property
    def evidence_files(self) -> EvidenceFiles:
        """The place of its evidence, whether or not new evidence is kept."""
        return files_of(self.site)

    @property
    def sink_counts(self) -> dict[str, SinkCounts]:
        """Totals by sink name."""
        return self._relay.counts if self._relay else {}

    @property
    def allocator(self) -> str:
        """Name of the allocator that serves all streams."""
        return self._allocator.name

    @property
    def alarms(self) -> tuple[str, ...]:
        """The alarms of the service itself that are on."""
        return self._vitals.on if self._vitals else ()

    @property
    def costs(self) -> RunningCosts:
        """The costs of what runs in this process, as far as they are measured."""
        load = self._load
        runs = {slug: one.run for slug, one in self.attachments.items() if slug in self.site.streams}
        tokens = {
            slug: run.counts.spent / (run.decided_s - run.began_s)
            for slug, run in runs.items()
            if run.counts.hops >= LEAST_HOPS and run.decided_s > run.began_s
        }
        # The questions of a detector overlap, and what it takes is in the cores already.
        busy = load.mllm_busy if isinstance(self.site.mllm, EmbeddedConfig) else None
        return RunningCosts(None, load.base, load.cores, tokens, busy)

    @property
    def in_fleet(self) -> bool:
        """True if this is the head or a node of a fleet."""
        return self._share.in_fleet

    def sink(self, name: str) -> Sink | None:
        """A sink that is served, by its name."""
        return self._relay.sinks.get(name) if self._relay else None

    def stream_status(self, slug: str, fault: str | None) -> StreamStatus:
        """The status of a stream, here or in the process that runs it; `fault` is why it cannot run."""
        found = stream_status(self.site.streams.get(slug), self.supervisors.get(slug), fault, self._clock.now())
        return (self._share.report(slug) or found) if found.state == "starting" else found

    def pictures_of(self, slug: str) -> PicturePlace | None:
        """The place of the pictures of a stream that another process runs. Blocks."""
        return self._share.pictures(slug)

    async def try_sink(self, name: str, send: bool, actor: str) -> str:
        """Try a sink that is served, with `send` by an event of its own; what was found. Raises SinkUnavailable, and
        ConfigError for one that can never work."""
        sink = self.sink(name)
        assert sink is not None
        assert self._relay is not None
        found = await checked(sink, self._clock)
        if not send:
            return found
        await self._relay.try_out(name, trial_event(name, actor, self._clock.now()))
        return f"{found}; a test event was taken"

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
        """The health of the service. May be called from any thread."""
        troubles = [Trouble(what, reason) for what, reason in list(self._waiting_for.items())]
        outage = self._outbox.outage if self._outbox else None
        if outage:
            troubles.append(Trouble("store", outage))
        for name, counts in list(self._relay.counts.items()) if self._relay else ():
            if counts.last_error:
                troubles.append(Trouble(f"sink {name}", counts.last_error))
        if self._evidence and self._evidence.trouble:
            troubles.append(Trouble("evidence", self._evidence.trouble))
        for slug, keeper in list(self.supervisors.items()):
            if keeper.trouble:
                troubles.append(Trouble(f"stream {slug}", keeper.trouble))
        silent_s = self._clock.monotonic_s() - self._beat_at_s
        if silent_s > STUCK_S:
            troubles.append(Trouble("process", f"its event loop has been stuck for {silent_s:.0f} s"))
        live = self._lost is None and silent_s <= STUCK_S
        return Health(live, live and self._phase == "serving" and not outage, self._phase, tuple(troubles))

    @property
    def runtime(self) -> Runtime:
        """The parts that streams share; present once the service has been entered."""
        return self._runtime

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
        new = {slug: stream for slug, stream in site.streams.items() if self.site.streams.get(slug) != stream}
        check_names(replace(site, streams=new), self._clock)
        async with self._reconciling:
            if self._closing:
                return asyncio.gather()
            await self._exchange(site)
            self.site = site
            self._tags.note(site.streams)
            self._board.replace(site.streams, site.watches, site.armed)
            await self._announce(site)
            return self._want(retry)

    @property
    def is_serving(self) -> bool:
        """True from the end of its start to the beginning of its end."""
        return self._phase == "serving"

    async def assign(self) -> None:
        """Begin to run the streams that are this process's now, and stop those that are another's. Those that another
        process had taken meanwhile are begun anew."""
        async with self._reconciling:
            if not self._closing:
                self._streams.renew({slug for slug, one in self.supervisors.items() if one.overtaken})
                self._want(retry=False)

    async def clear_left(self) -> None:
        """Clear what streams have left open that are removed or paused, and that nobody holds."""
        assert self._outbox is not None
        streams = self.site.streams
        paused = {slug for slug, stream in streams.items() if stream.paused}
        await clear_removed(self._store, self._outbox, self._clock, kept=streams, paused=paused)

    async def tidy(self) -> None:
        """Let go of streams that do not run here: they may have been taken after they were told to stop."""
        for slug in self._store.owned() - self._streams.busy - {SERVICE}:
            await self._let_go(slug)

    def _deciding(self) -> int:
        return sum(not one.task.done() for one in self.supervisors.values())

    async def finished(self) -> None:
        """Wait until every stream has ended. Raises what ended the first of them, if it was an error."""
        tasks = [running.task for running in self.supervisors.values()]
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _open(self, opened: AsyncExitStack) -> None:
        """Check what is cheap to check, then open what the streams need. What is opened last is closed first: streams,
        outbox, relay, MLLM, store."""
        site = self.site
        check_names(site, self._clock)
        self._open_traces(site, opened)
        if self._share.keeps_house:
            self._sinks.build(site.sinks)
        beating = asyncio.create_task(self._beat(), name="beat")
        opened.push_async_callback(stop, [beating])
        opened.callback(self._metrics_port.close)
        if self._insist and self._share.runs_streams:
            self._metrics_port.move(site.metrics)
        opening = partial(
            open_store, resolve_url(site.store, whole_path=True), self._clock, build_keep(site.keep), self._share.holder
        )
        self._store = await self._patiently("store", opening)
        opened.callback(self._store.close)
        if self._compose:
            self.site = site = await self._compose(self._store)
        self._tags.note(site.streams)
        if self._share.keeps_house:
            await self._open_relay(site, opened)
        else:
            self._store.register_sinks(list(site.sinks))
        make_allocator = await asyncio.to_thread(build_allocator, site, self._clock)
        mllm = self._shared_mllm
        if mllm is None:
            mllm = await self._patiently("mllm", partial(start_mllm, site.mllm, self._clock))
            opened.push_async_callback(mllm.close)
        if self._relay:
            others = set(self._store.sinks_owed()) - set(self._relay.sinks)
            if others:
                log.warning("events_wait_for_sinks_not_named_here", sinks=sorted(others))
            await self._relay.start()
            opened.push_async_callback(self._drain, self._relay)
        self._outbox = outbox = Outbox(self._store, self._clock, self._committed, self.lose, streams=self._deciding)
        opened.push_async_callback(outbox.close, min(OUTBOX_CLOSE_S, site.drain_s))
        if wants_evidence(site, self._insist):
            shared = self._share.holder is not None
            self._evidence = keeper = await open_keeper(site, self._store.database, mllm.info, self._clock, shared)
            opened.push_async_callback(keeper.close)
            count(keeper, self.metrics)
        self._runtime = self._make_runtime(site.mllm, mllm, outbox, make_allocator)
        opened.push_async_callback(self._allocator.close)
        self._count(outbox, mllm)
        opened.push_async_callback(self._detach_all)
        if self._insist and self._share.keeps_house:
            await self.clear_left()
        await self.begin_reconciling(site)
        if self._insist and self._share.keeps_house:
            self._vitals = signs = VitalSigns(self._look, self._store, outbox, self._clock, self.metrics)
            looking = asyncio.create_task(supervise("vitals", signs.run, self._clock, passing=FATAL), name="vitals")
            looking.add_done_callback(self._ended)
            opened.push_async_callback(stop, [looking])

    def _open_traces(self, site: SiteConfig, opened: AsyncExitStack) -> None:
        self._traces = traces = open_traces(site, self._clock, self.metrics, self._share.holder)
        if traces:
            self._sinks.traced = traces.sink
            opened.push_async_callback(traces.spans.close)

    async def _open_relay(self, site: SiteConfig, opened: AsyncExitStack) -> None:
        """The relay, not started yet, once its sinks have been tried."""
        sinks = self._sinks.build(site.sinks)
        self._relay = relay = Relay(
            self._store, sinks, self._clock, self._delivered, self.lose,
            poll_s=POLL_S if self._share.holder is None else SHARED_POLL_S,
            rules_of=self._sinks.rules, tags_of=self._tags.of,
        )  # fmt: skip
        opened.push_async_callback(relay.close)
        await check_sinks(sinks, self._clock, refuse=self._insist)

    def _want(self, retry: bool) -> Awaitable[object]:
        """Streams that are this process's are wanted; all others that are known go on elsewhere."""
        known = self.site.streams
        mine = {slug: stream for slug, stream in known.items() if self._is_mine(slug)}
        return self._streams.want(mine, retry, known)

    def _is_mine(self, slug: str) -> bool:
        return self._share.runs_streams and self._share.is_mine(slug)

    async def _let_go(self, slug: str) -> None:
        try:
            await asyncio.to_thread(self._store.let_go, slug)
        except (StoreUnavailable, *FATAL) as error:
            log.warning("stream_not_let_go", stream=slug, reason=str(error))

    def _look(self) -> tuple[Vitals, ServiceRules]:
        """The vitals of the service, and the rules that judge them."""
        return vitals_of(self.supervisors, self.sink_counts), self.site.service.rules()

    async def _exchange(self, site: SiteConfig) -> None:
        """Exchange what all streams share where it differs: all of it is made before anything changes."""
        differs = frozenset(changed_parts(self.site, site, EXCHANGED))
        make = await asyncio.to_thread(build_allocator, site, self._clock) if needs_allocator(self.site, site) else None
        sinks = self._sinks.build(site.sinks) if "sinks" in differs and self._relay else None
        if "metrics" in differs and self._insist and self._share.runs_streams:
            close_before = self._metrics_port.move(site.metrics)
            await asyncio.to_thread(close_before)
        if make:
            await self._allocator.switch(make(self._runtime.fit_rules, self.metrics.engine_call))
        if not self._relay:
            self._store.register_sinks(list(site.sinks))
        elif sinks is not None:
            before = set(self._relay.counts)
            await self._relay.exchange(sinks)
            for name in before - set(self._relay.counts):
                self.metrics.forget_sink(name)
            self._count_sinks()
        self._runtime.budget.share(site.gpu_budget.rate if site.gpu_budget else None)
        self._store.keep = build_keep(site.keep)

    async def _announce(self, site: SiteConfig) -> None:
        """Let sinks that keep a state for each watch know which stand."""
        announcing = self._sinks.announcing()
        if not announcing:
            return
        try:
            watches = await asyncio.to_thread(standing_watches, site, self._store)
        except StoreUnavailable as error:
            log.warning("watches_not_announced", reason=str(error))
            return
        for name, sink in announcing:
            sink.announce(for_sink(watches, self._sinks.rules(name).filter, self._tags.of))

    async def _patiently(self, what: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """`attempt()`, again until what it needs is there, unless a person waits."""
        if not self._insist:
            return await attempt()
        return await patiently(what, attempt, self._clock, self._waiting_for)

    async def _beat(self) -> None:
        while True:
            self._beat_at_s = self._clock.monotonic_s()
            if not self.in_fleet:  # there a node measures its own
                self._load.note({slug: one.source.counts.decoded for slug, one in self.attachments.items()})
            await self._clock.sleep(BEAT_S)

    def lose(self, error: ResadaptError) -> None:
        """Nothing can be decided here any more; the first reason counts."""
        self._lost = self._lost or error
        self._broken.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, FATAL) and not isinstance(error, StreamTaken):
            self.lose(error)

    def _make_runtime(self, config: MLLMConfig, mllm: MLLM, outbox: Outbox, make_allocator: MakeAllocator) -> Runtime:
        rules = build_fit_rules(config, mllm.info)
        gpu = self.site.gpu_budget
        self._allocator = AllocatorSwitch(make_allocator(rules, self.metrics.engine_call))
        runtime = Runtime(
            clock=self._clock,
            watches=self._board,
            budget=Ledger(self._clock, gpu.rate if gpu else None),
            allocator=self._allocator,
            fit_rules=rules,
            mllm=mllm,
            outbox=outbox,
            metrics=self.metrics,
            observe=self._observed,
        )
        return self._traces.runtime(runtime) if self._traces else runtime

    def _start(self, slug: str, stream: StreamConfig) -> StreamSupervisor:
        packets = partial(self._packets, slug, stream)
        supervisor = StreamSupervisor(slug, stream, self._runtime, self._store, self._insist, packets)
        supervisor.task.add_done_callback(self._ended)
        return supervisor

    def _packets(self, slug: str, stream: StreamConfig) -> PacketRing | None:
        return self._evidence.ring(slug, clip_refusal(stream)) if self._evidence else None

    def _observed(self, outcome: Outcome, events: Sequence[Event]) -> None:
        if self._evidence:
            self._evidence.observe(outcome, events)
        self._observe(outcome, events)

    async def _stopped(self, slug: str, reason: EndReason) -> None:
        self.metrics.forget(slug)
        if self._evidence:
            self._evidence.forget(slug)
        if self._outbox and not self._lost and (self._share.holder is None or self._store.owns(slug)):
            try:
                await clear_stopped(self._store, self._outbox, self._clock, slug, reason)
            except StreamTaken as error:
                log.info("stream_not_cleared", stream=slug, reason=str(error))
        await self._let_go(slug)

    async def _detach_all(self) -> None:
        async with self._reconciling:
            self._closing = True
        await self._streams.drain()

    def _committed(self, new_events: int) -> None:
        if self._relay:
            self._relay.wake(new_events)
        self.on_commit()

    async def _drain(self, relay: Relay) -> None:
        """Deliver what is decided, for at most `drain_s`; the rest stays in the store for the next start."""
        if not self._lost:
            await first(relay.drain(self.site.drain_s), self._hurried.wait())
        transient = {sink.name for sink in self._sinks.extra}
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

    def _count(self, outbox: Outbox, mllm: MLLM) -> None:
        """Show in the metrics what store, sinks and MLLM count."""
        self.metrics.commit_retries.set_function(partial(getattr, outbox.counts, "retries"))
        self.metrics.commits_stale.set_function(partial(getattr, outbox.counts, "stale"))
        self.metrics.event_conflicts.set_function(partial(getattr, self._store, "conflicts"))
        self.metrics.task_crashes.labels("outbox").set_function(partial(getattr, outbox.counts, "crashes"))
        self._count_sinks()
        if isinstance(mllm, Counting):
            self.metrics.watch_mllm(mllm.counts)

    def _count_sinks(self) -> None:
        for name, counts in self.sink_counts.items():
            self.metrics.sink_pending.labels(name).set_function(partial(getattr, counts, "pending"))
            self.metrics.sink_failures.labels(name).set_function(partial(getattr, counts, "failures"))
            self.metrics.sink_filtered.labels(name).set_function(partial(getattr, counts, "filtered"))
            self.metrics.sink_held_back.labels(name).set_function(partial(getattr, counts, "held_back"))
            self.metrics.task_crashes.labels(f"relay {name}").set_function(partial(getattr, counts, "crashes"))
