"""The contract of what takes the spans of traces. Times are nanoseconds since 1970, UTC."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from pipeline.types import TraceContext

Attributes: TypeAlias = Mapping[str, "str | bool | int | float | Sequence[str]"]
"""What is noted of a span, by its name. Never a credential, a question or a picture."""

SpanKind = Literal["internal", "client", "producer"]
"""Work in this process, a request to another one, or a message handed to a broker."""


class TraceSpan(Protocol):
    """A span under way."""

    @property
    def context(self) -> TraceContext:
        """Its name, for spans that belong below it."""
        ...

    def end(self, at_ns: int, attributes: Attributes, error: str | None = None) -> None:
        """It is over, with the kind of error where it failed. One that never ends goes nowhere."""
        ...


class Spans(Protocol):
    """A receiver of spans. No method blocks or raises: what cannot be taken is dropped and counted."""

    def begin(
        self, name: str, at_ns: int, within: TraceContext | None = None, kind: SpanKind = "internal"
    ) -> TraceSpan:
        """Begin a span below another one, or a trace of its own."""
        ...

    async def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        ...
