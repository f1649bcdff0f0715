"""Running a service before a person: until its streams have ended, or a signal stops it."""

import asyncio
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.cli.screen import Screen
from pipeline.clock import Clock
from pipeline.core.state import StreamRun
from pipeline.service.service import Service
from pipeline.sinks.jsonl import TextSink


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it: the streams as they ended, by slug, and wall seconds: of playing, and of the MLLM's work."""

    runs: Mapping[str, StreamRun]
    wall_s: float
    mllm_s: float


async def play(service: Service, clock: Clock, screen: Screen | None = None, lines: TextSink | None = None) -> Played:
    """Run a service until its streams have ended, a signal stops it, or nobody reads `lines`; then drain it.

    `screen` shows how it goes on. Raises what ended the first stream, if it was an error.
    """
    async with service:
        began_s = clock.monotonic_s()
        ended = asyncio.create_task(service.finished())
        ends = [asyncio.create_task(stop_signal().wait())]
        if lines:
            ends.append(asyncio.create_task(lines.broken.wait()))
        watched = [asyncio.create_task(screen.follow(service, clock))] if screen else []
        await asyncio.wait([ended, *ends], return_when=asyncio.FIRST_COMPLETED)
        wall_s = clock.monotonic_s() - began_s
        runs = {slug: attachment.run for slug, attachment in service.attachments.items()}
        for task in (*ends, *watched):
            task.cancel()
    await ended
    return Played(runs, wall_s, service.metrics.mllm_worked_s())


def stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second SIGINT interrupts as usual."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def first(signum: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, first, signum)
    return stop
