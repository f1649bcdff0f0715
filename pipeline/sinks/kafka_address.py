"""Where a Kafka topic is and how to be let in: values only, without the client."""

import re
import ssl
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.redact import redact_url
from pipeline.urls import parse_url

_DEFAULT_PORT = 9092
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]+)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """TLS and SASL of a connection. Raises ConfigError for a combination that cannot work.

    Without `ca_file` the system's certificate authorities count. `cert_file` and `key_file` are for brokers that ask
    for a client certificate. SASL_PLAINTEXT with PLAIN sends the password in clear.
    """

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True

    def __post_init__(self) -> None:
        if self.protocol.startswith("SASL") and not (self.mechanism and self.username and self.password):
            raise ConfigError(f"Kafka security {self.protocol} needs mechanism, username and password")
        if not self.protocol.startswith("SASL") and (self.mechanism or self.username or self.password):
            raise ConfigError(
                f"Kafka security {self.protocol} takes no credentials; expected SASL_SSL or SASL_PLAINTEXT"
            )
        if not self.protocol.endswith("SSL") and (self.ca_file or self.cert_file or self.key_file):
            raise ConfigError(f"Kafka security {self.protocol} takes no certificates; expected SSL or SASL_SSL")

    def options(self) -> dict[str, object]:
        """As kafka-python takes it. Raises ConfigError for certificate files that cannot be read."""
        return {
            "security_protocol": self.protocol,
            "ssl_context": self._tls() if self.protocol.endswith("SSL") else None,
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
        }

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:
            given = {"ca_file": self.ca_file, "cert_file": self.cert_file, "key_file": self.key_file}
            # Somebody may have put the key itself where its path belongs.
            shown = {name: "no path" if "-----" in file else file for name, file in given.items() if file}
            named = ", ".join(f"{name} {file}" for name, file in shown.items())
            why = error.strerror or type(error).__name__
            raise ConfigError(f"the files of Kafka's security ({named}) cannot be used: {why}") from None
        context.check_hostname = self.check_hostname
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
