"""Time, injected. The only caller of `time` and of `datetime.now`."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The time of deadlines and labels; stream time comes from PTS instead."""

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


def as_utc(time: datetime) -> datetime:
    """A time in UTC, which it is if it names no zone."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
