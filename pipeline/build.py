"""The composition root: configuration in, objects out. What can be chosen by name is in a table here."""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from allocator_engine.errors import EngineError
from allocator_engine.fit import FitRules
from allocator_engine.manifest import FILE_NAME, SHIPPED, read, trained_for
from pipeline.allocators.base import Allocator
from pipeline.allocators.batcher import OnEngineCall
from pipeline.allocators.fixed import FixedAllocator
from pipeline.allocators.learned import LearnedAllocator, open_engine
from pipeline.allocators.motion import MotionAllocator
from pipeline.clock import Clock
from pipeline.config.api import KeepConfig
from pipeline.config.site import MLLMConfig, SinkConfig, SiteConfig, StreamConfig, WatchConfig, resolve
from pipeline.delivery.history import Keep
from pipeline.errors import ConfigError, EngineMismatch
from pipeline.mllm.base import MLLM, MLLMInfo
from pipeline.mllm.null import NullMLLM
from pipeline.redact import redact_mllm, redact_url, splits_a_password
from pipeline.sinks.base import Sink
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.kafka import KafkaSink
from pipeline.sinks.kafka_address import KafkaSecurity, parse_kafka_url
from pipeline.sinks.webhook import WebhookSink
from pipeline.sources.av import AvSource
from pipeline.sources.base import Source
from pipeline.sources.synthetic import SyntheticSource
from pipeline.types import WatchQuery

log = structlog.get_logger()


def build_source(slug: str, stream: StreamConfig, clock: Clock, start_s: float) -> Source:
    """The source of a stream's URL, which begins (or goes on) at `start_s` stream seconds."""
    url = resolve(stream.url)
    if url.startswith("synthetic:"):
        return SyntheticSource(url, clock=clock, realtime=stream.realtime, start_s=start_s)
    return AvSource(
        url,
        name=slug,
        clock=clock,
        realtime=stream.realtime,
        hwaccel=stream.hwaccel,
        stall_s=stream.stall_s,
        open_timeout_s=stream.open_timeout_s,
        ring_frames=stream.ring_frames,
        on_corrupt=stream.on_corrupt,
        rtsp_transport=stream.rtsp_transport,
        start_s=start_s,
    )


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
    )


def build_keep(keep: KeepConfig) -> Keep:
    """How much of the past a store keeps, of a configuration in days and MiB."""
    return Keep(
        keep.events_days * 86_400, keep.events_mib * 2**20, keep.answers_days * 86_400, keep.answers_mib * 2**20
    )


YARD = Path(__file__).parents[1] / "samples" / "yard" / "mllm"
"""The shipped checkpoint: in a checkout and installed it lies in the same place beside this package."""

MakeAllocator = Callable[[FitRules, OnEngineCall], Allocator]
"""Makes an allocator once the MLLM's token grid is known; it tells of its engine calls, if it has an engine."""


def build_allocator(site: SiteConfig, clock: Clock) -> MakeAllocator:
    """How to make a site's allocator; its engine, if it has one, is loaded already.

    Raises ConfigError listing the known allocators or saying what is missing, and EngineMismatch for an engine that
    does not fit this version or this machine.
    """
    allocators: dict[str, Callable[[SiteConfig, Clock], MakeAllocator]] = {
        "fixed": lambda _site, _clock: lambda rules, _told: FixedAllocator(rules),
        "motion": lambda _site, _clock: lambda rules, _told: MotionAllocator(rules),
        "learned": _learned,
    }
    name = allocator_name(site)
    if name not in allocators:
        raise ConfigError(f"defaults.allocator is {name!r}; expected one of {', '.join(allocators)}")
    if site.engine.path and name != "learned":
        log.warning("engine_not_used", engine=str(site.engine.path), allocator=name)
    return allocators[name](site, clock)


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
    try:
        manifest = read(engine_of(site))
    except EngineError as error:
        raise EngineMismatch(str(error)) from error
    if site.mllm.use == "yard":
        return trained_for(manifest, YARD / "model.safetensors")
    return manifest.trained_on.get("mllm_name") == site.mllm.use


def _learned(site: SiteConfig, clock: Clock) -> MakeAllocator:
    engine, embed = open_engine(engine_of(site), site.engine.backend)
    if not engine_knows(site):
        log.warning("engine_not_known_to_be_for_this_mllm", engine=str(engine_of(site)))
    return lambda rules, told: LearnedAllocator(engine, rules, embed, clock, told=told)


MLLM_CHOICES = "yard, transformers:PATH_OR_NAME, vllm:PATH_OR_NAME, openai:URL#MODEL, tiny or null"


def build_mllm(config: MLLMConfig, clock: Clock) -> MLLM:
    """The backend that `mllm.use` names, not started yet. Raises ConfigError listing the known ones."""
    backends: dict[str, Callable[[str, MLLMConfig, Clock], MLLM]] = {
        "yard": _yard,
        "transformers": _transformers,
        "vllm": _vllm,
        "openai": _openai,
        "tiny": _tiny,
        "null": lambda _model, _config, _clock: NullMLLM(),
    }
    kind, _, model = config.use.partition(":")
    if kind not in backends:
        raise ConfigError(f"mllm.use is {redact_mllm(config.use)!r}; expected {MLLM_CHOICES}")
    return backends[kind](model, config, clock)


def _transformers(model: str, config: MLLMConfig, clock: Clock) -> MLLM:
    if not model:
        raise ConfigError("mllm.use is 'transformers:'; expected a folder or a hub name behind the colon")
    from pipeline.mllm.transformers.backend import TransformersMLLM  # loads torch, which the others do not need

    return TransformersMLLM(
        model,
        name=config.use,
        device=config.device,
        dtype=config.dtype,
        threads=config.threads,
        timeout_s=config.timeout_s,
        max_queue=config.max_queue,
        max_streams=config.max_streams,
        max_cache_tokens=config.max_cache_tokens,
        max_prompt_tokens=config.max_prompt_tokens,
        clock=clock,
    )


def _vllm(model: str, config: MLLMConfig, clock: Clock) -> MLLM:
    if not model:
        raise ConfigError("mllm.use is 'vllm:'; expected a folder or a hub name behind the colon")
    from pipeline.mllm.vllm.backend import VllmMLLM

    return VllmMLLM(
        model,
        name=config.use,
        dtype=config.dtype,
        timeout_s=config.timeout_s,
        max_queue=config.max_queue,
        max_streams=config.max_streams,
        kv_cache_gib=config.kv_cache_gib,
        picture_cache_gib=config.picture_cache_gib,
        gpu_memory=config.gpu_memory,
        max_prompt_tokens=config.max_prompt_tokens,
        clock=clock,
    )


def _openai(address: str, config: MLLMConfig, clock: Clock) -> MLLM:
    url, _, model = address.partition("#")
    if splits_a_password(model):
        raise ConfigError("mllm.use has a # in its user name or password; write it as %23")
    if not url.startswith(("http://", "https://")) or not model:
        raise ConfigError(f"mllm.use is {redact_mllm(config.use)!r}; expected openai:URL#MODEL")
    from pipeline.mllm.openai.backend import OpenAIMLLM

    return OpenAIMLLM(
        url,
        model,
        name=f"openai:{redact_url(url)}#{model}",
        family=config.family,
        api_key=resolve(config.api_key) if config.api_key else None,
        timeout_s=config.timeout_s,
        max_queue=config.max_queue,
        max_streams=config.max_streams,
        max_cache_tokens=config.max_cache_tokens,
        max_prompt_tokens=config.max_prompt_tokens,
        clock=clock,
    )


def _yard(model: str, config: MLLMConfig, clock: Clock) -> MLLM:
    if model:
        raise ConfigError(f"mllm.use is {redact_mllm(config.use)!r}; expected yard alone, or transformers:PATH_OR_NAME")
    if not any(YARD.glob("*.safetensors")):
        raise ConfigError(
            f"the MLLM yard has no weights in {YARD}; make them with python -m samples.yard.train --work DIR --out"
            f" {YARD}, or name another: transformers:PATH_OR_NAME"
        )
    return _transformers(str(YARD), config, clock)


def _tiny(model: str, config: MLLMConfig, clock: Clock) -> MLLM:
    from pipeline.mllm.transformers.tiny import make_tiny

    folder = Path(tempfile.mkdtemp(prefix="resadapt-tiny-"))
    try:
        make_tiny(folder, family=model or "qwen3_vl")
    except ConfigError:
        shutil.rmtree(folder)
        raise
    mllm = _transformers(str(folder), replace(config, use="tiny"), clock)
    weakref.finalize(mllm, shutil.rmtree, folder, ignore_errors=True)
    return mllm


def build_fit_rules(config: MLLMConfig, info: MLLMInfo) -> FitRules:
    """How frames are fitted for a started MLLM: two to a segment, unless it takes images only or the site says
    otherwise. Raises ConfigError where the site wants what the MLLM cannot do."""
    frames = config.frames_per_segment or info.max_frames_per_segment
    if frames > info.max_frames_per_segment:
        raise ConfigError(
            f"mllm.frames_per_segment is {frames}, but {info.name} takes images only; set it to 1 or leave it out"
        )
    return FitRules(info.grid, frames, config.min_tokens_per_segment, config.max_tokens_per_segment)


def build_sink(slug: str, config: SinkConfig, clock: Clock) -> Sink:
    """The sink of a URL. Raises ConfigError naming the known schemes."""
    url = resolve(config.url)
    expected = "expected jsonl:PATH, kafka://host:port/topic or http(s)://..."
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        raise ConfigError(f"sinks.{slug}.url is not a URL; {expected}") from None
    if scheme == "jsonl":
        return JsonlSink(Path(url.removeprefix("jsonl:")), name=slug)
    if scheme == "kafka":
        bootstrap, topic = parse_kafka_url(url)
        return KafkaSink(bootstrap, topic, name=slug, security=_kafka_security(config))
    if scheme in ("http", "https"):
        if config.secret is None:
            raise ConfigError(
                f"sinks.{slug}.secret is missing; a webhook signs its requests with it: give one in a site file"
            )
        return WebhookSink(url, clock, secret=resolve(config.secret), name=slug)
    # The rest of it may hold a token; without //, what is read as the scheme may be a user's name.
    named = f"has the scheme {scheme!r}" if "://" in url else "has no scheme that is known"
    raise ConfigError(f"sinks.{slug}.url {named}; {expected}")


def _kafka_security(config: SinkConfig) -> KafkaSecurity:
    security = config.security
    return KafkaSecurity(
        protocol=security.protocol,
        mechanism=security.mechanism,
        username=resolve(security.username) if security.username else None,
        password=resolve(security.password) if security.password else None,
        ca_file=security.ca_file,
        cert_file=security.cert_file,
        key_file=security.key_file,
        check_hostname=security.check_hostname,
    )
