"""Running a service before a person: until its streams have ended, or a signal stops it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline.cli.ending import Signals, Startable, started
from pipeline.cli.screen import Screen
from pipeline.clock import Clock
from pipeline.core.state import StreamRun
from pipeline.service.service import Service
from pipeline.sinks.jsonl import TextSink
from pipeline.waiting import stop


@dataclass(frozen=True, slots=True)
class Played:
    """The result of playing: the streams as they ended, by slug, and wall seconds: of playing, and of the MLLM's
    work."""

    runs: Mapping[str, StreamRun]
    wall_s: float
    mllm_s: float


class PageBeside(Protocol):
    """A page beside a run."""

    @property
    def serving(self) -> Startable:
        """The service with its page."""
        ...

    async def announce(self) -> None:
        """It is there."""
        ...

    def ended(self) -> None:
        """The streams have ended."""
        ...


async def play(
    service: Service, clock: Clock, output: Screen | TextSink | None = None, page: PageBeside | None = None
) -> Played:
    """Run a service until its streams have ended, a signal stops it, or nobody reads `output`; then drain it. With a
    page the end of the streams does not end it.

    A Screen shows how it goes on. Raises what ended the first stream, or the service, if it was an error, and Stopped
    if a signal came before the service had started.
    """
    signals = Signals(clock)
    async with started(page.serving if page else service, signals):
        began_s = clock.monotonic_s()
        if page:
            await page.announce()
        ended, broken = asyncio.create_task(service.finished()), asyncio.create_task(service.broken())
        ends = [asyncio.create_task(signals.stop.wait())]
        if output:
            ends.append(asyncio.create_task(output.broken.wait()))
        watched = [asyncio.create_task(output.follow(service, clock))] if isinstance(output, Screen) else []
        await asyncio.wait([ended, broken, *ends], return_when=asyncio.FIRST_COMPLETED)
        wall_s = clock.monotonic_s() - began_s
        if page and ended.done() and not ended.exception():
            page.ended()
            await asyncio.wait([broken, *ends], return_when=asyncio.FIRST_COMPLETED)
        runs = {slug: attachment.run for slug, attachment in service.attachments.items()}
        await stop([*ends, *watched])
    if broken.done():
        await broken
    await stop([broken])
    await ended
    return Played(runs, wall_s, service.metrics.mllm_worked_s())
