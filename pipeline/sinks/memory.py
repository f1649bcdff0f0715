"""A sink that keeps events in memory: for tests and samples."""

from collections.abc import Sequence

from pipeline.errors import SinkUnavailable
from pipeline.types import Event


class MemorySink:
    """Keeps what it is given in `events`, in the order of arrival and with repeats, for as long as it lives."""

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.events: list[Event] = []
        self._failures_left = 0
        self._retry_after_s: float | None = None

    def fail(self, times: int, retry_after_s: float | None = None) -> None:
        """Refuse the next `times` batches, asking for `retry_after_s` seconds of patience."""
        self._failures_left = times
        self._retry_after_s = retry_after_s

    async def publish(self, events: Sequence[Event]) -> None:
        if self._failures_left:
            self._failures_left -= 1
            raise SinkUnavailable(f"sink {self.name} was told to fail", self._retry_after_s)
        self.events.extend(events)

    async def check(self) -> str:
        return f"events are kept in memory; {len(self.events)} so far"

    async def close(self) -> None:
        return
