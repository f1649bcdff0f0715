"""A real Kafka broker, for tests.

KAFKA_BOOTSTRAP_SERVERS   host:port of a plaintext listener
TEST_BROKER_CONTROL       a command that acts on that broker when followed by start, stop, kill, pause or resume
TEST_BROKER_SECURE        host:port of its SASL_SSL listener, PLAIN and SCRAM-SHA-512
TEST_BROKER_CA            the certificate authority of that listener, PEM
TEST_BROKER_USER, TEST_BROKER_PASSWORD   its user; events and events-secret where absent
TEST_BROKER_STRICT        host:port of a broker that creates no topics by itself
"""

import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic
from kafka.consumer.fetcher import ConsumerRecord

from pipeline.sinks.cloudevents import from_kafka
from pipeline.types import Event
from tests.services import require


def bootstrap_servers() -> str:
    """Address of the broker; skips the calling test where there is none, and fails it in CI."""
    return _variable("KAFKA_BOOTSTRAP_SERVERS", "names a Kafka broker")


def control(action: str) -> None:
    """Do `start`, `stop`, `kill`, `pause` or `resume` to the broker."""
    command = _variable("TEST_BROKER_CONTROL", "is a command that starts and stops the broker")
    subprocess.run([*shlex.split(command), action], check=True, timeout=90, stdout=subprocess.DEVNULL)


@contextmanager
def interrupted(stop: str, start: str) -> Iterator[None]:
    """The broker is stopped by one action and, whatever happens inside, brought back by the other."""
    control(stop)
    try:
        yield
    finally:
        control(start)


@dataclass(frozen=True)
class Secure:
    """The broker's SASL_SSL listener."""

    bootstrap: str
    ca_file: str
    username: str
    password: str


def secure() -> Secure:
    """The secure listener; skips or fails as `bootstrap_servers` does."""
    return Secure(
        _variable("TEST_BROKER_SECURE", "names a SASL_SSL listener"),
        _variable("TEST_BROKER_CA", "is the certificate authority of that listener"),
        os.environ.get("TEST_BROKER_USER", "events"),
        os.environ.get("TEST_BROKER_PASSWORD", "events-secret"),
    )


def strict_bootstrap_servers() -> str:
    """A broker that creates no topics by itself."""
    return _variable("TEST_BROKER_STRICT", "names a Kafka broker with auto.create.topics.enable=false")


def new_topic(partitions: int = 3, **config: str) -> str:
    """Create a topic of its own for a test."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers())
    admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
    admin.close()
    return name


def records(topic: str, count: int, seconds: float = 20.0, bootstrap: str | None = None) -> list[ConsumerRecord]:
    """Everything on `topic`, in the order of each partition: returns when `count` are there or the time is over, and
    half a second later, so that what should not come is seen too."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap or bootstrap_servers(), auto_offset_reset="earliest")
    try:
        deadline = time.monotonic() + seconds
        while not (partitions := consumer.partitions_for_topic(topic)) and time.monotonic() < deadline:
            time.sleep(0.1)
        consumer.assign([TopicPartition(topic, partition) for partition in partitions or ()])
        consumer.seek_to_beginning()
        found: list[ConsumerRecord] = []
        while time.monotonic() < deadline:
            for batch in consumer.poll(timeout_ms=200).values():
                found.extend(batch)
            if len(found) >= count:
                deadline = min(deadline, time.monotonic() + 0.5)
        return found
    finally:
        consumer.close()


def events(topic: str, count: int, seconds: float = 20.0, bootstrap: str | None = None) -> list[Event]:
    """The events on `topic`, as `records` finds them."""
    return [from_kafka(record.headers, record.value) for record in records(topic, count, seconds, bootstrap)]


def _variable(name: str, meaning: str) -> str:
    value = os.environ.get(name)
    require(bool(value), f"{name} {meaning}")
    assert value
    return value
