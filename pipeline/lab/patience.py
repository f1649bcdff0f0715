"""Patience with an MLLM that has too much to do, for callers that nobody waits for."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pipeline.clock import Clock
from pipeline.errors import MLLMOverloaded
from pipeline.waiting import back_off_s

T = TypeVar("T")

TRIES = 5
"""The number of times that an MLLM with too much to do is asked; its own client has asked a server again before
that."""

PATIENCE_S = 600.0
"""Least time that an answer may take in the lab, where nobody waits for it."""


async def patiently(ask: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """The result of `ask` in the end. Raises MLLMOverloaded where the last try does, and at once whatever else a try
    raises."""
    for failures in range(1, TRIES):
        try:
            return await ask()
        except MLLMOverloaded:
            await clock.sleep(back_off_s(failures, 1.0, 30.0))
    return await ask()
