"""The contract of a sink."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from pipeline.types import Event

PictureOf = Callable[[Event], Path | None]
"""Where the picture of an event lies, if it has one."""


class Sink(Protocol):
    """A destination of events. The relay calls it with one batch at a time, in the order of decision.

    A sink may see an event again after a crash or an error: it is delivered at least once, always under the same id.
    """

    @property
    def name(self) -> str:
        """Stable name under which the store keeps what is still to be delivered here. Never holds a credential."""
        ...

    async def publish(self, events: Sequence[Event]) -> None:
        """Hand over `events` in order and return when every one is safe there. Does not block the event loop.

        Raises SinkUnavailable when it cannot; then any leading part of the batch may have arrived, and the whole
        batch comes again.
        """
        ...

    async def check(self) -> str:
        """Say in one line where events would go, having tried it. Raises SinkUnavailable or ConfigError."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TopicPlace:
    """The place of a delivered event in Kafka; None for an offset that the broker did not give."""

    topic: str
    partition: int
    offset: int | None


@runtime_checkable
class Placing(Protocol):
    """A sink that knows where events lie that it has delivered."""

    @property
    def places(self) -> Mapping[str, TopicPlace]:
        """The places of those events of the newest batch that belong to a trace, by event id."""
        ...


@dataclass(frozen=True, slots=True)
class AnnouncedWatch:
    """A watch on one stream, with what people call both, and whether it is open."""

    stream: str
    watch: str
    stream_name: str
    watch_name: str
    is_open: bool = False


@runtime_checkable
class Announcing(Protocol):
    """A sink that keeps a connection, and at its other end a state for each watch. Both methods return at once."""

    def connect(self) -> None:
        """Begin to connect, and stay connected until `close`."""
        ...

    def announce(self, watches: Sequence[AnnouncedWatch]) -> None:
        """These watches stand from now on; one that was announced before and is not among them stands no more."""
        ...
