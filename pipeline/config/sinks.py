"""The settings of sinks: those of its kind, which the scheme of `url` names."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag
from pydantic.dataclasses import dataclass

from pipeline.config.values import STRICT, Selector, Slug, resolve
from pipeline.core.gate import GateRules, RateLimit, SinkFilter
from pipeline.errors import ConfigError

SINK_CHOICES = "jsonl:PATH, kafka://host:port/topic or http(s)://..."
SINK_SCHEMES = {"jsonl": "jsonl", "kafka": "kafka", "http": "webhook", "https": "webhook"}
"""The kind of sink of each scheme."""


EventPattern = Annotated[str, StringConstraints(pattern=r"^[a-z_*]+(\.[a-z_*]+)?$", max_length=64)]
Severity = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


@dataclass(frozen=True, slots=True, config=STRICT)
class FilterConfig:
    """The events that are for a sink: what is empty does not matter, all the rest has to hold.

    `types` are event types or patterns such as `watch.*`; `streams` slugs or `tag:TAG`; `watches` slugs.
    """

    types: tuple[EventPattern, ...] = ()
    severities: tuple[Severity, ...] = ()
    streams: tuple[Selector, ...] = ()
    watches: tuple[Slug, ...] = ()

    def rules(self) -> SinkFilter:
        """As what judges events takes it."""
        return SinkFilter(self.types, frozenset(self.severities), frozenset(self.streams), frozenset(self.watches))


@dataclass(frozen=True, slots=True, config=STRICT)
class RateLimitConfig:
    """Over any minute or hour at most so many events go to a sink; one event at its end says what was held back."""

    events: Annotated[int, Field(ge=1, le=1000)] = field(kw_only=True)
    per: Literal["minute", "hour"] = "hour"

    def rules(self) -> RateLimit:
        """As what judges events takes it."""
        return RateLimit(self.events, 60.0 if self.per == "minute" else 3600.0)


@dataclass(frozen=True, slots=True, config=STRICT)
class SinkPolicy:
    """Which events a sink of any kind gets, and how many of them."""

    filter: FilterConfig = field(default_factory=FilterConfig, kw_only=True)
    rate_limit: RateLimitConfig | None = field(default=None, kw_only=True)

    def gate_rules(self) -> GateRules:
        """As what judges events takes it."""
        return GateRules(self.filter.rules(), self.rate_limit.rules() if self.rate_limit else None)


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
    """`http(s)://...`: a webhook, whose requests are signed with `secret`, which should be a reference."""

    url: str
    secret: str | None = field(default=None, repr=False)


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
    | Annotated[WebhookConfig, Tag("webhook")],
    Discriminator(sink_kind),
]
"""The settings of one kind. Another kind is another class, a line here and a case in `build.build_sink`."""
