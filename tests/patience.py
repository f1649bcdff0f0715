"""Waiting in tests for what must come, and never for ever."""

import asyncio
from collections.abc import Callable

import pytest

BOUND_S = 60.0


async def until(holds: Callable[[], object], what: str) -> None:
    """Return as soon as it holds, letting others run meanwhile. Fails the test, by name, if that takes BOUND_S."""
    try:
        async with asyncio.timeout(BOUND_S):
            while not holds():
                await asyncio.sleep(0)
    except TimeoutError:
        pytest.fail(f"waited {BOUND_S:g} seconds in vain until {what}")
