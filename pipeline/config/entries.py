"""One stream, watch or sink by itself, read as a site file is: what is wrong with it is said in the same words."""

import re
import unicodedata
from collections.abc import Mapping

from pipeline.config.sinks import SinkConfig
from pipeline.config.site import StreamConfig, WatchConfig, parse_site
from pipeline.core.selectors import TAG
from pipeline.errors import ConfigError

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

_SHARED = ("defaults", "mllm")


def parse_stream(slug: str, own: Mapping[str, object], site: Mapping[str, object]) -> StreamConfig:
    """A stream over the defaults of a site's mappings. Raises ConfigError."""
    shared = {key: site[key] for key in _SHARED if key in site}
    return parse_site({**shared, "streams": {require_slug(slug): dict(own)}}).streams[slug]


def parse_watch(slug: str, own: Mapping[str, object]) -> WatchConfig:
    """A watch; whether the streams that it names are there is left open. Raises ConfigError."""
    streams = own.get("streams")
    named = [text for text in streams if isinstance(text, str)] if isinstance(streams, list | tuple) else []
    present = {text: {"url": "synthetic:"} for text in named if SLUG.fullmatch(text)}
    return parse_site({"streams": present, "watches": {require_slug(slug): dict(own)}}).watches[slug]


def parse_sink(slug: str, own: Mapping[str, object]) -> SinkConfig:
    """A sink. Raises ConfigError."""
    return parse_site({"sinks": {require_slug(slug): dict(own)}}).sinks[slug]


def require_slug(slug: str) -> str:
    """`slug`, if it is one. Raises ConfigError."""
    if not SLUG.fullmatch(slug):
        raise ConfigError(f"slug: {slug[:80]!r} is none; expected lower-case letters, digits, - and _, at most 63")
    return slug


def slug_of(text: str, otherwise: str) -> str:
    """`text` in lower-case letters, digits and hyphens; `otherwise` where nothing is left of it."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-") or otherwise


def named_streams(watch: WatchConfig) -> frozenset[str]:
    """The streams that a watch names by their slugs."""
    return frozenset(name for name in watch.streams if not name.startswith(TAG))
