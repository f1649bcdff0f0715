"""Waiting: for several things at once, and for how long after failures."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import structlog

from pipeline.clock import Clock
from pipeline.redact import plain_traceback

log = structlog.get_logger()

RESTART_S = (1.0, 30.0)
"""First and longest pause before supervised work that ended in an unforeseen way begins again, in seconds."""

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


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header, given as seconds or as a date, at least 0; None for none that can be
    read. Source: RFC 9110 section 10.2.3."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
            seconds = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


async def supervise(
    name: str,
    work: Callable[[], Awaitable[None]],
    clock: Clock,
    on_crash: Callable[[Exception], None] = lambda error: None,
    passing: tuple[type[Exception], ...] = (),
) -> None:
    """Run `work()` until it returns. Whatever else ends it is logged, given to `on_crash`, and it begins again, for
    ever: after RESTART_S, longer after each crash that comes soon. Errors of `passing` are raised."""
    crashes, began_s = 0, clock.monotonic_s()
    while True:
        try:
            await work()
            return
        except passing:
            raise
        except Exception as error:  # noqa: BLE001 - background work must not end unheard
            if clock.monotonic_s() - began_s > 2 * RESTART_S[1]:
                crashes = 0
            crashes += 1
            log.error("task_crashed", task=name, crashes=crashes, traceback=plain_traceback(error))
            on_crash(error)
        await clock.sleep(back_off_s(crashes, *RESTART_S))
        began_s = clock.monotonic_s()
