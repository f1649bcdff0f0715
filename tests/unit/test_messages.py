"""Templates, topics and the settings of sinks that send messages: what is refused, and what never breaks a topic."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.entries import parse_sink
from pipeline.config.messages import MqttConfig, mqtt_address
from pipeline.core.wording import FIELDS, EventTemplate, values_of
from pipeline.errors import ConfigError
from pipeline.registry.desired import shown_spec
from pipeline.sinks.mqtt_messages import MqttWording
from pipeline.types import Event

TIME = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "hunter2"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
events = st.builds(
    lambda kind, stream, watch, data: Event("id", kind, stream, TIME, data, watch),
    st.sampled_from(["watch.opened", "watch.cleared", "stream.lost"]),
    st.text(min_size=1, max_size=20),
    st.none() | st.text(min_size=1, max_size=20),
    st.dictionaries(st.sampled_from([*FIELDS, "n"]), json_values),
)
WORDING = MqttWording(MqttConfig("mqtt://b", topic="{base}/{stream}/{watch}/{question}/{reason}/{severity}"), "plant")


@given(events)
def test_no_event_breaks_a_template_or_a_topic(event):
    text = EventTemplate("".join(f"{{{name}}}\x00" for name in FIELDS)).fill(values_of(event))
    assert text.count("\x00") == len(FIELDS)
    assert "\x1b" not in text
    for message in WORDING.of_event(event):
        levels = message.topic.split("/")
        assert len(levels) in (4, 6)
        assert all(levels)
        assert message.topic.isprintable()
        assert not set("+#") & set(message.topic)
        assert len(message.topic.encode()) < 65_535


@given(st.text(max_size=60))
def test_a_template_is_refused_by_name_or_can_be_filled(text):
    with suppress(ConfigError):
        EventTemplate(text).fill(dict.fromkeys(FIELDS, "x"))


@given(st.text(max_size=60))
def test_an_address_is_refused_by_name_or_is_one(text):
    try:
        address = mqtt_address(f"mqtt://{text}")
    except ConfigError:
        return
    assert address.host
    assert not set("+#\0") & set(address.base)


def test_an_address_in_its_parts():
    plain, whole = mqtt_address("mqtt://broker"), mqtt_address("mqtts://u%40x:p@[::1]:9999/a%20b/c/")
    assert (plain.port, plain.tls, plain.base, plain.user) == (1883, False, "resadapt", None)
    assert (whole.host, whole.port, whole.tls, whole.base) == ("::1", 9999, True, "a b/c")
    assert (whole.user, whole.password) == ("u@x", "p")


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"url": f"mqtt://u:{SECRET}@b/x"}, "url holds a password"),
        ({"url": "mqtt://b/x", "password": SECRET}, "password is written out"),
        ({"url": "mqtt://b/a/+/b"}, r"'a/\+/b': \+ and # are"),
        ({"url": "mqtt://b/a//b"}, "empty level"),
        ({"url": "mqtt://b/$SYS/x"}, "broker's own topics"),
        ({"url": "mqtt://b/a%00b"}, "control character"),
        ({"url": "mqtt://b/" + "a" * 600}, "longer than 512"),
        ({"url": "mqtt://b/x?qos=0"}, "without \\? behind it"),
        ({"url": "mqtt:b"}, "url cannot be read"),
        ({"url": "mqtt://b/x", "topic": "{base}/{colour}"}, "the field 'colour'; expected one of base, summary"),
        ({"url": "mqtt://b/x", "topic": "{base}/#"}, "topic is 'x/#'"),
        ({"url": "mqtt://b/x", "topic": ""}, "topic is ''"),
        ({"url": "mqtt://b/x", "discovery": "home/+"}, "discovery is 'home/\\+'"),
        ({"url": "mqtt://b/x", "ca_file": "/ca.pem"}, "are for mqtts://"),
        ({"url": f"notify:slack://{SECRET}/b"}, "url holds a secret"),
        ({"url": "notify:"}, "url holds a secret"),
        ({"url": "notify:${X}", "title": "{event.__class__}"}, "title: the template names the field"),
        ({"url": "notify:${X}", "body": "{score:.2f}"}, "body: the template names the field"),
        ({"url": "notify:${X}", "body": "{"}, "body: the template cannot be read"),
        ({"url": "notify:${X}", "colour": "red"}, "colour: unknown key of notify"),
        ({"url": "mqtt://b/x", "title": "{summary}"}, "title: unknown key of mqtt"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name_and_show_no_secret(own, said):
    with pytest.raises(ConfigError, match=said) as caught:
        parse_sink("s", own)
    assert str(caught.value).startswith("sinks.s.")
    assert SECRET not in str(caught.value)


def test_what_is_stored_of_a_sink_holds_no_secret():
    for own in (
        {"url": f"webhook:https://h/{SECRET}", "secret": SECRET},
        {"url": f"mqtt://u:{SECRET}@b/x", "username": SECRET, "password": SECRET},
    ):
        assert SECRET not in repr(shown_spec("sink", own))
    assert shown_spec("sink", {"url": "mqtt://b/x", "password": "${P}"})["password"] == "${P}"
