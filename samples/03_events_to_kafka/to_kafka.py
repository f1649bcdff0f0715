"""Watch a generated camera, send its events to Kafka, and read them back as any consumer would. See README.md."""

import asyncio
import os
import sys
import tempfile
import uuid
from pathlib import Path

from kafka import KafkaConsumer

from pipeline.clock import SystemClock
from pipeline.config.site import parse_site
from pipeline.service.service import Service


async def produce(bootstrap: str, topic: str, folder: str) -> None:
    site = parse_site(
        {
            "streams": {"yard": {"url": "synthetic:?seconds=10"}},
            "watches": {"car": {"question": "is there a car in view?"}},
            "mllm": "tiny",
            "sinks": {"plant": f"kafka://{bootstrap}/{topic}"},
            "store": f"sqlite:///{Path(folder) / 'to_kafka.db'}",
        }
    )
    async with Service(site, SystemClock(), insist=False) as service:
        await service.finished()
    if service.left:
        sys.exit(f"not delivered: {service.left}; is the broker at {bootstrap} up?")


def consume(bootstrap: str, topic: str) -> None:
    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False,
        consumer_timeout_ms=5000,
    )  # fmt: skip
    for record in consumer:
        headers = {name: value.decode() for name, value in record.headers}
        print(record.key.decode(), headers["ce_type"], headers["ce_id"], record.value.decode())
        if headers["ce_type"].endswith("stream.ended"):
            break
    consumer.close()


if __name__ == "__main__":
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
    name = sys.argv[1] if len(sys.argv) > 1 else f"resadapt-sample-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(produce(servers, name, scratch))
    consume(servers, name)
