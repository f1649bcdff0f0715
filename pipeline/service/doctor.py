"""`resadapt check`: try each part of a site, and say of each in one line whether it works."""

import asyncio
from collections.abc import Awaitable

from allocator_engine.check import Finding, condition_of
from pipeline.build import allocator_name, build_allocator, build_mllm, build_sink, engine_knows, engine_of
from pipeline.clock import Clock
from pipeline.config.mllm import MLLMConfig, YardConfig
from pipeline.config.sinks import SinkConfig
from pipeline.config.site import SiteConfig, StreamConfig
from pipeline.config.values import resolve
from pipeline.delivery.store import Store
from pipeline.errors import ResadaptError
from pipeline.sources.probe import probe


async def examine(site: SiteConfig, clock: Clock) -> list[Finding]:
    """Findings on every stream, the MLLM, the allocator, every sink and the store. Streams are tried side by side."""
    parts: dict[str, Awaitable[str]] = {}
    for slug, stream in site.streams.items():
        parts[f"stream {slug}"] = asyncio.to_thread(_stream, stream, clock)
    parts["mllm"] = _mllm(site.mllm, clock)
    parts["allocator"] = asyncio.to_thread(_allocator, site, clock)
    for slug, sink in site.sinks.items():
        parts[f"sink {slug}"] = _sink(slug, sink, clock)
    parts["store"] = asyncio.to_thread(_store, site.store, clock)
    return list(await asyncio.gather(*(_finding(what, trial) for what, trial in parts.items())))


async def _finding(what: str, trial: Awaitable[str]) -> Finding:
    try:
        return Finding(what, True, await trial)
    except ResadaptError as error:
        return Finding(what, False, str(error))


def _stream(stream: StreamConfig, clock: Clock) -> str:
    url = resolve(stream.url)
    if url.startswith("synthetic:"):
        return "a generated scene"
    found = probe(
        url, clock=clock, read_s=2.0, open_timeout_s=stream.open_timeout_s, rtsp_transport=stream.rtsp_transport,
        max_pixels=stream.max_pixels, video_track=stream.video_track,
    )  # fmt: skip
    return f"{found.codec} {found.width}x{found.height} at {found.fps:g} fps, clock {found.clock}"


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
    store = Store(resolve(url), clock)
    try:
        owed = [f"{store.pending(sink)} to {sink}" for sink in store.sinks_owed()]
        return f"open, events still to deliver: {', '.join(owed) or 'none'}"
    finally:
        store.close()
