"""Decisions become durable: commits of many streams are grouped into one transaction, by one committer."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import structlog

from pipeline.clock import Clock
from pipeline.core.outcome import Decision
from pipeline.delivery.store import Rows
from pipeline.errors import NotOwner, ResadaptError, StoreDamaged, StoreUnavailable, StreamTaken
from pipeline.waiting import back_off_s, first, stop, supervise

log = structlog.get_logger()

GROUP_S = 0.03
"""How long a group waits for more decisions; it bounds the transactions per second, to 50."""
MAX_WAITING = 1024
RETRY_S = (0.1, 5.0)
"""First and longest wait between two tries while the store is unavailable; see back_off_s."""
FATAL = (NotOwner, StoreDamaged)
"""What no later try can change: the process has to end."""


class DecisionStore(Protocol):
    """The store as the outbox uses it. Both may raise; `write` runs in a thread."""

    def rows_of(self, decision: Decision) -> Rows: ...

    def write(self, rows: Sequence[Rows]) -> int:
        """Write all or nothing and return how many events are new. Raises StoreUnavailable, NotOwner, StoreDamaged, and
        StreamTaken for some of the streams alone."""
        ...


@dataclass(slots=True)
class OutboxCounts:
    """Running totals. `waited` counts commits that found the outbox full and waited for room; `retries` the tries
    of groups that the store had refused, in `outages` runs of refusals; `crashes` unforeseen ends of the committer;
    `stale` decisions were not written because another process decides on their stream now."""

    decisions: int = 0
    events: int = 0
    groups: int = 0
    waited: int = 0
    retries: int = 0
    outages: int = 0
    crashes: int = 0
    stale: int = 0


@dataclass(slots=True, eq=False)
class _Waiting:
    """A decision on its way, and the future of the one who waits for it: cancelled when the decision is withdrawn."""

    rows: Rows
    durable: asyncio.Future[None]


class Outbox:
    """Makes decisions durable in groups: those that arrive within `group_s` seconds share one transaction. One that
    comes while no other of `streams()` could decide is written at once.

    At most `max_waiting` decisions wait; a commit beyond that waits for room, and its stream with it. While the store
    is unavailable decisions are kept and tried again, in order. `on_commit` is called with the number of new events of
    each group, `on_fatal` once with an error of FATAL: every commit fails with it from then on. For use on one event
    loop; close it before the store.
    """

    def __init__(
        self,
        store: DecisionStore,
        clock: Clock,
        on_commit: Callable[[int], None] = lambda new_events: None,
        on_fatal: Callable[[ResadaptError], None] = lambda error: None,
        *,
        streams: Callable[[], int] = lambda: MAX_WAITING,
        group_s: float = GROUP_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.counts = OutboxCounts()
        self._store = store
        self._clock = clock
        self._on_commit = on_commit
        self._on_fatal = on_fatal
        self._fatal: ResadaptError | None = None
        self._streams = streams
        self._group_s = group_s
        self._room = asyncio.Semaphore(max_waiting)
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._attempt: asyncio.Future[int] | None = None
        self._committer: asyncio.Task[None] | None = None
        self._close_by_s: float | None = None
        self._outage_since_s: float | None = None
        self._outage: str | None = None
        self._thread = ThreadPoolExecutor(1, "outbox")

    @property
    def waiting(self) -> int:
        """Decisions that are not durable yet."""
        return len(self._waiting)

    @property
    def outage(self) -> str | None:
        """Why the store cannot take decisions now, if it cannot."""
        return str(self._fatal) if self._fatal else self._outage

    @property
    def writing(self) -> bool:
        """True while the store writes a group."""
        return self._attempt is not None and not self._attempt.done()

    async def commit(self, decision: Decision) -> None:
        """Return when the decision's state and events are durable together.

        When cancelled, it ends once the decision is either durable or withdrawn: none is written later behind the back
        of its stream. Raises ValueError for event data that JSON cannot hold, StoreUnavailable when the outbox closes
        before the store took the decision, NotOwner or StoreDamaged when it never will, and StreamTaken where another
        process decides on this stream now.
        """
        rows = self._store.rows_of(decision)
        self.counts.waited += self._room.locked()
        async with self._room:
            if self._fatal:
                raise self._fatal
            if self._close_by_s is not None:
                raise StoreUnavailable(f"the outbox is closed; a decision on {decision.stream_id} is not written")
            entry = _Waiting(rows, asyncio.get_running_loop().create_future())
            self._waiting.append(entry)
            self._arrived.set()
            self._committer = self._committer or asyncio.create_task(self._keep_running(), name="outbox")
            try:
                await entry.durable
            except asyncio.CancelledError:
                if self._attempt:
                    await asyncio.wait({self._attempt})
                raise

    async def close(self, deadline_s: float = 10.0) -> None:
        """Write what waits, with no new try after `deadline_s` seconds; the rest then fails with StoreUnavailable. A
        try under way is given as long again."""
        self._close_by_s = self._clock.monotonic_s() + deadline_s
        self._arrived.set()
        if self._committer:
            await first(_ended(self._committer), self._clock.sleep(2 * deadline_s))
            await stop([self._committer])
        for entry in self._waiting:
            _fail(entry, StoreUnavailable("the outbox closed before the store took the decision"))
        self._waiting.clear()
        self._thread.shutdown(wait=False)

    async def _keep_running(self) -> None:
        await supervise("outbox", self._run, self._clock, self._note_crash)

    async def _run(self) -> None:
        refused = 0
        while not self._is_over():
            await self._arrived.wait()
            if self._close_by_s is None and len(self._waiting) < self._streams():
                await self._clock.sleep(self._group_s)
            self._arrived.clear()
            self._waiting = [entry for entry in self._waiting if not entry.durable.cancelled()]
            if await self._write(self._waiting):
                refused = 0
                continue
            refused += 1
            await self._clock.sleep(back_off_s(refused, *RETRY_S))
            self.counts.retries += 1
            self._arrived.set()

    def _note_crash(self, error: Exception) -> None:
        self.counts.crashes += 1
        self._arrived.set()

    def _is_over(self) -> bool:
        if self._fatal:
            return True
        if self._close_by_s is None:
            return False
        return not self._waiting or self._clock.monotonic_s() >= self._close_by_s

    async def _write(self, entries: Sequence[_Waiting]) -> bool:
        """Try to make entries durable together; False when the store is unavailable and they go on waiting."""
        group = tuple(entries)
        if not group:
            return True
        run = asyncio.get_running_loop().run_in_executor
        self._attempt = run(self._thread, self._store.write, [entry.rows for entry in group])
        await asyncio.wait({self._attempt})
        error = self._attempt.exception()
        if isinstance(error, StoreUnavailable):
            self._note_outage(error)
            return False
        if isinstance(error, StreamTaken):
            return await self._write(self._without_stale(group, error))
        if isinstance(error, FATAL):
            self._give_up(error)
            return True
        if error and len(group) > 1:
            # One of them cannot be written by anyone: find out which, so that it fails alone.
            return all([await self._write([entry]) for entry in group])
        tried = set(group)
        self._waiting = [entry for entry in self._waiting if entry not in tried]
        if error:
            _fail(group[0], error)
        else:
            self._settle(group, self._attempt.result())
        return True

    def _without_stale(self, group: Sequence[_Waiting], error: StreamTaken) -> list[_Waiting]:
        """The rest of a group, once the decisions on streams that others own have failed, each for itself."""
        stale = [entry for entry in group if entry.rows.stream_id in error.streams]
        assert stale, "the error names streams of the group"
        self.counts.stale += len(stale)
        gone = set(stale)
        self._waiting = [entry for entry in self._waiting if entry not in gone]
        for entry in stale:
            _fail(entry, StreamTaken(str(error), (entry.rows.stream_id,)))
        return [entry for entry in group if entry not in gone]

    def _give_up(self, error: ResadaptError) -> None:
        log.error("store_lost", reason=str(error), error=type(error).__name__)
        self._fatal = error
        for entry in self._waiting:
            _fail(entry, error)
        self._waiting.clear()
        self._on_fatal(error)

    def _settle(self, group: Sequence[_Waiting], new_events: int) -> None:
        for entry in group:
            if not entry.durable.done():
                entry.durable.set_result(None)
        self.counts.decisions += len(group)
        self.counts.events += new_events
        self.counts.groups += 1
        if self._outage_since_s is not None:
            log.info("store_recovered", seconds=round(self._clock.monotonic_s() - self._outage_since_s, 3))
            self._outage_since_s = self._outage = None
        if new_events:
            self._on_commit(new_events)

    def _note_outage(self, error: StoreUnavailable) -> None:
        self._outage = str(error)
        if self._outage_since_s is None:
            self._outage_since_s = self._clock.monotonic_s()
            self.counts.outages += 1
            log.warning("store_unavailable", reason=str(error), waiting=len(self._waiting))


def _fail(entry: _Waiting, error: BaseException) -> None:
    if not entry.durable.done():
        entry.durable.set_exception(error)


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task})
