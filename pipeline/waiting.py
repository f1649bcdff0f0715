"""Waiting: for several things at once, and for how long after failures."""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from typing import TypeVar

_T = TypeVar("_T")


async def first(*waits: Coroutine[object, None, object]) -> None:
    """Return when the first of these is done, with the others cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop(tasks)


async def stop(tasks: Sequence[asyncio.Task[_T]]) -> None:
    """Cancel them and return when each has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def back_off_s(failures: int, first_s: float, longest_s: float) -> float:
    """Seconds to wait after this many failures in a row, at least 1."""
    whole_s = min(first_s * 2.0 ** min(failures - 1, 30), longest_s)
    return whole_s * random.uniform(0.5, 1.0)
