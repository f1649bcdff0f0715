"""Events to a Kafka topic: CloudEvents in binary mode, keyed by stream id, acknowledged by all in-sync replicas.

kafka-python blocks, so all of it happens in a thread of the sink's own. A batch is sent in waves, and every event of a
wave is settled before the next one leaves; after any failure the producer is thrown away. So no event of a failed batch
is sent after a newer one of its stream.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal, TypeVar
from uuid import UUID

import structlog
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)
from kafka.producer.future import FutureRecordMetadata, RecordMetadata

from pipeline.clock import Clock, SystemClock
from pipeline.config.sinks import KafkaSecurity
from pipeline.errors import SinkUnavailable
from pipeline.redact import scrub
from pipeline.sinks.base import TopicPlace
from pipeline.sinks.cloudevents import KafkaMessage, reduced, to_kafka
from pipeline.sinks.kafka_address import client_options
from pipeline.sinks.kafka_connect import Connected, connect
from pipeline.types import Event

log = structlog.get_logger()

CONNECT_S = 5.0
"""How long connecting may take before the batch counts as refused."""
DELIVER_S = 15.0
"""How long a wave may take to be acknowledged before it counts as refused."""
BATCH_S = 45.0
"""How long a batch may take in all, connecting included, before the rest of it counts as refused."""
ALONE_BYTES = 16_384
"""A larger event is sent alone, so that one that the broker refuses for its size takes no other with it."""
WAVE_BYTES = 262_144
"""Most that is sent at a time: less than a broker's default limit on a record batch, 1 MiB."""
EVENT_BYTES = 16_777_216
"""Largest event that is offered to a broker at all."""
METADATA_AGE_S = 60.0
"""How often the client asks again which brokers and topic there are, where nothing fails: within this time a topic that
was created anew is noticed."""
SETTLE_S = 2.0
"""How much longer than its own deadline the client may take to settle a wave, all its events together."""

Message = tuple[Event, KafkaMessage]
"""An event and its form on the wire."""

_T = TypeVar("_T")
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

# kafka-python logs every try of every connection. The relay reports an outage once, with the reason.
_chatter = logging.getLogger("kafka")
_chatter.propagate = False
_chatter.addHandler(logging.NullHandler())


class KafkaSink:
    """Publishes to `topic` at `bootstrap` (`host:port,...`). Nothing connects before it has to.

    An event that the broker refuses for its size goes out under its own id with its data cut down (see
    `cloudevents.reduced`), logged and counted in `reduced`: it must neither be lost nor hold up its stream for ever. A
    topic that was deleted and created anew is logged: what it held is gone. `places` says where those events of the
    newest batch lie that belong to a trace.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        security: KafkaSecurity = KafkaSecurity(),
        name: str | None = None,
        compression: Literal["gzip"] | None = None,
        connect_s: float = CONNECT_S,
        deliver_s: float = DELIVER_S,
        batch_s: float = BATCH_S,
        clock: Clock = SystemClock(),
    ) -> None:
        self.name = name or f"kafka:{topic}"
        self.reduced = 0
        self.places: dict[str, TopicPlace] = {}
        self._bootstrap = bootstrap
        self._topic = topic
        self._connect_s = connect_s
        self._deliver_s = deliver_s
        self._batch_s = batch_s
        self._clock = clock
        self._closing = False
        self._connected: Connected | None = None
        self._topic_id: UUID | None = None
        self._thread = ThreadPoolExecutor(1, "kafka")
        self._options = client_options(security) | {
            "bootstrap_servers": bootstrap.split(","),
            "client_id": "resadapt",
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": compression,
            "request_timeout_ms": round(deliver_s * 1000 / 3),
            "delivery_timeout_ms": round(deliver_s * 1000),
            "reconnect_backoff_max_ms": 1000,
            "metadata_max_age_ms": round(METADATA_AGE_S * 1000),
            "max_request_size": EVENT_BYTES,
            # A wave becomes one record batch per partition, which arrives whole or not at all; flush ends the linger.
            "batch_size": 2 * WAVE_BYTES,
            "linger_ms": 1000,
        }

    async def publish(self, events: Sequence[Event]) -> None:
        messages = [(event, to_kafka(event)) for event in events]
        self.places = {}
        await self._in_thread(self._send_all, messages)

    async def check(self) -> str:
        partitions = await self._in_thread(self._count_partitions)
        return f"events go to the topic {self._topic} ({partitions} partitions) of Kafka at {self._bootstrap}"

    async def close(self) -> None:
        """Close the connection. A wave under way fails; a connection under way takes up to `connect_s` seconds more."""
        self._closing = True
        await asyncio.to_thread(self._discard)
        await asyncio.to_thread(self._thread.shutdown)
        self._discard()

    async def _in_thread(self, call: Callable[..., _T], *arguments: object) -> _T:
        """`call(*arguments)` in the sink's thread. Whatever it fails with, the producer is not used again."""
        run = asyncio.get_running_loop().run_in_executor
        # As a value: the client raises much beside KafkaError, and a batch is refused all the same.
        (outcome,) = await asyncio.gather(run(self._thread, call, *arguments), return_exceptions=True)
        if not isinstance(outcome, BaseException):
            return outcome
        await run(self._thread, self._discard)
        if isinstance(outcome, SinkUnavailable):
            raise outcome
        raise SinkUnavailable(self._explain(outcome)) from outcome

    def _explain(self, error: BaseException) -> str:
        where = f"the topic {self._topic} of Kafka at {self._bootstrap}"
        if isinstance(error, UnknownTopicOrPartitionError):
            return f"{where} does not exist, and the broker does not create it; create it first"
        if isinstance(error, AuthorizationError):
            return f"this user may not write to {where}; its access rules (ACL) refuse it"
        if isinstance(error, KafkaTimeoutError):
            return f"{where} did not acknowledge in time: {scrub(str(error))}"
        return f"{where} did not take events: {scrub(str(error)) or type(error).__name__}"

    def _send_all(self, messages: Sequence[Message]) -> None:
        until_s = self._clock.monotonic_s() + self._batch_s
        for wave in waves(messages):
            try:
                self._send(wave, until_s)
            except _TOO_LARGE:
                self._discard()  # the client never recovers from this one
                for message in wave:
                    self._send_alone(message, until_s)
        self._note_topic()

    def _send_alone(self, message: Message, until_s: float) -> None:
        try:
            self._send([message], until_s)
        except _TOO_LARGE:
            self._discard()
            event = reduced(message[0], len(message[1].value))
            self._send([(event, to_kafka(event))], until_s)
            self.reduced += 1
            log.warning("event_reduced", sink=self.name, event_id=event.id, bytes=len(message[1].value))

    def _send(self, wave: Sequence[Message], until_s: float) -> None:
        """Send, and return when all is acknowledged. Raises when none of it is under way any more."""
        if self._clock.monotonic_s() >= until_s:
            raise KafkaTimeoutError(f"the batch took longer than {self._batch_s:g} s")
        producer = (self._connected or self._connect()).producer
        futures: list[FutureRecordMetadata] = []
        try:
            for _, message in wave:
                futures.append(
                    producer.send(self._topic, key=message.key, value=message.value, headers=list(message.headers))
                )
        finally:
            failure = self._settle(futures, until_s)
        if failure:
            raise failure
        for (event, _), future in zip(wave, futures, strict=True):
            if event.trace is not None:
                self.places[event.id] = _place(future.get(timeout=0))

    def _settle(self, futures: Sequence[FutureRecordMetadata], until_s: float) -> KafkaError | None:
        """Wait until every future has succeeded or failed, and give back the first failure. What is not settled in time
        is given up with its producer."""
        now_s = self._clock.monotonic_s()
        until_s = min(until_s, now_s + self._deliver_s + SETTLE_S)
        if self._connected:
            with suppress(KafkaError):  # a batch that the client had to split counts as unknown here
                self._connected.producer.flush(timeout=until_s - now_s)
        failure = None
        for future in futures:
            try:
                future.get(timeout=max(until_s - self._clock.monotonic_s(), 0))
            except KafkaError as error:
                failure = failure or error
        if not all(future.is_done for future in futures):
            self._discard()
        return failure

    def _connect(self) -> Connected:
        if self._closing:
            raise SinkUnavailable(f"sink {self.name} is closed")
        self._connected = connect(self._options, self._topic, self._connect_s, self._clock)
        self._note_topic()
        return self._connected

    def _note_topic(self) -> None:
        told = self._connected.topic_id(self._topic) if self._connected else None
        if told and self._topic_id and told != self._topic_id:
            log.warning("topic_created_anew", sink=self.name, topic=self._topic, before=str(self._topic_id))
        self._topic_id = told or self._topic_id

    def _count_partitions(self) -> int:
        return (self._connected or self._connect()).found.partitions

    def _discard(self) -> None:
        connected, self._connected = self._connected, None
        if connected:
            connected.end()


def _place(record: RecordMetadata) -> TopicPlace:
    # A broker that had the event already names no offset.
    return TopicPlace(record.topic, record.partition, record.offset if record.offset >= 0 else None)


def waves(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """Cut a batch into what is sent at a time, in order: one large event, or small ones of at most WAVE_BYTES."""
    wave: list[Message] = []
    size = 0
    for message in messages:
        more = message[1].size
        if wave and (more > ALONE_BYTES or size + more > WAVE_BYTES):
            yield wave
            wave, size = [], 0
        wave.append(message)
        size += more
        if more > ALONE_BYTES:
            yield wave
            wave, size = [], 0
    if wave:
        yield wave
