"""The site file: frozen dataclasses read from YAML, validated once."""

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pipeline.config.api import ApiConfig, KeepConfig
from pipeline.config.evidence import EvidenceConfig
from pipeline.config.faults import explain, fault_of, key_names
from pipeline.config.fleet import FleetConfig
from pipeline.config.loader import SiteLoader
from pipeline.config.messages import MqttConfig, NotifyConfig
from pipeline.config.mllm import MLLM_CHOICES, MLLMConfig, YardConfig
from pipeline.config.sink_policy import FilterConfig
from pipeline.config.sinks import JsonlConfig, SinkConfig, sink_kind
from pipeline.config.tracing import TracingConfig
from pipeline.config.values import STRICT, Count, NotNegative, Positive, Selector, Share, Slug
from pipeline.config.watch_rules import RulesConfig, check_sink
from pipeline.core.budget import BURST_HOPS, BURST_S, Rate
from pipeline.core.context import ContextRules, horizon_s
from pipeline.core.health import HealthRules
from pipeline.core.hops import HopRules
from pipeline.core.questions import clean_question
from pipeline.core.relook import PictureRing
from pipeline.core.selectors import selects
from pipeline.core.vitals import ServiceRules
from pipeline.errors import ConfigError
from pipeline.sources.settings import Regions, SourceConfig
from pipeline.types import WatchQuery, Zone

_HOPS, _CONTEXT, _RING, _WATCH = HopRules(), ContextRules(), PictureRing(), WatchQuery("", "")
_HEALTH, _SERVICE = HealthRules(), ServiceRules()

Title = Annotated[str, StringConstraints(max_length=200)]


def _link(url: str) -> str:
    """A link for people. Raises ValueError for one that browsers do not follow, and for one with a password."""
    if url and not re.fullmatch(r"https?://[^\s/?#@]+([/?#]\S*)?", url):
        raise ValueError("expected http://... or https://... without user and password")
    return url


Link = Annotated[str, StringConstraints(max_length=500), AfterValidator(_link)]


@dataclass(frozen=True, slots=True, config=STRICT)
class BudgetConfig:
    """Vision tokens per second of stream time, and how many may be saved up: `burst_tokens`, or, without them, what
    `burst_hops` hops of the stream cost at native size, and at least 10 seconds of the rate. One hop is granted at most
    three native hops or 10 seconds of the rate, whichever is more."""

    rate_tokens_per_s: Positive = 400.0
    burst_tokens: Count | None = None
    burst_hops: Annotated[float, Field(ge=1, allow_inf_nan=False)] = BURST_HOPS

    @property
    def rate(self) -> Rate:
        """As a stream begins with it, before the size of its hops is known."""
        saved = max(1, round(BURST_S * self.rate_tokens_per_s))
        return Rate(self.rate_tokens_per_s, saved if self.burst_tokens is None else self.burst_tokens)

    @property
    def hops(self) -> float:
        """Native hops that may be saved up at least; 0 where that is given in tokens."""
        return self.burst_hops if self.burst_tokens is None else 0.0


@dataclass(frozen=True, slots=True, config=STRICT)
class SharedBudgetConfig:
    """Vision tokens per second of all streams together, and how many may be saved up."""

    rate_tokens_per_s: Positive = 400.0
    burst_tokens: Count = 4000

    @property
    def rate(self) -> Rate:
        return Rate(self.rate_tokens_per_s, self.burst_tokens)


@dataclass(frozen=True, slots=True, config=STRICT)
class ReconnectConfig:
    """Back-off between attempts to reattach, in seconds: doubles from `first_s` to `cap_s`, each jittered by half.

    After a refused password it is `refused_s`, jittered alike: cameras lock accounts that try again and again.
    """

    first_s: Positive = 0.2
    cap_s: Positive = 0.75
    refused_s: Positive = 300.0


@dataclass(frozen=True, slots=True, config=STRICT)
class HealthConfig:
    """After how many seconds of stream an alarm about it is raised, 0 for never: the same pictures (`frozen_s`),
    nothing to see (`blind_s`), another view (`moved_s`), a watch answered with nothing but unknown (`unknown_s`). It
    ends after `clear_s` without it; a new view that lasts `settle_s` is taken for the camera's own."""

    frozen_s: NotNegative = _HEALTH.frozen_s
    blind_s: NotNegative = _HEALTH.blind_s
    moved_s: NotNegative = _HEALTH.moved_s
    unknown_s: NotNegative = _HEALTH.unknown_s
    clear_s: Positive = _HEALTH.clear_s
    settle_s: Positive = _HEALTH.settle_s

    def rules(self) -> HealthRules:
        """As the judge of health takes them."""
        return HealthRules(self.frozen_s, self.blind_s, self.moved_s, self.unknown_s, self.clear_s, self.settle_s)


@dataclass(frozen=True, slots=True, config=STRICT)
class ServiceConfig:
    """Events about the service itself, in seconds of its clock: a sink that has failed for `sink_failing_s`, a share of
    at least `degraded_share` of the streams below `normal` on the overload ladder for `degraded_s`, and a sign of life
    every `heartbeat_s`; 0 for never."""

    heartbeat_s: NotNegative = _SERVICE.heartbeat_s
    sink_failing_s: NotNegative = _SERVICE.sink_failing_s
    degraded_s: NotNegative = _SERVICE.degraded_s
    degraded_share: Annotated[float, Field(gt=0, le=1)] = _SERVICE.degraded_share

    def rules(self) -> ServiceRules:
        """As the judge of the service takes them."""
        return ServiceRules(self.heartbeat_s, self.sink_failing_s, self.degraded_s, self.degraded_share)


@dataclass(frozen=True, slots=True, config=STRICT)
class StreamPolicy(SourceConfig):
    """The treatment of a stream; `defaults` for all, overridden per stream. Seconds unless named otherwise; a context's
    are the MLLM family's where they are None. The pixels of one that is `context_packed` take a fraction of the memory
    and more work. With `crop` zones the MLLM is shown the part of the picture in which the zones of its watches lie,
    where each is about one; with none always all of it."""

    sample_fps: Annotated[float, Field(gt=0, le=60)] = _HOPS.sample_fps
    hop_s: Positive = _HOPS.hop_s
    context_max_s: Positive | None = None
    context_keep_s: Positive | None = None
    context_max_tokens: Count = _CONTEXT.max_tokens
    context_packed: bool = False
    crop: Literal["zones", "none"] = "zones"
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    relook_tokens: Annotated[int, Field(ge=0)] = _RING.tokens
    relook_frames: Annotated[int, Field(ge=1, le=256)] = _RING.most
    priority: Annotated[int, Field(ge=1, le=100)] = 1
    reconnect: ReconnectConfig = field(default_factory=ReconnectConfig)
    health: HealthConfig = field(default_factory=HealthConfig)

    def hop_rules(self) -> HopRules:
        """The rules by which the stream is cut into hops. Raises ValueError for a hop that does not hold whole
        samples."""
        return HopRules(self.sample_fps, self.hop_s)

    def context_rules(self, family: str = "") -> ContextRules:
        """Bounds of its context for an MLLM of a family; of a short span half is kept, if nothing else is said. Raises
        ValueError if it would keep more than it may hold."""
        max_s, keep_s = horizon_s(family)
        max_s = self.context_max_s or max_s
        keep_s = self.context_keep_s or min(keep_s, max_s / 2)
        return ContextRules(max_s, keep_s, self.context_max_tokens, self.context_packed)


@dataclass(frozen=True, slots=True, config=STRICT)
class Defaults(StreamPolicy):
    """The policy of every stream, and the allocator that serves them all; None: see `build.allocator_name`."""

    allocator: str | None = None


@dataclass(frozen=True, slots=True, config=STRICT)
class StreamConfig(StreamPolicy):
    """One camera: where it is, and where its policy differs from the defaults. `tags` select it for watches and keys;
    `zones` are parts of its picture that watches may be about; `display_name` and `site` are for people, and so is
    `live_url`, a media server's page of it that the page links to; one that is `paused` is not looked at. In a fleet it
    runs on nodes that have the tag `node`, None for any."""

    url: str = field(kw_only=True)
    display_name: Title = ""
    site: Title = ""
    live_url: Link = ""
    tags: tuple[Slug, ...] = ()
    zones: Regions = field(default_factory=dict)
    node: Slug | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True, config=STRICT)
class WatchConfig(RulesConfig):
    """One standing question. `streams` are slugs or `tag:TAG`, empty for all; with a `zone` it stands on those of them
    that have a zone of that name, and is about that part of the picture; one that is `paused` is not asked; the
    rest is explained in `types.WatchQuery` and `rules.Rules`."""

    question: str
    streams: tuple[Selector, ...] = ()
    zone: Slug | None = None
    open_at: Share = _WATCH.open_at
    clear_at: Share = _WATCH.clear_at
    confirm: tuple[Count, Annotated[int, Field(ge=1, le=1000)]] = _WATCH.confirm
    cooldown_s: NotNegative = _WATCH.cooldown_s
    every_s: NotNegative = _WATCH.every_s
    priority: Annotated[int, Field(ge=1, le=100)] = _WATCH.priority
    display_name: Title = ""
    paused: bool = False


@dataclass(frozen=True, slots=True, config=STRICT)
class EngineConfig:
    """The engine of the allocator `learned`: `path` of its engine.json or its folder, None for the one that comes
    along; `backend` computes it, `auto` is the best that works here."""

    path: Path | None = None
    backend: Literal["auto", "tensorrt", "onnxruntime", "torch"] = "auto"


@dataclass(frozen=True, slots=True, config=STRICT)
class MetricsConfig:
    """The address of the Prometheus metrics that `serve` offers; port 0 turns them off."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9108


@dataclass(frozen=True, slots=True, config=STRICT)
class SiteConfig:
    """Everything one process does. Streams, watches and sinks are keyed by slug. `armed` are the profiles that are
    armed where nobody has said otherwise."""

    defaults: Defaults = field(default_factory=Defaults)
    streams: dict[Slug, StreamConfig] = field(default_factory=dict)
    watches: dict[Slug, WatchConfig] = field(default_factory=dict)
    mllm: MLLMConfig = field(default_factory=YardConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    sinks: dict[Slug, SinkConfig] = field(
        default_factory=lambda: {"journal": JsonlConfig("jsonl:resadapt-events.jsonl")}
    )
    store: str = "sqlite:///resadapt.db"
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    api: ApiConfig = field(default_factory=ApiConfig)
    keep: KeepConfig = field(default_factory=KeepConfig)
    service: ServiceConfig = field(default_factory=ServiceConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)
    tracing: TracingConfig = field(default_factory=TracingConfig)
    gpu_budget: SharedBudgetConfig | None = None
    drain_s: Positive = 20.0
    armed: tuple[Slug, ...] = ()


_SITE = TypeAdapter(SiteConfig)


def load_site(path: Path) -> SiteConfig:
    """Read and validate a site file. Raises ConfigError naming the file, the key and what was expected."""
    raw = read_yaml(path)
    try:
        return parse_site(raw)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_yaml(path: Path) -> dict[str, object]:
    """A site file as plain mappings, not validated yet. Raises ConfigError if it is unreadable or no mapping."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), SiteLoader) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the site file {path}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not YAML{fault_of(error)}; put values with special characters in quotes"
        ) from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds a {type(raw).__name__}; expected a mapping of {key_names(SiteConfig)}")
    return raw


def parse_site(raw: Mapping[str, object]) -> SiteConfig:
    """A SiteConfig from plain mappings; per-stream values fall back to `defaults`. Raises ConfigError."""
    raw = dict(raw)
    if raw.get("mllm", "") is None:
        raise ConfigError(f"mllm is empty; expected {MLLM_CHOICES} (in quotes)")
    for key, only in (("mllm", "use"), ("engine", "path")):
        if isinstance(raw.get(key), str):
            raw[key] = {only: raw[key]}
    if isinstance(sinks := raw.get("sinks"), dict):
        raw["sinks"] = {slug: _sink(slug, sink) for slug, sink in sinks.items()}
    try:
        site = _SITE.validate_python(raw | {"streams": _with_defaults(raw)})
    except ValidationError as error:
        raise ConfigError("; ".join(explain(error, SiteConfig))) from error
    _check(site)
    return site


def _sink(slug: str, sink: object) -> object:
    """The mapping of a sink, which may be written as its URL alone."""
    mapping = {"url": sink} if isinstance(sink, str) else sink
    try:
        sink_kind(mapping)
    except ConfigError as error:
        raise ConfigError(f"sinks.{slug}.url: {error}") from None
    return mapping


def _with_defaults(raw: Mapping[str, object]) -> object:
    """Each stream's mapping laid over the defaults', one level deep for `budget`, `reconnect`, `health` and `masks`."""
    streams, defaults = raw.get("streams") or {}, raw.get("defaults") or {}
    if not isinstance(streams, dict) or not isinstance(defaults, dict):
        return streams
    shared = {key: value for key, value in defaults.items() if key != "allocator"}
    return {slug: overlay(shared, own) if isinstance(own, dict) else own for slug, own in streams.items()}


def overlay(base: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    """`own` laid over `base`; mappings in both are merged one level deep."""
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        merged[key] = below | value if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _check(site: SiteConfig) -> None:
    """Rules that span several values."""
    site.evidence.check(site.store)
    site.tracing.check()
    for slug, watch in site.watches.items():
        unknown = {name for name in watch.streams if not name.startswith("tag:")} - set(site.streams)
        if unknown:
            raise ConfigError(f"watches.{slug}.streams names {sorted(unknown)}; the streams are {sorted(site.streams)}")
        if watch.clear_at >= watch.open_at:
            raise ConfigError(
                f"watches.{slug}.clear_at is {watch.clear_at}; expected less than open_at {watch.open_at}"
            )
        if watch.confirm[0] > watch.confirm[1]:
            raise ConfigError(f"watches.{slug}.confirm is {watch.confirm}; expected [k, n] with k of at most n")
        _at(f"watches.{slug}.question", partial(clean_question, watch.question))
        if watch.zone is not None:
            _check_zone(site, slug, watch, watch.zone)
        _at(f"watches.{slug}", watch.rules)
        _at(f"watches.{slug}", partial(check_sink, watch, site.sinks))
    for slug, sink in site.sinks.items():
        _check_filter(f"sinks.{slug}.filter", sink.filter, site)
        if isinstance(sink, MqttConfig | NotifyConfig):
            try:
                sink.require_sound()
            except ConfigError as error:
                raise ConfigError(f"sinks.{slug}.{error}") from error
    for slug, stream in site.streams.items():
        burst, least = stream.budget.burst_tokens, 2 * site.mllm.min_tokens_per_segment
        if burst is not None and burst < least:
            raise ConfigError(
                f"streams.{slug}.budget.burst_tokens is {burst}, of which no frame could be shown; expected at least"
                f" {least}, twice mllm.min_tokens_per_segment"
            )
        _at(f"streams.{slug}", stream.hop_rules)
        _at(f"streams.{slug}", stream.context_rules)
        _at(f"streams.{slug}", stream.address_policy)


def _check_zone(site: SiteConfig, slug: str, watch: WatchConfig, name: str) -> None:
    longest = Zone(name, ((0.99, 0.99), (1.0, 0.99), (1.0, 1.0)))
    _at(f"watches.{slug}.question", partial(clean_question, f"{longest.words} {watch.question}"))
    selectors = frozenset(watch.streams)
    selected = {one: stream for one, stream in site.streams.items() if selects(selectors, one, stream.tags)}
    lacking = sorted(one for one in selected if one in watch.streams and name not in selected[one].zones)
    if lacking or (selected and not any(name in stream.zones for stream in selected.values())):
        where = lacking or sorted(selected)
        known = sorted({zone for one in where for zone in selected[one].zones})
        raise ConfigError(
            f"watches.{slug}.zone is {name!r}, which is no zone of {', '.join(where[:10])}; expected"
            f" {', '.join(known) or 'one that is drawn under `zones` of the stream'}"
        )


def _check_filter(where: str, wanted: FilterConfig, site: SiteConfig) -> None:
    named = {name for name in wanted.streams if not name.startswith("tag:")}
    for key, unknown, known in (
        ("streams", named - set(site.streams), sorted(site.streams)),
        ("watches", set(wanted.watches) - set(site.watches), sorted(site.watches)),
    ):
        if unknown:
            raise ConfigError(f"{where}.{key} names {sorted(unknown)}; the {key} are {known}")


def _at(where: str, build: Callable[[], object]) -> None:
    try:
        build()
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
