"""A sink whose secrets may change while it runs: files that hold passwords are read again after each failure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import structlog

from pipeline.errors import ConfigError, SinkUnavailable
from pipeline.sinks.base import AnnouncedWatch, Announcing, Placing, Sink, TopicPlace
from pipeline.types import Event

log = structlog.get_logger()

Settings = TypeVar("Settings")


class RenewedSink(Generic[Settings]):
    """A sink made by `make` from `resolve()`, its settings with the secrets in them, and made anew once these differ.

    Building it raises what the two raise. Later, secrets that cannot be read leave the sink as it is.
    """

    def __init__(self, resolve: Callable[[], Settings], make: Callable[[Settings], Sink]) -> None:
        self._resolve = resolve
        self._make = make
        self._settings = resolve()
        self._sink = make(self._settings)
        self.name = self._sink.name
        self._connects = False
        self._announced: Sequence[AnnouncedWatch] = ()

    def connect(self) -> None:
        self._connects = True
        if isinstance(self._sink, Announcing):
            self._sink.connect()

    def announce(self, watches: Sequence[AnnouncedWatch]) -> None:
        self._announced = watches
        if isinstance(self._sink, Announcing):
            self._sink.announce(watches)

    @property
    def places(self) -> Mapping[str, TopicPlace]:
        return self._sink.places if isinstance(self._sink, Placing) else {}

    async def publish(self, events: Sequence[Event]) -> None:
        try:
            await self._sink.publish(events)
        except SinkUnavailable:
            await self._renew()
            raise

    async def check(self) -> str:
        return await self._sink.check()

    async def close(self) -> None:
        await self._sink.close()

    async def _renew(self) -> None:
        try:
            settings = self._resolve()
            if settings == self._settings:
                return
            sink = self._make(settings)
        except ConfigError as error:
            log.warning("secrets_not_renewed", sink=self.name, reason=str(error))
            return
        before, self._sink, self._settings = self._sink, sink, settings
        log.info("secrets_renewed", sink=self.name)
        await before.close()
        self.announce(self._announced)
        if self._connects:
            self.connect()
