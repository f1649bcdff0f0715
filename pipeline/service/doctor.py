"""`resadapt check`: try each part of a site, and say of each in one line whether it works."""

import asyncio
import http.client
import json
from collections.abc import Awaitable
from contextlib import suppress

from prometheus_client import CollectorRegistry

from allocator_engine.check import Finding, condition_of
from pipeline.build import allocator_name, build_allocator, build_mllm, build_sink, engine_knows, engine_of
from pipeline.clock import Clock
from pipeline.config.mllm import MLLMConfig, YardConfig
from pipeline.config.sinks import SinkConfig
from pipeline.config.site import MetricsConfig, SiteConfig, StreamConfig
from pipeline.config.values import resolve_url
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError, ResadaptError
from pipeline.redact import redact_url
from pipeline.service.health import Health
from pipeline.service.port import Port
from pipeline.sources.probe import probe


async def examine(site: SiteConfig, clock: Clock) -> list[Finding]:
    """Findings on every stream, the MLLM, the allocator, every sink, the store and the port of the metrics. Streams are
    tried side by side."""
    parts: dict[str, Awaitable[str]] = {}
    for slug, stream in site.streams.items():
        parts[f"stream {slug}"] = asyncio.to_thread(_stream, stream, clock)
    parts["mllm"] = _mllm(site.mllm, clock)
    parts["allocator"] = asyncio.to_thread(_allocator, site, clock)
    for slug, sink in site.sinks.items():
        parts[f"sink {slug}"] = _sink(slug, sink, clock)
    parts["store"] = asyncio.to_thread(_store, site.store, clock)
    if site.metrics.port:
        parts["metrics"] = asyncio.to_thread(_port, site.metrics)
    # As values: whatever one of them fails with, the others are told all the same.
    outcomes = await asyncio.gather(*parts.values(), return_exceptions=True)
    return [_finding(what, outcome) for what, outcome in zip(parts, outcomes, strict=True)]


def _finding(what: str, outcome: str | BaseException) -> Finding:
    if isinstance(outcome, str):
        return Finding(what, True, outcome)
    if isinstance(outcome, ResadaptError):
        return Finding(what, False, str(outcome))
    return Finding(what, False, f"it cannot be tried, by a defect of this program: {type(outcome).__name__}: {outcome}")


def _stream(stream: StreamConfig, clock: Clock) -> str:
    url = resolve_url(stream.url)
    if url.startswith("synthetic:"):
        return "a generated scene"
    shown = redact_url(stream.url) if "${" in stream.url else None
    found = probe(url, clock=clock, read_s=2.0, settings=stream, shown=shown)
    rate = "one picture" if found.fps is None else f"{found.fps:g} fps"
    return f"{found.codec} {found.width}x{found.height} at {rate}, clock {found.clock}"


async def _mllm(config: MLLMConfig, clock: Clock) -> str:
    mllm = build_mllm(config, clock)
    try:
        await mllm.start()
        note = "" if mllm.info.meaningful else ", whose answers mean nothing"
        note += ", which knows its own demo world only" if isinstance(config, YardConfig) else ""
        note += "".join(f"; {one}" for one in mllm.info.notes)
        return f"{mllm.info.family}, {mllm.info.grid.cell_px} px per token{note}"
    finally:
        await mllm.close()


def _allocator(site: SiteConfig, clock: Clock) -> str:
    name = allocator_name(site)
    build_allocator(site, clock)
    if name != "learned":
        return name
    condition = condition_of(engine_of(site), site.engine.backend)
    return f"learned, by {condition}" + ("" if engine_knows(site) else "; not known to be trained for this MLLM")


async def _sink(slug: str, config: SinkConfig, clock: Clock) -> str:
    sink = build_sink(slug, config, clock)
    try:
        return await sink.check()
    finally:
        await sink.close()


def _store(url: str, clock: Clock) -> str:
    store = Store(resolve_url(url, whole_path=True), clock)
    try:
        owed = [f"{store.pending(sink)} to {sink}" for sink in store.sinks_owed()]
        return f"open, events still to deliver: {', '.join(owed) or 'none'}"
    finally:
        store.close()


def _port(address: MetricsConfig) -> str:
    try:
        Port(address, CollectorRegistry(), lambda: Health(True, True, "ended")).close()
    except ConfigError:
        if not _answers(address):
            raise
        return f"a running service offers its metrics on {address.host}:{address.port}"
    return f"can be offered on {address.host}:{address.port}"


def _answers(address: MetricsConfig) -> bool:
    """True if a service of this program has taken the port."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=2.0)
    with suppress(OSError, http.client.HTTPException, ValueError):
        connection.request("GET", "/health/live")
        return "phase" in json.loads(connection.getresponse().read(65_536))
    return False
