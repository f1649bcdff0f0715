"""A node's part of a fleet: the ordinary service, for the streams that are placed on it.

It needs the store, and nobody else: a head that is away changes nothing for it. Its lease runs by the database's clock;
where it runs out, because the process was frozen or the store out of reach, others take its streams, and what it still
decides on them is refused by the fencing token. It then lets go of them by name and takes what is placed on it.
"""

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from pipeline.clock import Clock, SystemClock
from pipeline.config.site import parse_site
from pipeline.core.outcome import Outcome
from pipeline.delivery.nodes import NodeBook, NodeOffer
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError, NotOwner, StoreUnavailable
from pipeline.fleet.terms import NodeReport, ShardTerms, version
from pipeline.redact import scrub
from pipeline.registry.desired import Composer
from pipeline.service.costs import CostMeter
from pipeline.service.logged import log_watch_events
from pipeline.service.reconciler import Reconciler
from pipeline.service.service import Service
from pipeline.service.share import PicturePlace, WorkShare
from pipeline.types import Event
from pipeline.waiting import first, stop, supervise

log = structlog.get_logger()

SIGNS_PER_LEASE = 4
"""Signs of life within a lease: so many less one may be late or lost."""
REPORT_S = 1.0
"""How often a node says how its streams are."""

_T = TypeVar("_T")

OfferPictures = Callable[[Reconciler, Clock, str, str, int], AbstractAsyncContextManager[PicturePlace]]
"""Offers pictures of what a reconciler runs while it is entered, on an address and port (0: any free one), as a node of
a name."""


class Shard:
    """A node: it joins the fleet, runs the streams that are placed on it, and hands over those that no longer are.

    `run` returns when `end` was asked for, or when another process has become this node, and then has handed over all
    of them. By `offer` it offers pictures of its streams to the head. Raises ConfigError for a site that cannot run
    here or another version than the head's, NotOwner or StoreDamaged where nothing can be decided any more.
    """

    def __init__(
        self,
        terms: ShardTerms,
        clock: Clock,
        offer: OfferPictures | None = None,
        own_version: str | None = None,
        cpu_s: Callable[[], float] = SystemClock().cpu_s,
    ) -> None:
        self.name = terms.machine.name
        self.holder = f"{self.name} ({socket.gethostname()} {os.getpid()}-{uuid.uuid4().hex[:6]})"
        self._terms = terms
        self._clock = clock
        self._offer = offer
        self._pictures: PicturePlace | None = None
        self._version = own_version or version()
        self._mine: frozenset[str] = frozenset()
        self._assigned: frozenset[str] | None = None
        self._skew_s = 0.0
        self._costs = CostMeter(clock.monotonic_s, cpu_s)
        self._ending = asyncio.Event()
        self._ended = asyncio.Event()
        self._why = "it was asked to end"
        self._signing: asyncio.Task[None] | None = None
        self._reconciler: Reconciler | None = None
        self._book: NodeBook | None = None
        # Signs of life wait behind no other work of threads.
        self._thread = ThreadPoolExecutor(1, "signs of life")

    async def run(self) -> str:
        """Run the node. Returns why it has ended."""
        terms = self._terms
        if terms.version != self._version:
            raise ConfigError(
                f"the node {self.name} runs version {self._version}, and the head {terms.version}: install the same on"
                " both"
            )
        share = WorkShare("streams", self.holder, is_mine=lambda slug: slug in self._mine)
        self._reconciler = reconciler = Reconciler(
            None, self._clock, observe=_log, said=_composer(terms), share=share, opening=self._join
        )
        try:
            async with reconciler, AsyncExitStack() as offering:
                await self._offer_pictures(reconciler, offering)
                broken = asyncio.create_task(reconciler.service.broken())
                await first(self._ending.wait(), asyncio.wait({broken}))
            if broken.done():
                await broken
            await stop([broken])
        finally:
            if self._signing:
                await stop([self._signing])
            self._ended.set()
        if self._book:
            await self._leave(self._book)
        return self._why

    async def end(self) -> None:
        """Hand over all streams, and end. Returns when that is done."""
        self._ending.set()
        await self._ended.wait()

    async def ended(self) -> str:
        """Wait for the end of it. Returns why."""
        await self._ended.wait()
        return self._why

    async def reload(self, terms: ShardTerms) -> None:
        """Take over what a site file says now. Raises ConfigError for what needs a restart."""
        if self._reconciler and not self._ending.is_set():
            await self._reconciler.take_over(_composer(terms))

    async def _join(self, store: Store) -> None:
        """Enter the node, before anything slow is opened, and give signs of life from then on."""
        machine, lease_s = self._terms.machine, self._lease_s
        offer = NodeOffer(
            self.name, self.holder, self._version, machine.capacity, machine.most_streams, machine.tags | {self.name}
        )
        self._book = book = NodeBook(store.database, self._clock)
        await self._in_thread(book.join, offer, lease_s)
        await self._sign(book, None)
        log.info("node_joined", node=self.name, holder=self.holder, streams=sorted(self._mine))
        work = partial(self._keep_signing, book)
        self._signing = asyncio.create_task(supervise("signs of life", work, self._clock), name="signs of life")

    async def _offer_pictures(self, reconciler: Reconciler, offering: AsyncExitStack) -> None:
        """Offer pictures to the head, if the address can be had: streams run all the same."""
        port = reconciler.service.site.fleet.pictures_port
        if self._offer is None or port == 0:
            return
        offer = self._offer(reconciler, self._clock, self.name, self._terms.machine.address, port or 0)
        try:
            self._pictures = await offering.enter_async_context(offer)
        except ConfigError as error:
            log.warning("pictures_not_offered", node=self.name, reason=scrub(str(error)))

    @property
    def _lease_s(self) -> float:
        assert self._reconciler is not None
        return self._reconciler.service.site.fleet.lease_s

    async def _keep_signing(self, book: NodeBook) -> None:
        reported_s = float("-inf")
        while True:
            began_s = self._clock.monotonic_s()
            try:
                report = None
                if began_s - reported_s >= REPORT_S:
                    report, reported_s = self._report(), began_s
                await self._sign(book, report)
            except StoreUnavailable as error:
                log.warning("sign_of_life_not_given", node=self.name, reason=scrub(str(error)))
            spent_s = self._clock.monotonic_s() - began_s
            await self._clock.sleep(max(self._lease_s / SIGNS_PER_LEASE - spent_s, 0.05))

    async def _sign(self, book: NodeBook, report: NodeReport | None) -> None:
        text = report.to_json() if report else None
        asked = self._clock.now().timestamp()
        sign = await self._in_thread(book.sign, self.name, self.holder, self._lease_s, self._skew_s, text)
        self._skew_s = (asked + self._clock.now().timestamp()) / 2 - sign.now_s
        if sign.replaced:
            self._why = "another process has become this node"
            log.warning("node_replaced", node=self.name, holder=self.holder)
            self._ending.set()
        self._mine = sign.streams
        if self._reconciler and self._reconciler.service.is_serving:
            await self._follow(self._reconciler.service)

    async def _follow(self, service: Service) -> None:
        """Run what is placed here now."""
        overtaken = any(one.overtaken for one in service.supervisors.values())
        if self._mine != self._assigned or overtaken:
            before, self._assigned = self._assigned or frozenset(), self._mine
            come, go = sorted(self._mine - before), sorted(before - self._mine)
            log.info("streams_placed", node=self.name, come=come, go=go, streams=len(self._mine))
            await service.assign()
        await service.tidy()

    def _report(self) -> NodeReport | None:
        if self._reconciler is None or not self._reconciler.service.is_serving:
            return None
        service, faults = self._reconciler.service, self._reconciler.faults
        slugs = [slug for slug in sorted(self._mine) if slug in service.site.streams]
        streams = {slug: service.stream_status(slug, faults.get(("stream", slug))) for slug in slugs}
        decoded = {slug: one.source.counts.decoded for slug, one in service.attachments.items()}
        return NodeReport(
            {slug: replace(status, node=self.name) for slug, status in streams.items()},
            self._costs.of(decoded),
            pictures=self._pictures,
            base=self._costs.base,
        )

    async def _in_thread(self, call: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def _leave(self, book: NodeBook) -> None:
        try:
            await self._in_thread(book.leave, self.holder)
            book.close()
        except (StoreUnavailable, NotOwner) as error:
            log.warning("lease_left_to_run_out", node=self.name, reason=scrub(str(error)))


def _composer(terms: ShardTerms) -> Composer:
    return Composer(parse_site(terms.raw), terms.raw, Path(terms.path))


def _log(_outcome: Outcome, events: Sequence[Event]) -> None:
    log_watch_events(events)
