"""A sink tried: whether it could take events, and an event that only shows that it does."""

import asyncio
from datetime import datetime
from uuid import uuid4

from pipeline.clock import Clock
from pipeline.errors import SinkUnavailable
from pipeline.sinks.base import Sink
from pipeline.types import Event
from pipeline.waiting import first

CHECK_S = 15.0
"""How long a sink may take to say whether it could take events."""


async def checked(sink: Sink, clock: Clock) -> str:
    """The sink's description of its own check. Raises what the check raises, and SinkUnavailable for a sink that does
    not answer in time."""
    checking = asyncio.ensure_future(sink.check())
    await first(_ended(checking), clock.sleep(CHECK_S))
    if not checking.done():
        checking.cancel()
        raise SinkUnavailable(f"it did not answer within {CHECK_S:g} s")
    return checking.result()


def trial_event(sink: str, actor: str, now: datetime) -> Event:
    """An event that tries a sink and means nothing else."""
    reason = f"a test of the sink {sink}, asked for by {actor}"
    return Event(str(uuid4()), "sink.test", sink, now, {"sink": sink, "reason": reason, "severity": "info"})


async def _ended(task: asyncio.Future[str]) -> None:
    await asyncio.wait({task})
