"""One scale for every frame: the line any other allocator has to beat."""

from collections.abc import Sequence

from allocator_engine.fit import Allocation, FitRules, fit
from pipeline.types import Hop, WatchQuery


class FixedAllocator:
    """The largest uniform scale that the grant pays for."""

    name = "fixed"

    def __init__(self, rules: FitRules) -> None:
        self._rules = rules

    async def allocate(self, hop: Hop, queries: Sequence[WatchQuery], grant: int) -> Allocation:
        return fixed_scale(hop, grant, self._rules)

    def forget(self, stream_id: str) -> None:
        return

    async def close(self) -> None:
        return


def fixed_scale(hop: Hop, grant: int, rules: FitRules) -> Allocation:
    """Every frame of `hop` at one scale, native if the grant allows."""
    return fit([frame.size for frame in hop.frames], [1.0] * len(hop.frames), grant, rules)
