import pytest

from pipeline.config.sinks import KafkaSecurity
from pipeline.errors import ConfigError
from pipeline.sinks.cloudevents import KafkaMessage
from pipeline.sinks.kafka import waves
from pipeline.sinks.kafka_address import client_options, parse_kafka_url


@pytest.mark.parametrize(
    ("url", "bootstrap", "topic"),
    [
        ("kafka://broker:9093/events", "broker:9093", "events"),
        ("kafka://broker/events", "broker:9092", "events"),
        ("kafka://a:1,b:2,c/site.events_v-1", "a:1,b:2,c:9092", "site.events_v-1"),
        ("kafka://[::1]:9092/events", "[::1]:9092", "events"),
    ],
)
def test_an_address_is_its_servers_and_its_topic(url, bootstrap, topic):
    assert parse_kafka_url(url) == (bootstrap, topic)


@pytest.mark.parametrize(
    "url",
    [
        "kafka://broker",
        "kafka:///events",
        "kafka://broker/",
        "kafka://broker/a/b",
        "kafka://broker/a b",
        "kafka://a:1,,b:2/events",
        "kafka://broker:port/events",
        "kafka://broker/events?acks=0",
        "http://broker/events",
        "events",
    ],
)
def test_anything_else_is_refused_with_an_example(url):
    with pytest.raises(ConfigError, match=r"expected kafka://host:port\[,host:port\]/topic"):
        parse_kafka_url(url)


def test_credentials_in_the_address_are_refused_and_not_repeated():
    with pytest.raises(ConfigError, match=r"security\.password") as caught:
        parse_kafka_url("kafka://me:hunter2@broker/events")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"protocol": "SASL_SSL"}, "needs mechanism"),
        ({"protocol": "SASL_SSL", "mechanism": "PLAIN", "username": "me"}, "password"),
        ({"username": "me"}, "takes no credentials"),
        ({"ca_file": "ca.pem"}, "takes no certificates"),
    ],
)
def test_security_that_cannot_work_is_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        client_options(KafkaSecurity(**options))


def test_certificates_that_cannot_be_read_are_refused_by_name(tmp_path):
    (tmp_path / "bad.pem").write_text("no certificate")
    for name in ("missing.pem", "bad.pem"):
        with pytest.raises(ConfigError, match=name):
            client_options(KafkaSecurity("SSL", ca_file=str(tmp_path / name)))
    with pytest.raises(ConfigError, match="key_file no path") as refusal:
        key = "-----BEGIN PRIVATE KEY-----\ns3cret"
        client_options(KafkaSecurity("SSL", cert_file=str(tmp_path / "bad.pem"), key_file=key))
    assert "s3cret" not in str(refusal.value)


def message(size):
    return (None, KafkaMessage(b"", b"x" * size, ()))


def test_large_events_travel_alone_and_the_order_stays():
    batch = [message(size) for size in (10, 20, 100_000, 30, 16_000, 40_000, 50_000)]
    sizes = [[item[1].size for item in wave] for wave in waves(batch)]
    assert sizes == [[10, 20], [100_000], [30, 16_000], [40_000], [50_000]]


def test_small_events_are_cut_into_bounded_waves():
    cut = list(waves([message(10_000)] * 100))
    assert sum(len(wave) for wave in cut) == 100
    assert all(sum(item[1].size for item in wave) <= 262_144 for wave in cut)
    assert len(cut) == 4
