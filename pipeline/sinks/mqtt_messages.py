"""Messages for an MQTT broker: events, states of watches, and the discovery messages for Home Assistant. Pure
functions.

Source: Home Assistant, MQTT discovery and binary sensor.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.config.messages import MqttConfig, topic_template
from pipeline.core.wording import values_of
from pipeline.sinks.base import AnnouncedWatch
from pipeline.sinks.cloudevents import dump_json, encode, reduced
from pipeline.types import Event, Json

ONLINE, OFFLINE = b"online", b"offline"
MAX_PAYLOAD = 128 * 1024
"""Bytes of an event; of a larger one only what is small goes out. Some brokers take no more."""
MAX_LEVEL = 200
"""Characters of a field's value in a topic."""
MAX_NAME = 120
"""Characters of a name in Home Assistant."""

STATES = {"watch.opened": b"ON", "watch.cleared": b"OFF"}
"""What an event makes of the state of its watch."""
_NOT_IN_A_LEVEL = str.maketrans(dict.fromkeys("+#/", "_"))


@dataclass(frozen=True, slots=True)
class MqttMessage:
    """A message to publish: a topic, a payload, and whether the broker retains it for later subscribers."""

    topic: str
    payload: bytes
    retain: bool = False


class MqttWording:
    """The messages of a sink's settings, all below the topic `base`."""

    def __init__(self, config: MqttConfig, base: str) -> None:
        self._base = base
        self._topic = topic_template(config.topic)
        self._states = config.states
        self._discovery = config.discovery if config.states else None

    def of_event(self, event: Event) -> Iterator[MqttMessage]:
        """An event, and the state of its watch if it changes that."""
        values = {name: _level(value) for name, value in values_of(event).items()}
        payload = encode(event)
        if len(payload) > MAX_PAYLOAD:
            payload = encode(reduced(event, len(dump_json(event.data))))
        yield MqttMessage(self._topic.fill({**values, "base": self._base}), payload)
        state = STATES.get(event.type)
        if self._states and state and event.watch_id is not None:
            yield MqttMessage(self._state_topic(event.stream_id, event.watch_id), state, retain=True)

    def status(self, payload: bytes) -> MqttMessage:
        """The message with the availability of this service."""
        return MqttMessage(f"{self._base}/status", payload, retain=True)

    def announcement(self, watch: AnnouncedWatch) -> Iterator[MqttMessage]:
        """A watch that stands: how Home Assistant finds it, and its state."""
        if not self._states:
            return
        if self._discovery is not None:
            yield MqttMessage(self._found_at(watch), dump_json(self._sensor(watch)).encode(), retain=True)
        state = STATES["watch.opened" if watch.is_open else "watch.cleared"]
        yield MqttMessage(self._state_topic(watch.stream, watch.watch), state, retain=True)

    def retraction(self, watch: AnnouncedWatch) -> Iterator[MqttMessage]:
        """A watch that stands no more: what the broker kept of it goes."""
        if not self._states:
            return
        if self._discovery is not None:
            yield MqttMessage(self._found_at(watch), b"", retain=True)
        yield MqttMessage(self._state_topic(watch.stream, watch.watch), b"", retain=True)

    def _sensor(self, watch: AnnouncedWatch) -> dict[str, Json]:
        return {
            "name": watch.watch_name[:MAX_NAME],
            "unique_id": f"resadapt_{self._digest(watch.stream, watch.watch)}",
            "state_topic": self._state_topic(watch.stream, watch.watch),
            "payload_on": "ON",
            "payload_off": "OFF",
            "availability_topic": self.status(ONLINE).topic,
            "payload_available": ONLINE.decode(),
            "payload_not_available": OFFLINE.decode(),
            "qos": 1,
            "device": {
                "identifiers": [f"resadapt_{self._digest(watch.stream)}"],
                "name": watch.stream_name[:MAX_NAME],
                "manufacturer": "resadapt-stream",
            },
        }

    def _found_at(self, watch: AnnouncedWatch) -> str:
        named = f"{_level(watch.stream)}-{_level(watch.watch)}-{self._digest(watch.stream, watch.watch)}"
        return f"{self._discovery}/binary_sensor/resadapt/{named}/config"

    def _state_topic(self, stream: str, watch: str) -> str:
        return f"{self._base}/state/{_level(stream)}/{_level(watch)}"

    def _digest(self, *parts: str) -> str:
        """Tells apart what reads the same when it is joined."""
        return hashlib.blake2b("\n".join((self._base, *parts)).encode(), digest_size=6).hexdigest()


def _level(value: str) -> str:
    """A value as one level of a topic."""
    plain = "".join(one for one in value[:MAX_LEVEL] if one.isprintable()).translate(_NOT_IN_A_LEVEL)
    return plain or "-"
