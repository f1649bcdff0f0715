"""The head of a fleet: it places streams on nodes, keeps a node running on each machine, and delivers the events.

All that it knows is in the store: another head goes on where one has ended. There is one at a time, by the fencing
token that a stream's owner has too. While there is none, nodes go on deciding, and events wait in the store.
"""

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeVar

import structlog

from pipeline.clock import Clock
from pipeline.config.site import SiteConfig
from pipeline.config.values import resolve_url
from pipeline.delivery.database import parse_store
from pipeline.delivery.nodes import NodeBook, NodeOffer, StoredNode
from pipeline.delivery.outbox import FATAL
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError, NotOwner, ResadaptError, StoreUnavailable, StreamTaken
from pipeline.fleet.placement import NodeRoom, Placement, StreamNeed, place
from pipeline.fleet.terms import UNMEASURED, Machine, NodeReport, ShardTerms, is_skewed, unfit, version
from pipeline.loop import Observe, unobserved
from pipeline.redact import redact_url, scrub
from pipeline.service.reconciler import Reconciler
from pipeline.service.share import PicturePlace, WorkShare
from pipeline.service.status import StreamStatus
from pipeline.waiting import back_off_s, stop, supervise

log = structlog.get_logger()

TICK_S = 0.5
"""How often nodes are looked at, at least; more often where leases are short."""
TEND_S = 4.0
"""How often machines are looked for that have come or gone. Whether a node lives is seen in the store, at each tick."""
LOOK_S = 10.0
"""How long the cluster may take to say which machines there are."""
COSTS_S = 10.0
"""How often what streams cost is read."""
FRESH_S = 1.0
"""How old a report on streams may be when somebody asks."""
RESTART_S = (0.5, 5.0)
"""First and longest pause before a node that has ended is run again, in seconds."""
FORGET_EVERY_S = 60.0
FORGET_S = 3600.0
"""How long a node that is gone is still listed."""

_T = TypeVar("_T")


class ShardLost(ResadaptError):
    """A node has ended in an unforeseen way, or cannot be reached by the cluster. It is run again."""


class ShardRefused(ResadaptError):
    """A node cannot run: another version, or a site that its machine cannot run. `version` is the node's."""

    def __init__(self, message: str, version: str) -> None:
        super().__init__(message)
        self.version = version


class Cluster(Protocol):
    """Machines on which nodes can be run."""

    def machines(self) -> Sequence[Machine]:
        """Those that are there. Blocks."""
        ...

    async def run(self, terms: ShardTerms) -> str:
        """Run a node on its machine, or take over the one that runs there; why it has ended. Raises ShardLost and
        ShardRefused."""
        ...

    async def reload(self, terms: ShardTerms) -> None:
        """Let a node take over what the site file says now. Raises ShardLost and ShardRefused."""
        ...

    async def end(self, machine: str) -> None:
        """Let a node hand over its streams and end. Raises ShardLost."""
        ...


def require_server(site: SiteConfig) -> None:
    """Refuse a site whose store is a file: nodes of a fleet meet in it. Raises ConfigError."""
    if parse_store(resolve_url(site.store, whole_path=True)).get_backend_name() != "postgresql":
        raise ConfigError(
            f"store is {redact_url(site.store)!r}, a file of this machine; a fleet meets in its store: give"
            " postgresql://USER:PASSWORD@HOST/NAME, or leave out --cluster"
        )


class FleetHead:
    """The head of the fleet of a site file. Its `reconciler` runs no stream; `begin` once that has started, `close`
    before it ends."""

    def __init__(self, path: Path, clock: Clock, cluster: Cluster, observe: Observe = unobserved) -> None:
        self.holder = f"head ({socket.gethostname()} {os.getpid()}-{uuid.uuid4().hex[:6]})"
        self._clock = clock
        self._cluster = cluster
        self._path = path.resolve()
        share = WorkShare("house", self.holder, report=self._status, pictures=self._pictures)
        self.reconciler = Reconciler(path, clock, observe, share=share, opening=self._lead)
        require_server(self.reconciler.service.site)
        self._token = 0
        # The lead is held, and streams are placed, behind no other work of threads.
        self._threads = ThreadPoolExecutor(2, "head")
        self._tasks: list[asyncio.Task[None]] = []
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[Sequence[Machine]] | None = None
        self._forgot_at_s = float("-inf")
        self._machines: Mapping[str, Machine] = {}
        self._nodes: Sequence[StoredNode] = ()
        self._looked = asyncio.Event()
        self._places: dict[str, str] = {}
        self._found = Placement()
        self._asked: tuple[Sequence[StreamNeed], Sequence[NodeRoom]] | None = None
        self._needs: tuple[SiteConfig, Mapping[str, float], Sequence[StreamNeed]] | None = None
        self._costs: Mapping[str, float] = {}
        self._costs_at_s = float("-inf")
        self._reporting = Lock()
        self._reports: tuple[float, Mapping[str, NodeReport]] = (float("-inf"), {})

    def begin(self) -> None:
        """Place streams, and keep nodes running, from now on."""
        for name, work in (("placement", self._keep_placing), ("nodes", self._keep_tending)):
            task = asyncio.create_task(supervise(name, work, self._clock, passing=FATAL), name=name)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def close(self, end_nodes: bool) -> None:
        """Place nothing more; with `end_nodes` also let all nodes hand over and end. Else they go on without a head."""
        keepers = list(self._keepers.values())
        await stop([task for task in self._tasks if task.get_name() != "head"] + keepers)
        if end_nodes:
            await asyncio.gather(*(self._end(name) for name in self._keepers))
        await stop(self._tasks)
        if self._token:
            try:
                await self._in_thread(self._book.leave, self.holder)
            except StoreUnavailable as error:
                log.warning("lease_left_to_run_out", reason=scrub(str(error)))

    async def reload(self) -> None:
        """Read the site file again, apply it, and let the nodes know. Raises ConfigError, before anything changes."""
        await self.reconciler.reload()
        for name in list(self._keepers):
            if machine := self._machines.get(name):
                try:
                    await self._cluster.reload(self._terms(machine))
                except (ShardLost, ShardRefused) as error:
                    log.warning("node_not_reloaded", node=name, reason=scrub(str(error)))

    async def _in_thread(self, call: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    @property
    def _site(self) -> SiteConfig:
        return self.reconciler.service.site

    async def _lead(self, store: Store) -> None:
        """Become the head; a head that has just gone is outwaited. Raises ConfigError where there is another."""
        lease_s = self._site.fleet.lease_s
        self._book = book = NodeBook(store.database, self._clock)
        patient_until_s = self._clock.monotonic_s() + 2 * lease_s
        while True:
            try:
                self._token = await self._in_thread(book.lead, self.holder, lease_s)
                break
            except StreamTaken as error:
                if self._clock.monotonic_s() > patient_until_s:
                    await self._in_thread(book.leave, self.holder)
                    raise ConfigError(
                        f"another head leads the fleet of {store.database.name}: {error}; stop that one, or give this"
                        " one a store of its own"
                    ) from error
            await self._clock.sleep(lease_s / 4)
        self._places = dict(await self._in_thread(book.places))
        log.info("leading", holder=self.holder, placed=len(self._places))
        leading = supervise("head", self._keep_leading, self._clock, passing=FATAL)
        self._tasks.append(asyncio.create_task(leading, name="head"))
        self._tasks[-1].add_done_callback(self._ended)

    async def _keep_leading(self) -> None:
        """Hold on to the lead, and look at the nodes meanwhile. Raises NotOwner when somebody else has taken it."""
        while True:
            lease_s = self._site.fleet.lease_s
            await self._clock.sleep(min(TICK_S, lease_s / 4))
            try:
                nodes = await self._in_thread(self._book.lead_on, self.holder, lease_s, self._token)
            except StoreUnavailable as error:
                log.warning("lead_not_renewed", reason=scrub(str(error)))
                continue
            if nodes is None:
                raise NotOwner("another head leads this fleet now; this one places and delivers nothing more")
            self._nodes = nodes
            self._looked.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), FATAL):
            self.reconciler.service.lose(error)

    async def _keep_placing(self) -> None:
        while True:
            await self._looked.wait()
            self._looked.clear()
            try:
                await self._place(self._nodes)
            except StoreUnavailable as error:
                log.warning("not_placed", reason=scrub(str(error)))

    async def _place(self, nodes: Sequence[StoredNode]) -> None:
        """Place all streams on the nodes that live, and write down what is different."""
        await self._read_costs()
        asked = self._wanted(), self._rooms(nodes)
        left = self._places.keys() - {need.stream for need in asked[0]}
        if asked == self._asked and not left:
            return
        found = place(*asked, self._places)
        for slug in sorted(set(found.reasons) - set(self._found.reasons)):
            log.warning("stream_not_placed", stream=slug, reason=found.reasons[slug])
        moved = {slug: node for slug, node in found.nodes.items() if self._places.get(slug) != node}
        free = await self._let_go_of(left)
        removed = {slug for slug in found.reasons if slug in self._places} | free
        if moved or removed:
            await self._in_thread(self._book.place, moved, removed, self._token)
            log.info("placed", moved=len(moved), removed=len(removed), streams=len(found.nodes), nodes=len(asked[1]))
        self._asked, self._found = asked, found
        self._places = {slug: node for slug, node in (self._places | moved).items() if slug not in removed}
        if free:
            await self.reconciler.service.clear_left()

    async def _let_go_of(self, left: Set[str]) -> set[str]:
        """Those of the streams that are wanted no more which nobody holds: their nodes have ended them, or are gone."""
        if not left:
            return set()
        held = await self._in_thread(self._book.holders)
        return {slug for slug in left if slug not in held}

    def _wanted(self) -> Sequence[StreamNeed]:
        site, costs = self._site, self._costs
        if self._needs is None or self._needs[0] is not site or self._needs[1] is not costs:
            needs = [
                StreamNeed(slug, costs.get(slug, UNMEASURED), stream.node)
                for slug, stream in sorted(site.streams.items())
                if not stream.paused
            ]
            self._needs = site, costs, needs
        return self._needs[2]

    def _rooms(self, nodes: Sequence[StoredNode]) -> Sequence[NodeRoom]:
        """The nodes that live. Where every clock is off, it is the database's that is wrong, and none is refused."""
        most_s, own = self._site.fleet.most_skew_s, version()
        live = [node for node in nodes if node.live]
        if all(is_skewed(node, most_s) for node in live):
            most_s = float("inf")
        rooms = []
        for node in live:
            fit, offer = unfit(node, own, most_s) is None, node.offer
            takes, keeps = fit and node.wanted == "active", fit and node.wanted != "drained"
            rooms.append(NodeRoom(offer.name, offer.capacity, offer.most_streams, offer.tags, takes, keeps))
        return rooms

    async def _read_costs(self) -> None:
        if self._clock.monotonic_s() - self._costs_at_s < COSTS_S:
            return
        self._costs_at_s = self._clock.monotonic_s()
        reports = await asyncio.to_thread(self._fresh_reports)
        costs = {slug: cost for report in reports.values() for slug, cost in report.costs.items()}
        if costs != self._costs:
            self._costs = costs

    def _fresh_reports(self) -> Mapping[str, NodeReport]:
        """The reports of the nodes, read again where they are older than FRESH_S. Blocks."""
        with self._reporting:
            at_s, reports = self._reports
            if self._clock.monotonic_s() - at_s > FRESH_S:
                reports = {name: NodeReport.from_json(text) for name, text in self._book.reports().items()}
                self._reports = self._clock.monotonic_s(), reports
            return reports

    def _status(self, slug: str) -> StreamStatus | None:
        """The status of a stream, from the node that runs it. Blocks."""
        if reason := self._found.reasons.get(slug):
            return StreamStatus("starting", reason=reason)
        node = self._places.get(slug)
        if node is None:
            return None
        report = self._fresh_reports().get(node, NodeReport())
        return report.streams.get(slug) or StreamStatus("starting", reason=f"it is placed on {node}", node=node)

    def _pictures(self, slug: str) -> PicturePlace | None:
        """The place where the node that runs a stream offers its pictures. Blocks."""
        node = self._places.get(slug)
        return self._fresh_reports().get(node, NodeReport()).pictures if node else None

    async def _keep_tending(self) -> None:
        while True:
            await self._tend()
            await self._clock.sleep(TEND_S)

    async def _tend(self) -> None:
        """Keep a node running on every machine that is there."""
        # A cluster without its own head answers after a minute, if at all: one question at a time.
        self._looking = self._looking or asyncio.create_task(asyncio.to_thread(self._cluster.machines))
        await asyncio.wait({self._looking}, timeout=LOOK_S)
        if not self._looking.done():
            log.warning("cluster_not_reached", reason=f"no answer in {LOOK_S:g} s")
            return
        looked, self._looking = self._looking, None
        try:
            self._machines = {machine.name: machine for machine in looked.result()}
        except ShardLost as error:
            log.warning("cluster_not_reached", reason=scrub(str(error)))
            return
        for name in self._machines:
            if name not in self._keepers or self._keepers[name].done():
                self._keepers[name] = asyncio.create_task(self._keep(name), name=f"node {name}")
        await self._forget_old()

    async def _keep(self, name: str) -> None:
        """Run the node of a machine, again and again, for as long as the machine is there."""
        failures = 0
        while machine := self._machines.get(name):
            began_s = self._clock.monotonic_s()
            try:
                why = await self._cluster.run(self._terms(machine))
                log.info("node_ended", node=name, reason=why)
            except ShardLost as error:
                log.warning("node_lost", node=name, reason=scrub(str(error)))
            except ShardRefused as error:
                log.error("node_refused", node=name, reason=scrub(str(error)))
                await self._note_refused(machine, error)
            failures = 1 if self._clock.monotonic_s() - began_s > 2 * RESTART_S[1] else failures + 1
            await self._clock.sleep(back_off_s(failures, *RESTART_S))

    async def _note_refused(self, machine: Machine, error: ShardRefused) -> None:
        tags, report = machine.tags | {machine.name}, NodeReport(trouble=scrub(str(error)))
        offer = NodeOffer(machine.name, "", error.version, machine.capacity, machine.most_streams, tags)
        try:
            await self._in_thread(self._book.join, offer, 0.0, report.to_json())
        except StoreUnavailable as error:
            log.warning("node_not_noted", node=machine.name, reason=scrub(str(error)))

    async def _forget_old(self) -> None:
        """Strike out nodes that are long gone, unless somebody wants something of them."""
        if self._clock.monotonic_s() - self._forgot_at_s < FORGET_EVERY_S:
            return
        self._forgot_at_s, now = self._clock.monotonic_s(), self._clock.now()
        try:
            for node in await self._in_thread(self._book.nodes):
                old = (now - node.joined_at).total_seconds() > FORGET_S
                if old and not node.live and node.offer.name not in self._machines and node.wanted == "active":
                    await self._in_thread(self._book.forget, node.offer.name)
        except StoreUnavailable as error:
            log.debug("nodes_not_read", reason=scrub(str(error)))

    async def _end(self, name: str) -> None:
        try:
            await asyncio.wait_for(self._cluster.end(name), 2 * self._site.drain_s + LOOK_S)
        except (ShardLost, TimeoutError) as error:
            log.warning("node_not_ended", node=name, reason=scrub(str(error)) or "it did not end in time")

    def _terms(self, machine: Machine) -> ShardTerms:
        return ShardTerms(machine, self.reconciler.raw, str(self._path), version())
