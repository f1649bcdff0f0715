"""The part of a site file about traces."""

from dataclasses import field
from typing import Annotated

from pydantic import StringConstraints
from pydantic.dataclasses import dataclass

from pipeline.config.values import STRICT, Share, environment, resolve, resolve_url
from pipeline.errors import ConfigError
from pipeline.redact import redact_url, remember
from pipeline.urls import parse_url

_EXPECTED = "http://HOST:4318 or https://..., the address of a receiver of OTLP over HTTP"
_PATH = "/v1/traces"
_OFF = {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "none"}

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")]


@dataclass(frozen=True, slots=True, config=STRICT)
class TracingConfig:
    """The traces of a `sample` of all hops (share, 0 to 1): `endpoint` is the base URL of a receiver of OTLP over
    HTTP, None for that of OTEL_EXPORTER_OTLP_ENDPOINT; with neither there are no traces. Values of `headers` should be
    references where they are secrets."""

    endpoint: str | None = None
    sample: Share = 0.01
    headers: dict[HeaderName, str] = field(default_factory=dict, repr=False)

    def check(self) -> None:
        """Raise ConfigError for an address that cannot be one."""
        if self.endpoint is not None and "${" not in self.endpoint:
            traces_url(self.endpoint)

    def resolved_headers(self) -> dict[str, str]:
        """The headers with the secrets in them. Raises ConfigError."""
        found = {name: resolve(value) for name, value in self.headers.items()}
        for name, value in found.items():
            if not value.isascii() or not value.isprintable():
                raise ConfigError(f"tracing.headers.{name} holds characters that no header can; expected plain ASCII")
        return found

    def address(self) -> str | None:
        """The whole URL to which spans are sent; None for no traces. Raises ConfigError."""
        if not self.sample or any((environment(name) or "").lower() == off for name, off in _OFF.items()):
            return None
        if self.endpoint is not None:
            return traces_url(resolve_url(self.endpoint))
        if whole := environment("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
            return traces_url(whole, path="")
        base = environment("OTEL_EXPORTER_OTLP_ENDPOINT")
        return None if base is None else traces_url(base)


def traces_url(text: str, path: str = _PATH) -> str:
    """The URL of spans below that of a receiver. Raises ConfigError for one that is none."""
    try:
        url = parse_url(text)
    except ConfigError as error:
        raise ConfigError(f"tracing.endpoint cannot be read; expected {_EXPECTED}: {error}") from None
    if url.password is not None:
        remember(url.password)
    if url.scheme not in ("http", "https") or not url.host or "?" in url.rest or "#" in url.rest:
        raise ConfigError(f"tracing.endpoint is {redact_url(text)!r}; expected {_EXPECTED}")
    return url.text if url.rest.endswith(_PATH) else url.text.rstrip("/") + path
