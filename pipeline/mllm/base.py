"""The contract of a multimodal LLM backend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from allocator_engine.grid import Grid
from pipeline.context import Context
from pipeline.types import Answers, WatchQuery


@dataclass(frozen=True, slots=True)
class MLLMInfo:
    """Who answers: `name` as configured, the `family` (`model_type`), the token grid, and whether its answers mean
    anything at all (the tiny random checkpoint's do not, and says so)."""

    name: str
    family: str
    grid: Grid
    meaningful: bool = True


class MLLM(Protocol):
    """A frozen multimodal LLM that answers standing questions about a stream's context.

    `ask` may be called for many streams at once, for one stream never twice at a time. It does not block the event
    loop. Given the same context and questions it gives the same answers, whatever it has cached.
    """

    @property
    def info(self) -> MLLMInfo: ...

    async def start(self) -> None:
        """Load and warm up. Raises ConfigError for a model that is missing or of an unsupported family."""
        ...

    def pending(self, context: Context) -> int:
        """Vision tokens of `context` that the next `ask` has to encode or prefill: those of new segments, and all
        of them when what was kept for this stream is gone or of another epoch."""
        ...

    async def ask(self, context: Context, queries: Sequence[WatchQuery]) -> Answers:
        """Answer every query on one shared visual prefix; one Answer each, in order.

        Raises MLLMOverloaded or MLLMTimeout when it cannot answer now; what it has kept stays consistent.
        """
        ...

    def forget(self, stream_id: str) -> None:
        """Drop whatever is kept for a stream. Unknown ids are fine."""
        ...

    async def close(self) -> None: ...
