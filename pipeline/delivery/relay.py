"""Committed events go out: one courier per sink takes them from the store in order, and tries until they arrive."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

import structlog

from pipeline.clock import Clock
from pipeline.core.gate import GateRules, GateState, Passage, TagsOf, let_through
from pipeline.delivery.history import StoredEvent
from pipeline.delivery.outbox import FATAL
from pipeline.errors import ConfigError, ResadaptError, SinkGone, SinkUnavailable, StoreUnavailable
from pipeline.redact import plain_traceback
from pipeline.sinks.base import Announcing, Sink
from pipeline.types import Event
from pipeline.waiting import back_off_s, first, stop, supervise

log = structlog.get_logger()

BATCH = 256
"""Events handed to a sink at a time; half as many after each failure, down to one, so that a slow or hesitant sink gets
on all the same."""
PUBLISH_S = 60.0
"""How long a sink may take over a batch, whatever it does meanwhile."""
TRY_OUT_S = 20.0
"""How long a sink may take over an event that only tries it, what it is busy with included."""
CLOSE_S = 5.0
"""How long a sink may take to close."""
POLL_S = 5.0
"""How long an idle courier trusts that it is woken by commits; another process may share the store."""
RETRY_S = (0.25, 30.0)
"""First and longest wait after a failure; each is twice the one before, and up to half of it is left to chance."""
RETRY_AFTER_S = (1.0, 300.0)
"""Shortest and longest wait that a sink may ask for. One that asks for less has its say ignored."""
REMIND_S = 60.0
"""How often an outage of a sink that goes on is logged."""

OnDelivered = Callable[[str, Sequence[Event], datetime], None]
"""Called with a sink's name, the events it has acknowledged, and when (UTC)."""

_T = TypeVar("_T")


class EventStore(Protocol):
    """The store as the relay uses it. All but `register_sinks` run in a thread and may raise StoreUnavailable."""

    def register_sinks(self, names: Sequence[str]) -> None: ...

    def pending(self, sink: str) -> int: ...

    def pending_events(self, sink: str, limit: int) -> list[StoredEvent]: ...

    def delivered(self, sink: str, seqs: Sequence[int], note: str | None = None) -> None: ...

    def sink_note(self, sink: str) -> str | None: ...


@dataclass(slots=True)
class SinkCounts:
    """Running totals of one sink. `pending` events wait for it, `failures` batches it could not take, `crashes` are
    unforeseen ends of its courier; `last_publish_s` is how long its newest successful batch took, `last_error` why the
    newest try failed (or None). `filtered` events were not for it, `held_back` beyond its rate limit."""

    published: int = 0
    filtered: int = 0
    held_back: int = 0
    failures: int = 0
    crashes: int = 0
    pending: int = 0
    last_publish_s: float | None = None
    last_error: str | None = None


class Relay:
    """Delivers the store's events to `sinks`: in the order of commits, at least once, across restarts.

    Building it registers the sinks with the store, so that commits from then on are owed to them. Call `start`, then
    `wake` after each commit that brought events. A sink that fails holds up nobody but itself: its events wait,
    unless it is gone (SinkGone).
    `on_fatal` is called with the error when the store can never be read again. `rules_of` gives by a sink's name which
    events it gets, `tags_of` the tags of a stream; what a sink does not get is done with as if it had it, and counted.
    """

    def __init__(
        self,
        store: EventStore,
        sinks: Sequence[Sink],
        clock: Clock,
        on_delivered: OnDelivered = lambda sink, events, now: None,
        on_fatal: Callable[[ResadaptError], None] = lambda error: None,
        *,
        batch: int = BATCH,
        poll_s: float = POLL_S,
        rules_of: Callable[[str], GateRules] = lambda sink: GateRules(),
        tags_of: TagsOf = lambda stream: (),
    ) -> None:
        names = [sink.name for sink in sinks]
        if len(set(names)) < len(names):
            raise ConfigError(f"sinks need names of their own; got {', '.join(sorted(names))}")
        store.register_sinks(names)
        self._store = store
        self._clock = clock
        self._on_fatal = on_fatal
        self._thread = ThreadPoolExecutor(1, "relay")
        self._make: Callable[[Sink], _Courier] = lambda sink: _Courier(
            sink, store, clock, self._thread, on_delivered, batch, poll_s, rules_of(sink.name), tags_of
        )
        self._couriers = [self._make(sink) for sink in sinks]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def counts(self) -> dict[str, SinkCounts]:
        """Totals by sink name."""
        return {courier.name: courier.counts for courier in self._couriers}

    @property
    def sinks(self) -> dict[str, Sink]:
        """Those that are served, by name."""
        return {courier.name: courier.sink for courier in self._couriers}

    async def start(self) -> None:
        """Begin to deliver, first of all what waited from before."""
        self._tasks = [self._begin(courier) for courier in self._couriers]

    async def exchange(self, sinks: Sequence[Sink]) -> None:
        """Deliver to these from now on. Those that were served before go on undisturbed; of one that is gone, what
        waits stays in the store."""
        served = {id(courier.sink): courier for courier in self._couriers}
        gone = [courier for courier in self._couriers if courier.sink not in sinks]
        self._store.register_sinks([sink.name for sink in sinks])
        await stop([task for task in self._tasks if task.get_name() in {f"relay {courier.name}" for courier in gone}])
        await asyncio.gather(*(courier.close() for courier in gone))
        self._tasks = [task for task in self._tasks if not task.done()]
        self._couriers = [served.get(id(sink)) or self._make(sink) for sink in sinks]
        for courier in self._couriers:
            if id(courier.sink) not in served:
                self._tasks.append(self._begin(courier))

    def wake(self, new_events: int = 0) -> None:
        """There is something to deliver: `new_events` were committed."""
        for courier in self._couriers:
            courier.wake(new_events)

    async def try_out(self, sink: str, event: Event) -> None:
        """Deliver one event to a sink by itself, past its filter and its rate limit. Raises SinkUnavailable, or what
        the sink raises."""
        (courier,) = (one for one in self._couriers if one.name == sink)
        await courier.try_out(event)

    async def drain(self, deadline_s: float) -> dict[str, int]:
        """Deliver until nothing is left or `deadline_s` seconds have passed; what is left, by sink name.

        Sinks that are waiting after a failure try once more at once.
        """
        await first(self._empty(), self._clock.sleep(deadline_s))
        return {courier.name: courier.counts.pending for courier in self._couriers}

    async def close(self) -> None:
        """Stop delivering and close the sinks. What is left goes out after the next start."""
        await stop(self._tasks)
        await asyncio.gather(*(courier.close() for courier in self._couriers))
        self._thread.shutdown(wait=False)

    def _begin(self, courier: "_Courier") -> asyncio.Task[None]:
        if isinstance(courier.sink, Announcing):
            courier.sink.connect()
        return asyncio.create_task(self._keep_delivering(courier), name=f"relay {courier.name}")

    async def _keep_delivering(self, courier: "_Courier") -> None:
        try:
            await supervise(f"relay {courier.name}", courier.run, self._clock, courier.note_crash, passing=FATAL)
        except FATAL as error:
            log.error("store_lost", sink=courier.name, reason=str(error), error=type(error).__name__)
            self._on_fatal(error)

    async def _empty(self) -> None:
        await asyncio.gather(*(courier.empty() for courier in self._couriers))


class _Courier:
    """Delivers to one sink."""

    def __init__(
        self,
        sink: Sink,
        store: EventStore,
        clock: Clock,
        thread: ThreadPoolExecutor,
        on_delivered: OnDelivered,
        batch: int,
        poll_s: float,
        rules: GateRules,
        tags_of: TagsOf,
    ) -> None:
        self.name = sink.name
        self.counts = SinkCounts()
        self.sink = sink
        self._store = store
        self._clock = clock
        self._thread = thread
        self._on_delivered = on_delivered
        self._batch = self._limit = batch
        self._poll_s = poll_s
        self._rules = rules
        self._tags_of = tags_of
        self._gate = GateState()
        self._ending = False
        self._failed = 0
        self._gone = False
        self._logged_at_s = -REMIND_S
        self._publishing = asyncio.Lock()
        self._woken = asyncio.Event()
        self._hurried = asyncio.Event()
        self._empty = asyncio.Event()

    def wake(self, new_events: int) -> None:
        self.counts.pending += new_events
        self._woken.set()

    async def empty(self) -> None:
        """Return when nothing is left, or the sink is gone; until then a wait after a failure is cut short."""
        if self._gone:
            return
        self._failed = 0
        self._ending = True
        self._empty.clear()
        self._hurried.set()
        self._woken.set()
        await self._empty.wait()

    async def try_out(self, event: Event) -> None:
        failure = await self._publish([event], TRY_OUT_S)
        if isinstance(failure, ResadaptError):
            raise failure
        if failure is not None:
            raise SinkUnavailable(f"it cannot be tried: {type(failure).__name__}: {failure}") from failure

    async def close(self) -> None:
        await first(self._close_sink(), self._clock.sleep(CLOSE_S))

    def note_crash(self, error: Exception) -> None:
        self.counts.crashes += 1
        self.counts.last_error = f"{type(error).__name__}: {error}"

    async def run(self) -> None:
        self.counts.pending = await self._ask_store(self._store.pending, self.name)
        self._gate = _gate_state(self.name, await self._ask_store(self._store.sink_note, self.name))
        while not self._gone:
            self._woken.clear()
            limit = self._limit
            waiting = await self._ask_store(self._store.pending_events, self.name, limit)
            if (waiting or self._gate.held) and not await self._deliver(waiting):
                continue
            if len(waiting) < limit and not self._woken.is_set():
                self.counts.pending = 0
                self._ending = False
                self._empty.set()
                await first(self._woken.wait(), self._clock.sleep(self._poll_s))

    async def _deliver(self, waiting: Sequence[StoredEvent]) -> bool:
        """True if the sink took what of them is for it; if not, return when it is time for another try."""
        passage = self._let_through([item.event for item in waiting])
        events = passage.events
        began_s = self._clock.monotonic_s()
        if isinstance(failure := await self._publish(events) if events else None, SinkGone):
            self.counts.last_error = str(failure)
            self._gone = True
            self._empty.set()
            return False
        if failure is not None:
            self._limit = max(len(waiting) // 2, 1)
            await self._wait_after(failure)
            return False
        if events:
            self._recovered()
            self._limit = min(2 * self._limit, self._batch)
            self.counts.last_publish_s = self._clock.monotonic_s() - began_s
            self.counts.published += len(events)
            self._on_delivered(self.name, events, self._clock.now())
        await self._settle(passage, [item.seq for item in waiting])
        return True

    def _let_through(self, events: Sequence[Event]) -> Passage:
        now = self._clock.now()
        return let_through(self._rules, self._gate, events, now, self.name, self._tags_of, self._ending)

    async def _settle(self, passage: Passage, seqs: Sequence[int]) -> None:
        """Note that these are done with, and what the rate limit remembers, together."""
        changed = passage.state.held != self._gate.held or passage.state.passed_s != self._gate.passed_s
        note = [passage.state.to_json()] if changed else []
        if seqs or note:
            await self._ask_store(self._store.delivered, self.name, seqs, *note)
        self._gate = passage.state
        self.counts.filtered += passage.filtered
        self.counts.held_back += passage.held
        self.counts.pending = max(self.counts.pending - len(seqs), 0)

    async def _publish(self, events: Sequence[Event], within_s: float = PUBLISH_S) -> BaseException | None:
        """The error that the sink failed with, or None. It is a value, since whatever it is, the events wait and are
        tried again."""
        outcome: list[BaseException | None] = []

        async def attempt() -> None:
            async with self._publishing:
                outcome.extend(await asyncio.gather(self.sink.publish(events), return_exceptions=True))

        await first(attempt(), self._clock.sleep(within_s))
        return outcome[0] if outcome else SinkUnavailable(f"it did not take {len(events)} events in {within_s:g} s")

    async def _close_sink(self) -> None:
        (failure,) = await asyncio.gather(self.sink.close(), return_exceptions=True)
        if isinstance(failure, Exception):
            log.warning("sink_not_closed", sink=self.name, traceback=plain_traceback(failure))

    async def _wait_after(self, failure: BaseException) -> None:
        self._failed += 1
        self.counts.failures += 1
        reason = str(failure) if isinstance(failure, ResadaptError) else f"{type(failure).__name__}: {failure}"
        now_s = self._clock.monotonic_s()
        if reason != self.counts.last_error or now_s - self._logged_at_s >= REMIND_S:
            self._logged_at_s = now_s
            defect = None if isinstance(failure, SinkUnavailable | ConfigError) else failure
            more = {"traceback": plain_traceback(defect)} if defect else {}
            waiting = {"failures": self.counts.failures, "pending": self.counts.pending}
            log.warning("sink_unavailable", sink=self.name, reason=reason, **waiting, **more)
        self.counts.last_error = reason
        asked_s = failure.retry_after_s if isinstance(failure, SinkUnavailable) else None
        shortest_s, longest_s = RETRY_AFTER_S
        if asked_s is None or asked_s < shortest_s:
            delay_s = back_off_s(self._failed, *RETRY_S)
        else:
            delay_s = min(asked_s, longest_s)
        self._hurried.clear()
        await first(self._hurried.wait(), self._clock.sleep(delay_s))

    def _recovered(self) -> None:
        if self._failed:
            log.info("sink_recovered", sink=self.name, failures=self._failed)
        self._failed = 0
        self.counts.last_error = None

    async def _ask_store(self, call: Callable[..., _T], *arguments: object) -> _T:
        """`call(*arguments)` in the relay's thread, again and again until the store is there."""
        tries = 0
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)
            except StoreUnavailable as error:
                tries += 1
                if tries == 1:
                    log.warning("store_unavailable", sink=self.name, reason=str(error))
                await self._clock.sleep(back_off_s(tries, *RETRY_S))


def _gate_state(sink: str, text: str | None) -> GateState:
    """The stored state of a sink's rate limit; a fresh state where that cannot be read."""
    try:
        return GateState() if text is None else GateState.from_json(text)
    except ValueError as error:
        log.warning("rate_limit_begins_anew", sink=sink, reason=str(error))
        return GateState()
