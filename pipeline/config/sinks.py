"""The settings of sinks: those of its kind, which the scheme of `url` names."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Discriminator, Tag
from pydantic.dataclasses import dataclass

from pipeline.config.messages import MqttConfig, NotifyConfig
from pipeline.config.sink_policy import SinkPolicy
from pipeline.config.values import STRICT, resolve
from pipeline.errors import ConfigError

SINK_CHOICES = (
    "jsonl:PATH, kafka://host:port/topic, mqtt(s)://host/topic, notify:${URL}, http(s)://... or webhook:http(s)://..."
)
SINK_SCHEMES = {
    "jsonl": "jsonl",
    "kafka": "kafka",
    "http": "webhook",
    "https": "webhook",
    "webhook": "webhook",
    "mqtt": "mqtt",
    "mqtts": "mqtt",
    "notify": "notify",
}
"""The kind of sink of each scheme."""


@dataclass(frozen=True, slots=True, config=STRICT)
class JsonlConfig(SinkPolicy):
    """`jsonl:PATH`: lines of a file."""

    url: str


@dataclass(frozen=True, slots=True, config=STRICT)
class KafkaSecurity:
    """TLS and SASL of a connection to Kafka. `username` and `password` should be references.

    Without `ca_file` the system's certificate authorities count. `cert_file` and `key_file` are for brokers that ask
    for a client certificate. SASL_PLAINTEXT with PLAIN sends the password in clear.
    """

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True


@dataclass(frozen=True, slots=True, config=STRICT)
class KafkaConfig(SinkPolicy):
    """`kafka://host:port[,host:port]/topic`."""

    url: str
    security: KafkaSecurity = field(default_factory=KafkaSecurity)


@dataclass(frozen=True, slots=True, config=STRICT)
class WebhookConfig(SinkPolicy):
    """`http(s)://...` or `webhook:http(s)://...`: requests are signed with `secret`, which should be a reference; only
    where `signed` is false may there be none."""

    url: str
    secret: str | None = field(default=None, repr=False)
    signed: bool = True

    @property
    def address(self) -> str:
        """The URL of the receiver."""
        return self.url.removeprefix("webhook:")


def sink_kind(value: object) -> str:
    """The kind of a sink's mapping. Raises ConfigError for a URL of another scheme, or of which nothing is known."""
    url = value.get("url") if isinstance(value, dict) else getattr(value, "url", None)
    if not isinstance(url, str):
        return "jsonl"
    scheme, colon, rest = (resolve(url) if url.startswith("${") else url).partition(":")
    if colon and scheme.lower() in SINK_SCHEMES:
        return SINK_SCHEMES[scheme.lower()]
    # The rest of it may hold a token; without //, what is read as the scheme may be a user's name.
    named = f"has the scheme {scheme!r}" if rest.startswith("//") else "has no scheme that is known"
    raise ConfigError(f"the URL {named}; expected {SINK_CHOICES}")


SinkConfig = Annotated[
    Annotated[JsonlConfig, Tag("jsonl")]
    | Annotated[KafkaConfig, Tag("kafka")]
    | Annotated[WebhookConfig, Tag("webhook")]
    | Annotated[MqttConfig, Tag("mqtt")]
    | Annotated[NotifyConfig, Tag("notify")],
    Discriminator(sink_kind),
]
"""The settings of one kind. Another kind is another class, a line here and a case in `build.build_sink`."""
