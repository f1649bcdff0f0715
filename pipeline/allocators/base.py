"""The contract of an allocator."""

from collections.abc import Sequence
from typing import Protocol

from allocator_engine.fit import Allocation
from pipeline.types import Hop, WatchQuery


class Allocator(Protocol):
    """Spends a hop's grant on its frames before any encoder sees them.

    Causal: it sees the newest hop and its own memory of earlier ones. Every implementation ends in
    `allocator_engine.fit`, so that `allocation.tokens <= grant` holds whatever it proposes.
    """

    @property
    def name(self) -> str: ...

    async def allocate(self, hop: Hop, queries: Sequence[WatchQuery], grant: int) -> Allocation:
        """Sizes for the frames of `hop`, costing at most `grant` vision tokens; frames may be dropped.

        Does not block the event loop for long. Raises AllocationFailed when it cannot propose.
        """
        ...

    def forget(self, stream_id: str) -> None:
        """Drop the memory of a stream. Unknown ids are fine."""
        ...

    async def close(self) -> None:
        """Wait for what is still being computed. Nobody allocates afterwards."""
        ...
