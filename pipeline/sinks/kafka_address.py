"""The address and the credentials of a Kafka topic: values only, without the client."""

import re
import ssl

from pipeline.config.sinks import KafkaSecurity
from pipeline.errors import ConfigError
from pipeline.redact import redact_url
from pipeline.urls import parse_url

_DEFAULT_PORT = 9092
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]+)(?::(?P<port>\d{1,5}))?")


def client_options(security: KafkaSecurity) -> dict[str, object]:
    """As kafka-python takes it. Raises ConfigError for a combination that cannot work, and for certificate files that
    cannot be read."""
    protocol = security.protocol
    sasl, tls = protocol.startswith("SASL"), protocol.endswith("SSL")
    if sasl and not (security.mechanism and security.username and security.password):
        raise ConfigError(f"Kafka security {protocol} needs mechanism, username and password")
    if not sasl and (security.mechanism or security.username or security.password):
        raise ConfigError(f"Kafka security {protocol} takes no credentials; expected SASL_SSL or SASL_PLAINTEXT")
    if not tls and (security.ca_file or security.cert_file or security.key_file):
        raise ConfigError(f"Kafka security {protocol} takes no certificates; expected SSL or SASL_SSL")
    return {
        "security_protocol": protocol,
        "ssl_context": _tls(security) if tls else None,
        "sasl_mechanism": security.mechanism,
        "sasl_plain_username": security.username,
        "sasl_plain_password": security.password,
    }


def _tls(security: KafkaSecurity) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=security.ca_file)
        if security.cert_file:
            context.load_cert_chain(security.cert_file, security.key_file)
    except OSError as error:
        given = {"ca_file": security.ca_file, "cert_file": security.cert_file, "key_file": security.key_file}
        # Somebody may have put the key itself where its path belongs.
        shown = {name: "no path" if "-----" in file else file for name, file in given.items() if file}
        named = ", ".join(f"{name} {file}" for name, file in shown.items())
        why = error.strerror or type(error).__name__
        raise ConfigError(f"the files of Kafka's security ({named}) cannot be used: {why}") from None
    context.check_hostname = security.check_hostname
    return context


def parse_kafka_url(url: str) -> tuple[str, str]:
    """Bootstrap servers (`host:port,...`) and topic of `kafka://host[:port][,host[:port]]/topic`.

    The port is 9092 where none is given. Raises ConfigError for anything else, also for credentials: they belong into
    `security`.
    """
    try:
        parts = parse_url(url)
    except ConfigError as error:
        shown = redact_url(url)
        raise ConfigError(
            f"{shown!r} is no Kafka address; expected kafka://host:port[,host:port]/topic: {error}"
        ) from None
    if parts.user is not None:
        raise ConfigError(f"{redact_url(url)} holds credentials; give them as security.username and security.password")
    hosts = [_HOST.fullmatch(host) for host in parts.authority.split(",")]
    topic = parts.rest.removeprefix("/")
    if parts.scheme != "kafka" or not all(hosts) or not _TOPIC.fullmatch(topic):
        raise ConfigError(f"{redact_url(url)!r} is no Kafka address; expected kafka://host:port[,host:port]/topic")
    return ",".join(f"{host['host']}:{host['port'] or _DEFAULT_PORT}" for host in hosts if host), topic
