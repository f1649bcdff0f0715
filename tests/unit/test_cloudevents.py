import json
import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import pipeline.sinks
from pipeline.sinks import cloudevents
from pipeline.types import Event, TraceContext

SCHEMA = json.loads(Path(pipeline.sinks.__path__[0], "event.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SLUG = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
TRACEPARENT = st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", fullmatch=True)
KNOWN = set(SCHEMA["$defs"]["data"]["properties"])
EVENTS = st.builds(
    Event,
    id=TEXT,
    type=SLUG,
    stream_id=TEXT,
    time=st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    data=st.dictionaries(TEXT.filter(lambda name: name not in KNOWN), JSON, max_size=4),
    watch_id=st.none() | TEXT,
    trace=st.none() | st.builds(TraceContext, TRACEPARENT, st.sampled_from(["", "vendor=1,other=a:b"])),
)
OPENED = Event(
    "6f0c",
    "watch.opened",
    "gate",
    datetime(2026, 5, 4, 3, 2, 1, 500, UTC),
    {"n": 1, "score": 0.9, "onset_s": 4.0},
    "fire",
)


@given(EVENTS)
def test_an_event_survives_the_structured_form_and_fits_its_schema(event):
    text = cloudevents.encode(event)
    assert cloudevents.decode(text) == event
    assert cloudevents.decode(text).trace == event.trace
    VALIDATOR.validate(json.loads(text))


@given(EVENTS)
def test_an_event_survives_kafkas_binary_mode(event):
    message = cloudevents.to_kafka(event)
    assert message.key == event.stream_id.encode()
    assert cloudevents.from_kafka(message.headers, message.value) == event
    assert cloudevents.from_kafka(message.headers, message.value).trace == event.trace
    named = {name: value.decode() for name, value in message.headers if name in ("traceparent", "tracestate")}
    assert named == cloudevents.trace_headers(event.trace)  # where clients of Kafka look


@given(st.lists(EVENTS, max_size=5))
def test_a_batch_keeps_its_events_and_their_order(events):
    assert cloudevents.decode_batch(cloudevents.encode_batch(events)) == tuple(events)


def test_the_attributes_are_those_of_cloudevents_1_0():
    assert json.loads(cloudevents.encode(OPENED)) == {
        "specversion": "1.0",
        "id": "6f0c",
        "source": "/streams/gate",
        "type": "io.github.resadapt_stream.watch.opened",
        "subject": "fire",
        "time": "2026-05-04T03:02:01.000500Z",
        "datacontenttype": "application/json",
        "dataschema": "https://github.com/resadapt/resadapt-stream/schemas/event-1.json#/$defs/data",
        "partitionkey": "gate",
        "data": {"n": 1, "score": 0.9, "onset_s": 4.0},
    }


def test_binary_mode_puts_attributes_into_headers_and_data_into_the_value():
    message = cloudevents.to_kafka(OPENED)
    headers = dict(message.headers)
    assert headers["ce_type"] == b"io.github.resadapt_stream.watch.opened"
    assert headers["content-type"] == b"application/json"
    assert "ce_datacontenttype" not in headers
    assert "ce_data" not in headers
    assert json.loads(message.value) == OPENED.data


def test_an_event_about_the_stream_itself_has_no_subject():
    event = Event("1", "stream.lost", "gate", OPENED.time, {})
    assert "subject" not in json.loads(cloudevents.encode(event))
    assert cloudevents.decode(cloudevents.encode(event)).watch_id is None


def test_text_of_any_script_is_written_as_it_is():
    event = Event("1", "watch.opened", "gate", OPENED.time, {"question": "火はありますか"}, "fire")
    assert "火はありますか".encode() in cloudevents.encode(event)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_lacks_is_refused(number):
    event = Event("1", "watch.opened", "gate", OPENED.time, {"score": [number]}, "fire")
    for encode in (cloudevents.encode, cloudevents.to_kafka):
        with pytest.raises(ValueError):
            encode(event)


def test_half_a_character_is_refused():
    with pytest.raises(ValueError):
        cloudevents.encode(Event("1", "watch.opened", "gate", OPENED.time, {"question": "\ud83d"}, "fire"))


def test_a_time_is_written_in_utc_and_needs_a_zone():
    east = datetime(2026, 1, 1, 2, 0, tzinfo=timezone(timedelta(hours=2)))
    assert b'"2026-01-01T00:00:00.000000Z"' in cloudevents.encode(Event("1", "x", "gate", east, {}))
    with pytest.raises(ValueError, match="zone"):
        cloudevents.encode(Event("1", "x", "gate", datetime(2026, 1, 1), {}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"type": "com.example.other"}, "type"),
        ({"source": "/elsewhere"}, "source"),
        ({"time": "2026-05-04T03:02:01"}, "time"),
        ({"time": "yesterday"}, "yesterday"),
        ({"data": [1]}, "data"),
    ],
)
def test_a_document_that_is_not_ours_is_refused_by_name(change, named):
    document = json.loads(cloudevents.encode(OPENED)) | change
    with pytest.raises(ValueError, match=named):
        cloudevents.decode(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "null", '{"specversion": NaN}', b"\xff", '{"data": 1e999}'])
def test_text_that_is_no_event_is_refused(text):
    with pytest.raises(ValueError):
        cloudevents.decode(text)


def test_attributes_of_others_are_ignored():
    document = json.loads(cloudevents.encode(OPENED)) | {"traceparent": "00-1-2-01"}
    assert cloudevents.decode(json.dumps(document)) == OPENED


def test_a_reduced_event_keeps_its_identity_and_small_data_and_says_so():
    event = Event("1", "watch.opened", "gate", OPENED.time, {"score": 0.9, "text": "x" * 10_000, "list": [1]}, "fire")
    small = cloudevents.reduced(event, 10_040)
    assert small == Event(
        "1", "watch.opened", "gate", OPENED.time, {"score": 0.9, "reduced_from_bytes": 10_040}, "fire"
    )
    VALIDATOR.validate(json.loads(cloudevents.encode(small)))
