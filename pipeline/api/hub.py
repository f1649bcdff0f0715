"""Events and answers as they come, for many listeners: read from the store once, and never waited for."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from pipeline.errors import StoreUnavailable
from pipeline.waiting import first

log = structlog.get_logger()

QUEUE = 1024
"""Most items that wait for one listener; one that lags further is sent away, and comes back with Last-Event-ID."""
PAGE = 256
POLL_S = 2.0
"""How long it is trusted that commits wake the hub."""


class Numbered(Protocol):
    """An item with a place in the order of commits."""

    @property
    def seq(self) -> int: ...


N = TypeVar("N", bound=Numbered)


class Lagging(Exception):
    """A listener did not take what came fast enough."""


class Hub(Generic[N]):
    """Items in the order of commits. `after(seq, limit)` blocks and gives those behind a place, `last()` the newest."""

    def __init__(self, after: Callable[[int, int], Sequence[N]], last: Callable[[], int]) -> None:
        self._after = after
        self._last = last
        self._woken = asyncio.Event()
        self._queues: set[asyncio.Queue[N | None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._at = 0
        self.closed = False

    @property
    def listeners(self) -> int:
        """Number of listeners."""
        return len(self._queues)

    def wake(self) -> None:
        """Something was committed."""
        self._woken.set()

    def close(self) -> None:
        """Send every listener away."""
        self.closed = True
        for queue in self._queues:
            _end(queue)
        if self._reader:
            self._reader.cancel()

    async def listen(self, after_seq: int | None) -> AsyncGenerator[N, None]:
        """Items as they come, without end: first those behind `after_seq`, if it is given. Raises Lagging."""
        queue: asyncio.Queue[N | None] = asyncio.Queue(QUEUE)
        if not self._queues:
            self._at = await asyncio.to_thread(self._last)
        self._queues.add(queue)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read(), name="hub")
        try:
            at = self._at if after_seq is None else after_seq
            while after_seq is not None and (missed := await asyncio.to_thread(self._after, at, PAGE)):
                for item in missed:
                    at = item.seq
                    yield item
            while True:
                newest = await queue.get()
                if newest is None:
                    if self.closed:
                        return
                    raise Lagging
                if newest.seq > at:
                    at = newest.seq
                    yield newest
        finally:
            self._queues.discard(queue)

    async def _read(self) -> None:
        """One reader for all, while there are any."""
        while self._queues:
            self._woken.clear()
            try:
                items = await asyncio.to_thread(self._after, self._at, PAGE)
            except StoreUnavailable as error:
                log.warning("listeners_wait_for_store", reason=str(error))
                items = []
            for item in items:
                self._at = item.seq
                for queue in self._queues:
                    _give(queue, item)
            if len(items) < PAGE:
                await first(self._woken.wait(), asyncio.sleep(POLL_S))


def _give(queue: "asyncio.Queue[N | None]", item: N) -> None:
    if queue.full():
        _end(queue)
    else:
        queue.put_nowait(item)


def _end(queue: "asyncio.Queue[N | None]") -> None:
    """Let the listener read no further than to its end."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)
