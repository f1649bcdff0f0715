"""Time, injected. The only caller of `time` and of `datetime.now`."""

import asyncio
import heapq
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where deadlines and labels come from; stream time comes from PTS instead."""

    def monotonic_s(self) -> float:
        """Seconds that never run backwards, from an arbitrary start. For deadlines and durations."""
        ...

    def now(self) -> datetime:
        """The UTC wall clock. For labels only."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait on the monotonic clock."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait on the monotonic clock in a thread that is not an event loop's."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def cpu_s(self) -> float:
        """CPU seconds that this process has used: for measurements that other processes should not lengthen."""
        return time.process_time()


class ManualClock:
    """A clock that tests turn by hand; `sleep` returns when `advance` has passed its deadline."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def monotonic_s(self) -> float:
        return self._elapsed_s

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed_s)

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, self._count, future))
        await future

    def wait(self, seconds: float) -> None:
        self._elapsed_s += seconds

    def advance(self, seconds: float) -> None:
        """Move time forward and wake every sleeper whose deadline has come."""
        self._elapsed_s += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed_s:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
