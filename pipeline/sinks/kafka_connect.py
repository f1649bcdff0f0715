"""Connects a producer of kafka-python 3, and makes sure that it ends.

The client waits for whatever is wrong and then raises one and the same timeout; why, it tells its log alone. So a
cluster is reached step by step first, with an error of its own for each: name, port, TLS, login, topic, and the brokers
to which the cluster sends its clients on. This is the only module that uses `kafka.net`, whose names are public but not
documented; `tests/live/test_kafka_connect.py` pins what is relied on.
"""

import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from kafka import KafkaProducer
from kafka.errors import (
    Cancelled,
    InvalidReceiveError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    RequestTimedOutError,
    RetriableError,
    SaslAuthenticationFailedError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.producer.sender import Sender
from kafka.structs import TopicPartition

from pipeline.clock import Clock
from pipeline.errors import SinkUnavailable
from pipeline.redact import scrub

STOP_S = 2.0
"""How long the producer's thread may take to end."""

_ASK_AGAIN_S = 0.2
"""Pause between two looks for a topic that is being created."""
_LATE = (KafkaTimeoutError, RequestTimedOutError)


@dataclass(frozen=True, slots=True)
class Found:
    """A topic that can be written to: its partitions, and the id that changes when it is created anew, where told."""

    partitions: int
    id: UUID | None


class StoppableClient(KafkaNetClient):  # type: ignore[misc]
    """The network client of a producer, which can end the producer's thread whatever that waits for.

    The producer's own `close` gives up before it stops the thread while a batch is not settled, and the thread would
    go on to send that batch.
    """

    def __init__(self, **configs: object) -> None:
        super().__init__(**configs)
        self._sender: Sender | None = None
        self._stopped = False

    def poll(self, timeout_ms: float | None = None, future: Future | None = None) -> object:
        thread = threading.current_thread()
        if isinstance(thread, Sender):
            self._sender = thread
        return super().poll(timeout_ms=timeout_ms, future=future)

    def send(self, node_id: int, request: object, **more: object) -> Future:
        if self._stopped:
            return Future().failure(Cancelled())
        return super().send(node_id, request, **more)

    def stop(self) -> None:
        """Nothing is sent any more from here on. The thread ends and fails what was not settled."""
        self._stopped = True
        if self._sender is None:
            self.close()
            return
        self._sender.force_close()
        self._sender.join(STOP_S)


@dataclass(frozen=True, slots=True)
class Connected:
    """A producer that has reached its topic, and the client by which it is ended."""

    producer: KafkaProducer
    client: StoppableClient
    found: Found

    def topic_id(self, topic: str) -> UUID | None:
        """The id of the topic as the cluster told it last."""
        told: UUID | None = self.client.cluster.topic_id(topic)
        return told

    def end(self) -> None:
        """Close, with nothing of what the producer holds sent any more."""
        self.client.stop()
        try:
            self.producer.close(timeout=0)
        except KafkaError:
            return  # its thread has not ended yet; it sends nothing


def connect(options: Mapping[str, object], topic: str, seconds: float, clock: Clock) -> Connected:
    """A producer of a topic. Raises SinkUnavailable saying what is wrong with the way there,
    UnknownTopicOrPartitionError for a topic that is missing, and AuthorizationError where this user may not write."""
    until_s = clock.monotonic_s() + seconds
    found = reach(options, topic, seconds, clock)
    clients: list[StoppableClient] = []

    def make_client(**configs: object) -> StoppableClient:
        clients.append(StoppableClient(**configs))
        return clients[0]

    left_ms = max(round(1000 * (until_s - clock.monotonic_s())), 1000)
    try:
        producer = KafkaProducer(
            **options, kafka_client=make_client, bootstrap_timeout_ms=left_ms, max_block_ms=left_ms
        )
    except KafkaError:
        for client in clients:
            client.close()
        raise
    connected = Connected(producer, clients[0], found)
    try:
        producer.partitions_for(topic)
    except KafkaError:
        connected.end()
        raise
    return connected


def reach(options: Mapping[str, object], topic: str, seconds: float, clock: Clock) -> Found:
    """Go the whole way to a topic on connections of its own. Raises what `connect` raises."""
    net = NetworkSelector(**options)
    manager = KafkaConnectionManager(net, **options)
    try:
        found: Found = manager.run(_Way(manager, net, options, clock, seconds).go, topic)
        return found
    finally:
        manager.close()
        net.close()


class _Way:
    """The steps to a topic, within one deadline."""

    def __init__(
        self,
        manager: KafkaConnectionManager,
        net: NetworkSelector,
        options: Mapping[str, object],
        clock: Clock,
        seconds: float,
    ) -> None:
        self._manager = manager
        self._net = net
        self._where = ",".join(str(server) for server in _servers(options))
        self._sasl = options.get("sasl_mechanism") is not None
        self._clock = clock
        self._until_s = clock.monotonic_s() + seconds

    async def go(self, topic: str) -> Found:
        await self._bootstrap()
        await self._brokers({broker.node_id for broker in self._manager.cluster.brokers()}, enough=1)
        await self._topic(topic)
        cluster = self._manager.cluster
        partitions = cluster.partitions_for_topic(topic) or set()
        leaders = {cluster.leader_for_partition(TopicPartition(topic, partition)) for partition in partitions}
        await self._brokers(leaders - {-1, None})
        return Found(len(partitions), cluster.topic_id(topic))

    async def _bootstrap(self) -> None:
        """Connect to one of the servers that were named, then ask it for the brokers."""
        failures: list[KafkaError] = []
        servers = self._manager.cluster.bootstrap_brokers()
        for left, server in zip(range(len(servers), 0, -1), servers, strict=True):
            failure = await self._try(server.node_id, self._left_s() / left)
            if failure is None:
                break
            failures.append(failure)
        else:
            raise SinkUnavailable(f"Kafka at {self._where} cannot be reached: {self._telling(failures)}")
        try:
            await self._manager.bootstrap_async(round(1000 * self._left_s()))
        except KafkaError as error:
            raise SinkUnavailable(f"Kafka at {self._where} tells nothing of its brokers: {_text(error)}") from error

    async def _brokers(self, nodes: set[int], enough: int | None = None) -> None:
        """Connect to `enough` of these brokers, or to all."""
        failures: list[tuple[int, KafkaError]] = []
        for node in sorted(nodes):
            failure = await self._try(node, self._left_s())
            if failure is not None:
                failures.append((node, failure))
            elif enough:
                return
        if failures:
            node, failure = failures[0]
            broker = self._manager.cluster.broker_metadata(node)
            raise SinkUnavailable(
                f"Kafka at {self._where} answers and sends its clients on to {broker.host}:{broker.port}, which cannot"
                f" be reached from here: {self._telling([failure])}; are its advertised.listeners right?"
            ) from failure

    async def _topic(self, topic: str) -> None:
        """Wait until the cluster knows the topic: the broker may be creating it."""
        cluster = self._manager.cluster
        cluster.add_topic(topic)
        while True:
            try:
                await self._manager.wait_for(cluster.request_update(), round(1000 * self._left_s()))
            except _LATE as error:
                if not self._is_late():
                    raise SinkUnavailable(
                        f"Kafka at {self._where} tells nothing of its topics: {_text(error)}"
                    ) from error
            except KafkaError as error:
                if not isinstance(error, RetriableError):
                    raise
            if topic in cluster.topics(exclude_internal_topics=False):
                return
            if topic in cluster.unauthorized_topics:
                raise TopicAuthorizationFailedError(topic)
            if self._is_late():
                raise UnknownTopicOrPartitionError(topic)
            await self._net.sleep(_ASK_AGAIN_S)

    async def _try(self, node: int | str, seconds: float) -> KafkaError | None:
        """Connect to a broker, TLS and login included; give back what was wrong."""
        broker = self._manager.cluster.broker_metadata(node)
        try:
            socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM)
        except OSError as error:
            return KafkaConnectionError(f"the name {broker.host} does not resolve here ({error.strerror or error})")
        milliseconds = max(round(1000 * seconds), 1)
        try:
            connection = self._manager.get_connection(
                node, timeout_ms=milliseconds, pop_on_close=False, refresh_metadata_on_err=False
            )
            await self._manager.wait_for(connection.init_future, milliseconds)
        except KafkaError as error:
            return error
        return None

    def _left_s(self) -> float:
        return max(self._until_s - self._clock.monotonic_s(), 0.001)

    def _is_late(self) -> bool:
        return self._clock.monotonic_s() >= self._until_s - _ASK_AGAIN_S

    def _telling(self, failures: list[KafkaError]) -> str:
        """The most telling of failures."""
        for error in failures:
            if isinstance(error, SaslAuthenticationFailedError):
                return f"it refuses the user name or password: {_text(error).rpartition('Error: ')[2]}"
            if isinstance(error, UnsupportedSaslMechanismError):
                return f"it does not offer this SASL mechanism: {_text(error)}"
            if isinstance(error.__context__, ssl.SSLError):
                return (
                    f"TLS failed, check security.protocol, ca_file and check_hostname: {scrub(str(error.__context__))}"
                )
            if isinstance(error, InvalidReceiveError):
                return "it does not speak plain Kafka, check security.protocol: it may want TLS"
        error = next((error for error in failures if not isinstance(error, _LATE)), failures[-1])
        if isinstance(error, _LATE):
            return "no answer in time"
        if _text(error).endswith("socket disconnected"):
            if self._sasl:
                return "it hangs up during the login, as brokers do on a wrong user name or password"
            return "it hangs up at once, check security.protocol: it may want TLS or a login"
        return _text(error)


def _text(error: KafkaError) -> str:
    return scrub(str(error)).removeprefix("KafkaConnectionError: ") or type(error).__name__


def _servers(options: Mapping[str, object]) -> list[object]:
    servers = options["bootstrap_servers"]
    return list(servers) if isinstance(servers, list | tuple) else [servers]
