"""Waiting for several things at once."""

import asyncio
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
