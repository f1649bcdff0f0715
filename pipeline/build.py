"""The composition root: configuration in, objects out. What can be chosen by name is in a table here."""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import astuple, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from allocator_engine.errors import not_installed
from allocator_engine.fit import FitRules
from allocator_engine.manifest import FILE_NAME, SHIPPED, read, trained_for
from pipeline.allocators.base import Allocator
from pipeline.allocators.batcher import OnEngineCall
from pipeline.allocators.fixed import FixedAllocator
from pipeline.allocators.learned import LearnedAllocator, open_engine
from pipeline.allocators.motion import MotionAllocator
from pipeline.clock import Clock
from pipeline.config.api import KeepConfig
from pipeline.config.messages import MqttConfig, NotifyConfig
from pipeline.config.mllm import (
    DetectorConfig,
    EmbeddedConfig,
    MLLMConfig,
    NullConfig,
    OpenAIConfig,
    TinyConfig,
    TransformersConfig,
    VllmConfig,
    YardConfig,
)
from pipeline.config.sinks import JsonlConfig, KafkaConfig, SinkConfig, WebhookConfig
from pipeline.config.site import SiteConfig, StreamConfig, WatchConfig
from pipeline.config.tracing import TracingConfig
from pipeline.config.values import resolve, resolve_url
from pipeline.delivery.history import Keep
from pipeline.errors import ConfigError
from pipeline.mllm.base import MLLM, MLLMInfo
from pipeline.mllm.null import NullMLLM
from pipeline.redact import redact_mllm, redact_url, remember
from pipeline.sinks.base import PictureOf, Sink
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.kafka_address import parse_kafka_url
from pipeline.sinks.renewed import RenewedSink
from pipeline.sinks.webhook import WebhookSink
from pipeline.sources.av import AvSource
from pipeline.sources.base import Source
from pipeline.sources.packets import PacketRing
from pipeline.sources.synthetic import SyntheticSource
from pipeline.types import WatchQuery
from pipeline.urls import Url, parse_url

if TYPE_CHECKING:
    from pipeline.tracing.otel import OtelSpans

log = structlog.get_logger()


def build_source(
    slug: str, stream: StreamConfig, clock: Clock, start_s: float, packets: PacketRing | None = None
) -> Source:
    """The source of a stream's URL, which begins (or goes on) at `start_s` stream seconds. `packets` keeps its newest
    packets, where it has any."""
    url = resolve_url(stream.url)
    if url.startswith("synthetic:"):
        return SyntheticSource(url, stream, clock=clock, start_s=start_s)
    shown = redact_url(stream.url) if "${" in stream.url else None
    return AvSource(url, stream, name=slug, clock=clock, start_s=start_s, shown=shown, packets=packets)


def build_watch(slug: str, watch: WatchConfig) -> WatchQuery:
    """The query of a configured watch."""
    return WatchQuery(
        slug,
        watch.question,
        watch.open_at,
        watch.clear_at,
        watch.confirm,
        watch.cooldown_s,
        watch.priority,
        watch.every_s,
        watch.rules(),
    )


def build_keep(keep: KeepConfig) -> Keep:
    """The bounds of a store's history, from a configuration in days and MiB."""
    return Keep(
        keep.events_days * 86_400, keep.events_mib * 2**20, keep.answers_days * 86_400, keep.answers_mib * 2**20
    )


YARD = Path(__file__).parents[1] / "samples" / "yard" / "mllm"
"""The shipped checkpoint: in a checkout and installed it lies in the same place beside this package."""

ALLOCATORS = ("fixed", "motion", "learned")

MakeAllocator = Callable[[FitRules, OnEngineCall], Allocator]
"""Makes an allocator once the MLLM's token grid is known; it tells of its engine calls, if it has an engine."""


def build_allocator(site: SiteConfig, clock: Clock) -> MakeAllocator:
    """A maker of a site's allocator; its engine, if it has one, is loaded already.

    Raises ConfigError listing the known allocators or saying what is missing, and EngineMismatch for an engine that
    does not fit this version or this machine.
    """
    allocators: dict[str, Callable[[SiteConfig, Clock], MakeAllocator]] = {
        "fixed": lambda _site, _clock: lambda rules, _on_call: FixedAllocator(rules),
        "motion": lambda _site, _clock: lambda rules, _on_call: MotionAllocator(rules),
        "learned": _learned,
    }
    assert tuple(allocators) == ALLOCATORS
    name = _known_allocator(site)
    if site.engine.path and name != "learned":
        log.warning("engine_not_used", engine=str(site.engine.path), allocator=name)
    return allocators[name](site, clock)


def check_names(site: SiteConfig, clock: Clock) -> None:
    """Refuse what can be told from its name alone, before anything is loaded. Raises ConfigError for an unknown
    allocator and for a stream's URL that cannot be read."""
    _known_allocator(site)
    for slug, stream in site.streams.items():
        try:
            build_source(slug, stream, clock, 0.0)
        except ConfigError as error:
            raise ConfigError(f"streams.{slug}: {error}") from error


def _known_allocator(site: SiteConfig) -> str:
    name = allocator_name(site)
    if name not in ALLOCATORS:
        raise ConfigError(f"defaults.allocator is {name!r}; expected one of {', '.join(ALLOCATORS)}")
    return name


def allocator_name(site: SiteConfig) -> str:
    """The allocator that a site names; else `learned` if it names an engine, or if the shipped one was trained
    for its MLLM; else `motion`."""
    if site.defaults.allocator or site.engine.path:
        return site.defaults.allocator or "learned"
    shipped = (SHIPPED / FILE_NAME).exists()
    return "learned" if shipped and engine_knows(site) else "motion"


def engine_of(site: SiteConfig) -> Path:
    """Folder or manifest of a site's engine. Raises ConfigError where it names none and none is shipped."""
    if site.engine.path is None and not (SHIPPED / FILE_NAME).exists():
        raise ConfigError(
            "no engine is shipped with this version; name one with `engine: PATH` or --engine PATH, or choose the"
            " allocator motion"
        )
    return site.engine.path or SHIPPED


def engine_knows(site: SiteConfig) -> bool:
    """True if a site's engine was trained for its MLLM, as far as can be known: the yard's by its weights, others by
    name."""
    manifest = read(engine_of(site))
    if site.mllm.use == "yard":
        return trained_for(manifest, YARD / "model.safetensors")
    return manifest.trained_on.get("mllm_name") == site.mllm.use


def _learned(site: SiteConfig, clock: Clock) -> MakeAllocator:
    engine, embed = open_engine(engine_of(site), site.engine.backend)
    if not engine_knows(site):
        log.warning("engine_not_known_to_be_for_this_mllm", engine=str(engine_of(site)))
    return lambda rules, on_call: LearnedAllocator(engine, rules, embed, clock, on_call=on_call)


def build_mllm(config: MLLMConfig, clock: Clock) -> MLLM:
    """The backend of a kind, not started yet. Raises ConfigError for one that lacks something."""
    match config:
        case YardConfig():
            return _yard(config, clock)
        case TransformersConfig():
            return _embedded(_named(config), config, clock)
        case VllmConfig():
            return _vllm(config, clock)
        case OpenAIConfig():
            return _openai(config, clock)
        case DetectorConfig():
            return _detector(config, clock)
        case TinyConfig():
            return _tiny(config, clock)
        case NullConfig():
            return NullMLLM()


def weight_files(config: MLLMConfig) -> list[Path]:
    """The files with the weights of an MLLM that lies in a folder here, in order; none of another."""
    match config:
        case YardConfig():
            folder, ending = YARD, "*.safetensors"
        case TransformersConfig() | VllmConfig():
            folder, ending = Path(config.use.partition(":")[2]), "*.safetensors"
        case DetectorConfig():
            folder, ending = Path(config.use.partition(":")[2]), "*.bin"
        case _:
            return []
    return sorted(folder.glob(ending))


def _named(config: TransformersConfig | VllmConfig | DetectorConfig) -> str:
    kind, _, model = config.use.partition(":")
    if not model:
        raise ConfigError(f"mllm.use is '{kind}:'; expected a folder or a hub name behind the colon")
    return model


def _detector(config: DetectorConfig, clock: Clock) -> MLLM:
    _named(config)
    from pipeline.mllm.detector.backend import DetectorMLLM

    return DetectorMLLM(config, clock)


def _require_embedded(use: str) -> None:
    """Raise ConfigError where a package in which the MLLM `use` computes is not installed."""
    for package in ("torch", "transformers"):
        if not _is_installed(package):
            raise ConfigError(
                f"mllm.use is {redact_mllm(use)!r}, which computes in this process, and"
                f" {not_installed(package, 'embedded')}; or name a server: openai:URL#MODEL"
            )


def _embedded(checkpoint: str, config: EmbeddedConfig, clock: Clock) -> MLLM:
    _require_embedded(config.use)
    from pipeline.mllm.transformers.backend import TransformersMLLM  # loads torch, which the others do not need

    return TransformersMLLM(checkpoint, config, clock)


def _vllm(config: VllmConfig, clock: Clock) -> MLLM:
    from pipeline.mllm.vllm.backend import VllmMLLM

    return VllmMLLM(_named(config), config, clock)


def _openai(config: OpenAIConfig, clock: Clock) -> MLLM:
    url = _server_of(resolve_url(config.use.removeprefix("openai:")), "the address in mllm.use", "openai:URL#MODEL")
    model = url.rest.partition("#")[2]
    if url.scheme not in ("http", "https") or not url.host or not model:
        raise ConfigError(f"mllm.use is {redact_mllm(config.use)!r}; expected openai:URL#MODEL")
    others = [_further_server(address) for address in config.servers]
    from pipeline.mllm.openai.backend import OpenAIMLLM

    settings = replace(config, api_key=resolve(config.api_key) if config.api_key else None)
    bare = replace(url, rest=url.rest.partition("#")[0]).text
    if not others:
        return OpenAIMLLM(bare, model, settings, clock)
    from pipeline.mllm.openai.routed import RoutedMLLM

    return RoutedMLLM([OpenAIMLLM(address, model, settings, clock) for address in (bare, *others)], clock)


def _further_server(address: str) -> str:
    """The address of one of `mllm.servers`. Raises ConfigError."""
    expected = "http://HOST:PORT/v1; the model is that of mllm.use"
    url = _server_of(resolve_url(address), "an address of mllm.servers", expected)
    if url.scheme not in ("http", "https") or not url.host or "#" in url.rest:
        raise ConfigError(f"mllm.servers has {redact_url(address)!r}; expected {expected}")
    return url.text


def _server_of(url: str, where: str, expected: str) -> Url:
    """The parts of an MLLM server's URL; its password is hidden in every text from now on. Raises ConfigError."""
    try:
        parts = parse_url(url)
    except ConfigError as error:
        raise ConfigError(f"{where} cannot be read; expected {expected}: {error}") from None
    if parts.password is not None:
        remember(parts.password)
    return parts


def _yard(config: YardConfig, clock: Clock) -> MLLM:
    if config.use != "yard":
        raise ConfigError(f"mllm.use is {redact_mllm(config.use)!r}; expected yard alone, or transformers:PATH_OR_NAME")
    if not any(YARD.glob("*.safetensors")):
        raise ConfigError(
            f"the MLLM yard has no weights in {YARD}; make them in a checkout with python -m samples.yard.train"
            f" --work DIR --out {YARD}, or name another: transformers:PATH_OR_NAME"
        )
    return _embedded(str(YARD), config, clock)


def _tiny(config: TinyConfig, clock: Clock) -> MLLM:
    _require_embedded(config.use)
    from pipeline.mllm.transformers.tiny import make_tiny

    folder = Path(tempfile.mkdtemp(prefix="resadapt-tiny-"))
    try:
        make_tiny(folder, family=config.use.partition(":")[2] or "qwen3_vl")
    except ConfigError:
        shutil.rmtree(folder)
        raise
    mllm = _embedded(str(folder), config, clock)
    weakref.finalize(mllm, shutil.rmtree, folder, ignore_errors=True)
    return mllm


def build_fit_rules(config: MLLMConfig, info: MLLMInfo) -> FitRules:
    """The rules of fitting for a started MLLM: two frames to a segment, unless it takes images only or the site says
    otherwise. Raises ConfigError where the site wants what the MLLM cannot do."""
    frames = config.frames_per_segment or info.max_frames_per_segment
    if frames > info.max_frames_per_segment:
        raise ConfigError(
            f"mllm.frames_per_segment is {frames}, but {info.name} takes images only; set it to 1 or leave it out"
        )
    return FitRules(info.grid, frames, config.min_tokens_per_segment, config.max_tokens_per_segment)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def require_installed(package: str, extra: str, what: str) -> None:
    """Raise ConfigError where a package of an extra is not installed."""
    if not _is_installed(package):
        raise ConfigError(f"{what}, and {not_installed(package, extra)}")


def build_tracing(config: TracingConfig, clock: Clock, instance: str | None = None) -> "OtelSpans | None":
    """The receiver of the spans of a site's traces; None where it names no receiver. `instance` names this process
    among several of a fleet. Raises ConfigError.

    A receiver that only the environment names, as platforms set it for everything that runs on them, is left out with a
    warning where the packages are not installed.
    """
    address = config.address()
    if address is None:
        return None
    if config.endpoint is None and not _is_installed(_OTLP):
        log.warning("traces_are_off", reason=not_installed(_OTLP, "otel"))
        return None
    require_installed(_OTLP, "otel", "tracing.endpoint names a receiver of traces")
    from pipeline.tracing.otel import OtelSpans  # loads its SDK, which is not needed without

    return OtelSpans(address, config.resolved_headers(), clock, instance)


_OTLP = "opentelemetry.exporter.otlp.proto.http"


def build_sink(slug: str, config: SinkConfig, clock: Clock, picture_of: PictureOf = lambda event: None) -> Sink:
    """The sink of a kind, its secrets read again when it fails; messages to people have the picture of `picture_of`.
    Raises ConfigError for a URL that cannot be read, or credentials that cannot work."""
    if "${" not in repr(astuple(config)):
        return _sink(slug, clock, picture_of, config)
    return RenewedSink(partial(_resolved, config), partial(_sink, slug, clock, picture_of))


def _resolved(config: SinkConfig) -> SinkConfig:
    config = replace(config, url=resolve_url(config.url))
    if isinstance(config, WebhookConfig) and config.secret:
        return replace(config, secret=resolve(config.secret))
    if isinstance(config, MqttConfig):
        user, password = (resolve(text) if text else None for text in (config.username, config.password))
        return replace(config, username=user, password=password)
    if isinstance(config, KafkaConfig):
        security = config.security
        user, password = (resolve(text) if text else None for text in (security.username, security.password))
        return replace(config, security=replace(security, username=user, password=password))
    return config


def _sink(slug: str, clock: Clock, picture_of: PictureOf, config: SinkConfig) -> Sink:
    match config:
        case JsonlConfig():
            return JsonlSink(config.url.partition(":")[2], name=slug)
        case KafkaConfig():
            bootstrap, topic = parse_kafka_url(config.url)
            from pipeline.sinks.kafka import KafkaSink  # loads its client, which the others do not need

            return KafkaSink(bootstrap, topic, name=slug, security=config.security, clock=clock)
        case WebhookConfig(secret=None, signed=True):
            raise ConfigError(
                f"sinks.{slug}.secret is missing; a webhook signs its requests with it: give one, or signed: false for"
                " a receiver that needs none"
            )
        case WebhookConfig():
            return WebhookSink(config.address, clock, secret=config.secret, name=slug)
        case MqttConfig():
            require_installed("aiomqtt", "mqtt", f"sinks.{slug} is an MQTT broker")
            from pipeline.sinks.mqtt import MqttSink

            return MqttSink(config, clock, name=slug)
        case NotifyConfig():
            require_installed("apprise", "notify", f"sinks.{slug} sends messages to people")
            from pipeline.sinks.notify import NotifySink

            return NotifySink(config, name=slug, picture_of=picture_of)
