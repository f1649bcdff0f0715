"""One stream, watch or sink by itself, read as a site file is: what is wrong with it is said in the same words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TypeGuard

from pydantic.dataclasses import dataclass

from pipeline.config.sinks import SinkConfig
from pipeline.config.site import StreamConfig, WatchConfig, parse_site
from pipeline.config.values import STRICT
from pipeline.core.selectors import TAG
from pipeline.errors import ConfigError
from pipeline.sources.policy import AddressPolicy

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

_ANYWHERE = ((0, 0), (1, 0), (1, 1))
_SHARED = ("defaults", "mllm")


def parse_stream(slug: str, own: Mapping[str, object], site: Mapping[str, object]) -> StreamConfig:
    """A stream over the defaults of a site's mappings. Raises ConfigError."""
    shared = {key: site[key] for key in _SHARED if key in site}
    return parse_site({**shared, "streams": {require_slug(slug): dict(own)}}).streams[slug]


@dataclass(frozen=True, slots=True, config=STRICT)
class UntrustedStreamConfig(StreamConfig):
    """A stream that came over the network: it may lead to public and private addresses, and to what its
    `allow_addresses`, which are then the site's for the API, name."""

    def address_policy(self) -> AddressPolicy:
        """The addresses that it, and whatever it names, may lead to."""
        return api_policy(self.allow_addresses, self.deny_addresses)


def api_policy(allow: Sequence[str], deny: Sequence[str]) -> AddressPolicy:
    """The address policy for entries that arrive by the API. Cameras live in private networks; this machine, its
    neighbours on the cable, its cloud and its files do not count as such."""
    return AddressPolicy.of(("private", *allow), deny, trusting=False)


def parse_untrusted(slug: str, own: Mapping[str, object], site: Mapping[str, object]) -> UntrustedStreamConfig:
    """A stream that came by the API, under the addresses that the site allows it. Raises ConfigError."""
    api = parse_site({"api": site["api"]} if "api" in site else {}).api
    return untrusted(parse_stream(slug, own, site), api.allow_addresses, api.deny_addresses)


def untrusted(plain: StreamConfig, allow: tuple[str, ...], deny: tuple[str, ...]) -> UntrustedStreamConfig:
    """The same stream, which may lead to public and private addresses but for those denied, and to those allowed."""
    said = {item.name: getattr(plain, item.name) for item in fields(plain)}
    return UntrustedStreamConfig(**said | {"allow_addresses": allow, "deny_addresses": deny})


def parse_watch(slug: str, own: Mapping[str, object]) -> WatchConfig:
    """A watch; whether the streams and the sink that it names are there, and its zone on them, is left open. Raises
    ConfigError."""
    streams = own.get("streams")
    named = [text for text in streams if isinstance(text, str)] if isinstance(streams, list | tuple) else []
    zone = own.get("zone")
    zones = {zone: _ANYWHERE} if isinstance(zone, str) and SLUG.fullmatch(zone) else {}
    present = {text: {"url": "synthetic:", "zones": zones} for text in named if SLUG.fullmatch(text)}
    escalate = own.get("escalate")
    sink = escalate.get("sink") if isinstance(escalate, Mapping) else None
    sinks = {sink: "jsonl:-"} if isinstance(sink, str) and SLUG.fullmatch(sink) else {}
    watches = {require_slug(slug): dict(own)}
    return parse_site({"streams": present, "watches": watches, **({"sinks": sinks} if sinks else {})}).watches[slug]


def parse_sink(slug: str, own: Mapping[str, object]) -> SinkConfig:
    """A sink; whether the streams and watches that its filter names are there is left open. Raises ConfigError."""
    wanted = own.get("filter")
    named = dict(wanted) if isinstance(wanted, Mapping) else {}
    site = {
        "streams": {one: {"url": "synthetic:"} for one in _slugs(named.get("streams"))},
        "watches": {one: {"question": "is it so?"} for one in _slugs(named.get("watches"))},
        "sinks": {require_slug(slug): dict(own)},
    }
    return parse_site(site).sinks[slug]


def _slugs(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str) and SLUG.fullmatch(one)] if _is_list(value) else []


def _is_list(value: object) -> TypeGuard[list[object] | tuple[object, ...]]:
    return isinstance(value, list | tuple)


def require_slug(slug: str) -> str:
    """`slug`, if it is one. Raises ConfigError."""
    if not SLUG.fullmatch(slug):
        raise ConfigError(f"slug: {slug[:80]!r} is none; expected lower-case letters, digits, - and _, at most 63")
    return slug


def named_streams(watch: WatchConfig) -> frozenset[str]:
    """The streams that a watch names by their slugs."""
    return frozenset(name for name in watch.streams if not name.startswith(TAG))
