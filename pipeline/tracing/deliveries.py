"""Traces of deliveries: a span for each traced event that a sink has taken, in the trace of its hop."""

from collections.abc import Mapping, Sequence

from pipeline.clock import Clock
from pipeline.sinks.base import AnnouncedWatch, Announcing, Placing, Sink, TopicPlace
from pipeline.sinks.cloudevents import TYPE_PREFIX
from pipeline.tracing.base import Spans
from pipeline.tracing.hops import StageClock
from pipeline.types import Event


class TracedSink:
    """A sink whose deliveries of traced events are spans; the trace is the one kept with each event, so that it goes on
    after a restart and on another machine."""

    def __init__(self, sink: Sink, spans: Spans, clock: Clock) -> None:
        self.name = sink.name
        self._sink = sink
        self._spans = spans
        self._clock = clock
        self._tries = 0

    async def publish(self, events: Sequence[Event]) -> None:
        clock = StageClock(self._clock)
        began_ns = clock.now_ns()
        self._tries += 1
        await self._sink.publish(events)
        tries, self._tries = self._tries, 0
        ended_ns, places = clock.now_ns(), self.places
        for event in events:
            if event.trace is not None:
                place = places.get(event.id)
                span = self._spans.begin("deliver", began_ns, event.trace, "producer" if place else "client")
                span.end(ended_ns, {**_event(event), "resadapt.sink": self.name, "resadapt.tries": tries, **_at(place)})

    @property
    def places(self) -> Mapping[str, TopicPlace]:
        """The places of the traced events of the newest batch, as far as the sink knows them."""
        return self._sink.places if isinstance(self._sink, Placing) else {}

    async def check(self) -> str:
        return await self._sink.check()

    def connect(self) -> None:
        if isinstance(self._sink, Announcing):
            self._sink.connect()

    def announce(self, watches: Sequence[AnnouncedWatch]) -> None:
        if isinstance(self._sink, Announcing):
            self._sink.announce(watches)

    async def close(self) -> None:
        await self._sink.close()


def _event(event: Event) -> dict[str, str | int]:
    noted: dict[str, str | int] = {
        "cloudevents.event_id": event.id,
        "cloudevents.event_type": TYPE_PREFIX + event.type,
        "resadapt.stream": event.stream_id,
    }
    return noted | ({"resadapt.watch": event.watch_id} if event.watch_id else {})


def _at(place: TopicPlace | None) -> dict[str, str | int]:
    if place is None:
        return {}
    noted: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": place.topic,
        "messaging.destination.partition.id": str(place.partition),
    }
    return noted | ({"messaging.kafka.offset": place.offset} if place.offset is not None else {})
