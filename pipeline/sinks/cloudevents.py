"""Events on the wire: CloudEvents 1.0 in structured JSON, in JSON batches and in Kafka's binary mode. Pure functions.

Sources: CloudEvents specification 1.0.2, its JSON event format, Kafka protocol binding, and its extensions for
partitioning and for distributed tracing.
The structured form is described by `event.schema.json` beside this file.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NoReturn
from urllib.parse import quote, unquote

from pipeline.types import Event, Json, TraceContext

SPEC_VERSION = "1.0"
TYPE_PREFIX = "io.github.resadapt_stream."
SOURCE_PREFIX = "/streams/"
DATA_SCHEMA = "https://github.com/resadapt/resadapt-stream/schemas/event-1.json#/$defs/data"
JSON_TYPE = "application/json"
BATCH_TYPE = "application/cloudevents-batch+json; charset=utf-8"

_HEADER_PREFIX = "ce_"
_TEXT_KEPT = 256


@dataclass(frozen=True, slots=True)
class KafkaMessage:
    """An event in Kafka's binary mode: the stream id in UTF-8, the data as JSON, the attributes as headers. Of one that
    was traced the trace has headers of its own too, where clients of Kafka look for it."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]

    @property
    def size(self) -> int:
        """Bytes of key, value and headers, before the record's own overhead."""
        return len(self.key) + len(self.value) + sum(len(name) + len(value) for name, value in self.headers)


def dump_json(value: Json) -> str:
    """Compact JSON with non-Latin text as it is. Raises ValueError for NaN, infinity and lone surrogates."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_as_plain)
    text.encode()  # a lone surrogate is text that no wire can carry
    return text


def load_json(text: str | bytes) -> Json:
    """Back from JSON. Raises ValueError for what is none, NaN and infinity included."""
    value: Json = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    return value


def encode(event: Event) -> bytes:
    """One event as structured JSON. Raises ValueError for data that JSON cannot hold, or a time without a zone."""
    return dump_json(_structured(event)).encode()


def decode(text: str | bytes) -> Event:
    """The event of a structured JSON document. Raises ValueError for one that is not ours."""
    return _from_structured(load_json(text))


def encode_batch(events: Iterable[Event]) -> bytes:
    """Events as one JSON array, in their order."""
    return dump_json([_structured(event) for event in events]).encode()


def decode_batch(text: str | bytes) -> tuple[Event, ...]:
    """The events of a JSON array. Raises ValueError for one that is not ours."""
    value = load_json(text)
    if not isinstance(value, list):
        raise ValueError(f"a batch of events is a JSON array; got {type(value).__name__}")
    return tuple(_from_structured(item) for item in value)


def to_kafka(event: Event) -> KafkaMessage:
    """One event in Kafka's binary mode. Raises ValueError as `encode` does."""
    headers = [(f"{_HEADER_PREFIX}{name}", value.encode()) for name, value in _attributes(event).items()]
    headers.append(("content-type", JSON_TYPE.encode()))
    headers += [(name, value.encode()) for name, value in trace_headers(event.trace).items()]
    return KafkaMessage(event.stream_id.encode(), dump_json(event.data).encode(), tuple(headers))


def from_kafka(headers: Iterable[tuple[str, bytes]], value: bytes) -> Event:
    """The event of a Kafka record in binary mode. Raises ValueError for one that is not ours."""
    attributes: dict[str, Json] = {
        name.removeprefix(_HEADER_PREFIX): content.decode()
        for name, content in headers
        if name.startswith(_HEADER_PREFIX)
    }
    return _event(attributes, load_json(value))


def trace_headers(trace: TraceContext | None) -> dict[str, str]:
    """A span as the headers of W3C Trace Context, which are also the attributes of CloudEvents; none for None."""
    if trace is None:
        return {}
    return {"traceparent": trace.parent} | ({"tracestate": trace.state} if trace.state else {})


def reduced(event: Event, data_bytes: int) -> Event:
    """The same event without whatever may be large in its data, saying so: for a wire that refuses the whole.

    Numbers, flags and texts of at most 256 characters stay; `reduced_from_bytes` is the size of the whole data.
    """
    small = {name: value for name, value in event.data.items() if len(name) <= _TEXT_KEPT and _is_small(value)}
    kept = dict(list(small.items())[:_TEXT_KEPT])
    return replace(event, data={**kept, "reduced_from_bytes": data_bytes})


def _is_small(value: Json) -> bool:
    return value is None or (isinstance(value, bool | int | float | str) and len(str(value)) <= _TEXT_KEPT)


def _attributes(event: Event) -> dict[str, str]:
    """Context attributes, all of them text. `partitionkey` keeps a stream's events in order where there are shards."""
    if event.time.tzinfo is None:
        raise ValueError(f"the time of event {event.id} has no zone: {event.time.isoformat()}; expected UTC")
    attributes = {
        "specversion": SPEC_VERSION,
        "id": event.id,
        "source": SOURCE_PREFIX + quote(event.stream_id, safe=""),
        "type": TYPE_PREFIX + event.type,
        "time": event.time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z",
        "dataschema": DATA_SCHEMA,
        "partitionkey": event.stream_id,
    }
    if event.watch_id is not None:
        attributes["subject"] = event.watch_id
    return attributes | trace_headers(event.trace)


def _structured(event: Event) -> dict[str, Json]:
    return {**_attributes(event), "datacontenttype": JSON_TYPE, "data": event.data}


def _from_structured(value: Json) -> Event:
    if not isinstance(value, dict):
        raise ValueError(f"a CloudEvent is a JSON object; got {type(value).__name__}")
    return _event(value, value.get("data"))


def _event(attributes: Mapping[str, Json], data: Json) -> Event:
    if (version := _text(attributes, "specversion")) != SPEC_VERSION:
        raise ValueError(f"CloudEvents specversion is {version!r}; expected {SPEC_VERSION!r}")
    if not isinstance(data, dict):
        raise ValueError(f"the data of an event is a JSON object; got {type(data).__name__}")
    return Event(
        id=_text(attributes, "id"),
        type=_after(TYPE_PREFIX, _text(attributes, "type"), "type"),
        stream_id=unquote(_after(SOURCE_PREFIX, _text(attributes, "source"), "source"), errors="strict"),
        time=_time(_text(attributes, "time")),
        data=data,
        watch_id=_text(attributes, "subject") if "subject" in attributes else None,
        trace=_trace(attributes),
    )


def _trace(attributes: Mapping[str, Json]) -> TraceContext | None:
    if "traceparent" not in attributes:
        return None
    state = _text(attributes, "tracestate") if "tracestate" in attributes else ""
    return TraceContext(_text(attributes, "traceparent"), state)


def _text(attributes: Mapping[str, Json], name: str) -> str:
    value = attributes.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"CloudEvents attribute {name} is {value!r}; expected text")
    return value


def _after(prefix: str, value: str, name: str) -> str:
    if not value.startswith(prefix) or value == prefix:
        raise ValueError(f"CloudEvents attribute {name} is {value!r}; expected one that begins with {prefix!r}")
    return value.removeprefix(prefix)


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"CloudEvents attribute time is {text!r}; expected RFC 3339 with a zone")
    return time.astimezone(UTC)


def _as_plain(value: object) -> dict[str, Json] | list[Json]:
    """`json` knows dicts, lists and tuples only; `Json` allows any mapping and sequence."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise ValueError(f"a {type(value).__name__} is no JSON value")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is beyond the range of a double")
    return number
