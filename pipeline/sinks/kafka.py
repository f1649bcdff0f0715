"""Events to a Kafka topic: CloudEvents in binary mode, keyed by stream id, acknowledged by all in-sync replicas.

kafka-python blocks, so all of it happens in a thread of the sink's own. A batch is sent in waves, and every event of a
wave is settled before the next one leaves; after any failure the producer is thrown away. So no event of a failed batch
is sent after a newer one of its stream.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Literal, TypeVar

import structlog
from kafka import KafkaProducer
from kafka.errors import (
    AuthorizationError,
    InvalidReceiveError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RequestTimedOutError,
    SaslAuthenticationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)
from kafka.producer.future import FutureRecordMetadata

from pipeline.config.sinks import KafkaSecurity
from pipeline.errors import SinkUnavailable
from pipeline.redact import scrub
from pipeline.sinks.cloudevents import KafkaMessage, reduced, to_kafka
from pipeline.sinks.kafka_address import client_options
from pipeline.types import Event

log = structlog.get_logger()

CONNECT_S = 5.0
"""How long connecting may take before the batch counts as refused."""
DELIVER_S = 15.0
"""How long a wave may take to be acknowledged before it counts as refused."""
ALONE_BYTES = 16_384
"""A larger event is sent alone, so that one that the broker refuses for its size takes no other with it."""
WAVE_BYTES = 262_144
"""Most that is sent at a time: less than a broker's default limit on a record batch, 1 MiB."""
EVENT_BYTES = 16_777_216
"""Largest event that is offered to a broker at all."""
SETTLE_S = 2.0
"""How much longer than its own deadline the client may take to say what became of a wave, or to close."""

Message = tuple[Event, KafkaMessage]
"""An event and its form on the wire."""

_T = TypeVar("_T")
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

# kafka-python logs every try of every connection. The relay reports an outage once, with the reason collected below.
_chatter = logging.getLogger("kafka")
_chatter.setLevel(logging.WARNING)
_chatter.propagate = False
_chatter.addHandler(logging.NullHandler())


class KafkaSink:
    """Publishes to `topic` at `bootstrap` (`host:port,...`). Nothing connects before it has to.

    An event that the broker refuses for its size goes out under its own id with its data cut down (see
    `cloudevents.reduced`), logged and counted in `reduced`: it must neither be lost nor hold up its stream for ever.
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
    ) -> None:
        self.name = name or f"kafka:{topic}"
        self.reduced = 0
        self._bootstrap = bootstrap
        self._topic = topic
        self._deliver_s = deliver_s
        self._closing = False
        self._producer: KafkaProducer | None = None
        self._thread = ThreadPoolExecutor(1, "kafka")
        self._options = client_options(security) | {
            "bootstrap_servers": bootstrap.split(","),
            "client_id": "resadapt",
            "acks": "all",
            "enable_idempotence": True,
            "compression_type": compression,
            "bootstrap_timeout_ms": round(connect_s * 1000),
            "max_block_ms": round(connect_s * 1000),
            "request_timeout_ms": round(deliver_s * 1000 / 3),
            "delivery_timeout_ms": round(deliver_s * 1000),
            "reconnect_backoff_max_ms": 1000,
            "max_request_size": EVENT_BYTES,
            # A wave becomes one record batch per partition, which arrives whole or not at all; flush ends the linger.
            "batch_size": 2 * WAVE_BYTES,
            "linger_ms": 1000,
        }

    async def publish(self, events: Sequence[Event]) -> None:
        messages = [(event, to_kafka(event)) for event in events]
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
        for wave in waves(messages):
            try:
                self._send(wave)
            except _TOO_LARGE:
                self._discard()  # the client never recovers from this one
                for message in wave:
                    self._send_alone(message)

    def _send_alone(self, message: Message) -> None:
        try:
            self._send([message])
        except _TOO_LARGE:
            self._discard()
            event = reduced(message[0], len(message[1].value))
            self._send([(event, to_kafka(event))])
            self.reduced += 1
            log.warning("event_reduced", sink=self.name, event_id=event.id, bytes=len(message[1].value))

    def _send(self, wave: Sequence[Message]) -> None:
        """Send, and return when all is acknowledged. Raises when none of it is under way any more."""
        producer = self._producer or self._connect()
        futures = []
        try:
            for _, message in wave:
                futures.append(
                    producer.send(self._topic, key=message.key, value=message.value, headers=list(message.headers))
                )
        finally:
            failure = self._settle(producer, futures)
        if failure:
            raise failure

    def _settle(self, producer: KafkaProducer, futures: Sequence[FutureRecordMetadata]) -> KafkaError | None:
        """Wait until every future has succeeded or failed, and give back the first failure."""
        failures = []
        with suppress(KafkaError):  # a batch that the client had to split counts as unknown here
            producer.flush(timeout=self._deliver_s + SETTLE_S)
        for future in futures:
            try:
                future.get(timeout=SETTLE_S)
            except KafkaError as error:
                failures.append(error)
        return failures[0] if failures else None

    def _connect(self) -> KafkaProducer:
        if self._closing:
            raise SinkUnavailable(f"sink {self.name} is closed")
        with _overheard() as heard:
            try:
                producer = KafkaProducer(**self._options)
            except KafkaError as error:
                raise SinkUnavailable(f"Kafka at {self._bootstrap} cannot be reached: {self._reason(heard)}") from error
            try:
                producer.partitions_for(self._topic)
            except KafkaTimeoutError as error:
                _abandon(producer)
                # The client waits for a missing topic to appear and never says that it is missing, but in its log.
                raise UnknownTopicOrPartitionError() if self._topic in heard.missing else error from error
            except KafkaError:
                _abandon(producer)
                raise
        self._producer = producer
        return producer

    def _reason(self, heard: "_Heard") -> str:
        """The most telling of what was heard."""
        for error in heard.errors:
            text = scrub(str(error))
            if isinstance(error, SaslAuthenticationFailedError):
                return f"it refuses the user name or password: {text.rpartition('Error: ')[2]}"
            if isinstance(error, UnsupportedSaslMechanismError):
                return f"it does not offer this SASL mechanism: {text}"
            if "Handshake failed" in text:
                return (
                    f"TLS failed, check security.protocol, ca_file and check_hostname: {text.partition('failed: ')[2]}"
                )
            if isinstance(error, InvalidReceiveError):
                return "it does not speak plain Kafka, check security.protocol: it may want TLS"
        # The last attempt is cut off when time is up, which says nothing of the broker.
        late = (KafkaTimeoutError, RequestTimedOutError)
        others = [scrub(str(error)) for error in heard.errors if not isinstance(error, late)]
        if others and all(text.endswith("socket disconnected") for text in others):
            if self._options["sasl_mechanism"]:
                return "it hangs up during the login, as brokers do on a wrong user name or password"
            return "it hangs up at once, check security.protocol: it may want TLS or a login"
        return others[-1].removeprefix("KafkaConnectionError: ") if others else "no answer in time"

    def _count_partitions(self) -> int:
        return len((self._producer or self._connect()).partitions_for(self._topic))

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer:
            _abandon(producer)


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


class _Heard(logging.Handler):
    """What the client says in its log while it connects, for it raises the same timeout whatever went wrong."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[BaseException] = []
        self.missing: set[object] = set()
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        said = record.args if isinstance(record.args, tuple) else ()
        if str(record.msg).startswith("Topic %s not found"):
            self.missing.update(said)
        elif record.thread == self._thread:
            self.errors.extend(item for item in said if isinstance(item, BaseException))


@contextmanager
def _overheard() -> Iterator[_Heard]:
    heard = _Heard()
    _chatter.addHandler(heard)
    try:
        yield heard
    finally:
        _chatter.removeHandler(heard)


def _abandon(producer: KafkaProducer) -> None:
    """Close a producer, with nothing of what it holds sent any more.

    Its own `close` (kafka-python 3.0) gives up before it stops the sender while a batch is not settled, and the sender
    would go on to send that batch.
    """
    producer._sender.force_close()
    producer._sender.join(SETTLE_S)
    with suppress(KafkaError):
        producer.close(timeout=0)
