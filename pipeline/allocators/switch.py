"""An allocator that is exchanged for another while streams run."""

import asyncio
from collections.abc import Sequence

from allocator_engine.fit import Allocation
from pipeline.allocators.base import Allocator
from pipeline.types import Hop, WatchQuery


class AllocatorSwitch:
    """Allocates by the allocator that it was last given. What has begun with the one before is finished by it."""

    def __init__(self, current: Allocator) -> None:
        self._current = current
        self._busy: dict[Allocator, int] = {}
        self._idle = asyncio.Condition()

    @property
    def name(self) -> str:
        return self._current.name

    async def allocate(self, hop: Hop, queries: Sequence[WatchQuery], grant: int) -> Allocation:
        current = self._current
        self._busy[current] = self._busy.get(current, 0) + 1
        try:
            return await current.allocate(hop, queries, grant)
        finally:
            self._busy[current] -= 1
            if not self._busy[current]:
                del self._busy[current]
                async with self._idle:
                    self._idle.notify_all()

    def forget(self, stream_id: str) -> None:
        self._current.forget(stream_id)

    async def switch(self, to: Allocator) -> None:
        """Allocate by another one from the next hop on, and close the one before once nobody waits for it."""
        before, self._current = self._current, to
        async with self._idle:
            await self._idle.wait_for(lambda: before not in self._busy)
        await before.close()

    async def close(self) -> None:
        await self._current.close()
