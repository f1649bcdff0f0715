"""Running a service before a person: until its streams have ended, or a signal stops it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.cli.ending import Signals, started
from pipeline.cli.screen import Screen
from pipeline.clock import Clock
from pipeline.core.state import StreamRun
from pipeline.service.service import Service
from pipeline.sinks.jsonl import TextSink
from pipeline.waiting import stop


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it: the streams as they ended, by slug, and wall seconds: of playing, and of the MLLM's work."""

    runs: Mapping[str, StreamRun]
    wall_s: float
    mllm_s: float


async def play(service: Service, clock: Clock, output: Screen | TextSink | None = None) -> Played:
    """Run a service until its streams have ended, a signal stops it, or nobody reads `output`; then drain it.

    A Screen shows how it goes on. Raises what ended the first stream, or the service, if it was an error, and Stopped
    if a signal came before the service had started.
    """
    signals = Signals(clock)
    async with started(service, signals):
        began_s = clock.monotonic_s()
        ended, broken = asyncio.create_task(service.finished()), asyncio.create_task(service.broken())
        ends = [asyncio.create_task(signals.stop.wait())]
        if output:
            ends.append(asyncio.create_task(output.broken.wait()))
        watched = [asyncio.create_task(output.follow(service, clock))] if isinstance(output, Screen) else []
        await asyncio.wait([ended, broken, *ends], return_when=asyncio.FIRST_COMPLETED)
        wall_s = clock.monotonic_s() - began_s
        runs = {slug: attachment.run for slug, attachment in service.attachments.items()}
        await stop([*ends, *watched])
    if broken.done():
        await broken
    await stop([broken])
    await ended
    return Played(runs, wall_s, service.metrics.mllm_worked_s())
