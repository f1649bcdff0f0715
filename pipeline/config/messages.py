"""The settings of sinks that send messages: to an MQTT broker, and to people."""

from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from functools import partial
from urllib.parse import unquote

from pydantic.dataclasses import dataclass

from pipeline.config.sink_policy import SinkPolicy
from pipeline.config.values import STRICT
from pipeline.core.wording import FIELDS, EventTemplate
from pipeline.errors import ConfigError
from pipeline.urls import REFERENCE, parse_url

LONGEST_TOPIC = 512
"""Bytes of an MQTT topic."""
BASE = "resadapt"
"""How topics begin where the URL of a broker names none."""

_EXPECTED = "expected mqtt://host[:port]/topic or mqtts://..."


@dataclass(frozen=True, slots=True, config=STRICT)
class MqttConfig(SinkPolicy):
    """`mqtt(s)://host[:port]/TOPIC`: events, a retained state for each watch, and what Home Assistant finds them by.

    All topics begin with TOPIC (`resadapt`). `topic` is where events go, a template; `states` keeps ON and OFF of each
    watch; `discovery` is Home Assistant's prefix, None for no discovery. `password` is a reference; without `ca_file`
    the system's certificate authorities count.
    """

    url: str
    topic: str = "{base}/events/{stream}/{type}"
    states: bool = True
    discovery: str | None = "homeassistant"
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True

    def require_sound(self) -> None:
        """Raise ConfigError for a secret that is written out, and for a topic that is none."""
        if self.password and not _is_reference(self.password):
            raise ConfigError("password is written out; expected a reference such as ${MQTT_PASSWORD}")
        topic_template(self.topic)
        if self.discovery is not None:
            require_topic("discovery", self.discovery)
        if _is_reference(self.url):
            return
        address = mqtt_address(REFERENCE.sub("", self.url))
        if address.password:
            raise ConfigError("url holds a password; expected a reference: mqtt://user:${MQTT_PASSWORD}@host/topic")
        named = [one for one in (self.ca_file, self.cert_file, self.key_file) if one]
        if named and not address.tls:
            raise ConfigError("ca_file, cert_file and key_file are for mqtts://; expected a URL that begins so")


@dataclass(frozen=True, slots=True, config=STRICT)
class NotifyConfig(SinkPolicy):
    """`notify:${NAME}`: messages to people, by any service whose URL apprise knows, such as Slack or e-mail.

    The URL is a secret, so it is a reference. `title` and `body` are templates; with `picture` the event's picture is
    attached, where there is one and the service takes it.
    """

    url: str
    title: str = "{summary}"
    body: str = "{reason}\nscore {score}, {time}"
    picture: bool = True

    def require_sound(self) -> None:
        """Raise ConfigError for a URL that is written out, and for a template that cannot be filled in."""
        if not _is_reference(self.url.removeprefix("notify:")):
            raise ConfigError("url holds a secret; expected a reference: notify:${NAME} or notify:${file:PATH}")
        for name, text in (("title", self.title), ("body", self.body)):
            _named(name, partial(EventTemplate, text))


def topic_template(text: str) -> EventTemplate:
    """A topic with fields, `{base}` included. Raises ConfigError."""
    template = _named("topic", lambda: EventTemplate(text, extra=("base",)))
    require_topic("topic", template.fill(dict.fromkeys((*FIELDS, "base"), "x")))
    return template


def require_topic(name: str, topic: str) -> str:
    """`topic`, if MQTT can publish to it. Raises ConfigError naming what is wrong with it."""
    for wrong, why in (
        (not topic or topic.startswith("/") or topic.endswith("/"), "it begins or ends with / or is empty"),
        ("//" in topic, "it has an empty level"),
        (any(one in topic for one in "+#"), "+ and # are for those who subscribe"),
        (topic.startswith("$"), "$ begins the broker's own topics"),
        (not topic.isprintable(), "it holds a control character"),
        (len(topic.encode(errors="replace")) > LONGEST_TOPIC, f"it is longer than {LONGEST_TOPIC} bytes"),
    ):
        if wrong:
            raise ConfigError(f"{name} is {topic[:80]!r}: {why}; expected a topic such as plant/gate")
    return topic


def _named(name: str, build: Callable[[], EventTemplate]) -> EventTemplate:
    try:
        return build()
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _is_reference(text: str) -> bool:
    return REFERENCE.fullmatch(text) is not None


@plain_dataclass(frozen=True, slots=True)
class MqttAddress:
    """The address of a broker, its login, and the common beginning of all topics."""

    host: str
    port: int
    tls: bool
    base: str
    user: str | None
    password: str | None


def mqtt_address(url: str) -> MqttAddress:
    """The address in `mqtt(s)://[user:password@]host[:port][/topic]`. Raises ConfigError, which repeats no password."""
    try:
        parts = parse_url(url)
    except ConfigError as error:
        raise ConfigError(f"url cannot be read; {_EXPECTED}: {error}") from None
    tls = parts.scheme == "mqtts"
    if parts.scheme not in ("mqtt", "mqtts") or not parts.host or "," in parts.authority or "?" in parts.rest:
        raise ConfigError(f"url is no broker's; {_EXPECTED}, without ? behind it")
    base = require_topic("url's topic", unquote(parts.rest.removeprefix("/").removesuffix("/")) or BASE)
    return MqttAddress(parts.host, parts.port or (8883 if tls else 1883), tls, base, parts.user, parts.password)
