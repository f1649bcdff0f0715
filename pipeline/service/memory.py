"""Memory of a process that runs for months: what is freed goes back to the system, whichever thread freed it."""

import asyncio
import ctypes
import sys
from collections.abc import Callable

from pipeline.clock import Clock
from pipeline.config.mllm import EmbeddedConfig, MLLMConfig

APART_BYTES = 128 * 1024
"""From this size on a block of memory has a mapping of its own: glibc's first value, which it raises otherwise."""
ARENAS = 4
"""Heaps that threads share; glibc makes up to eight a core, each of which keeps what was freed between other blocks."""

TRIM_S = 60.0
"""Seconds from one time that freed memory is given back to the next."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_steady(mllm: MLLMConfig) -> None:
    """Give pictures mappings of their own. Call it before threads start; without glibc nothing happens.

    Pictures of a context are freed half a minute after they were made, in another order and by another thread. From
    heaps they leave holes, which grew by some MiB a minute. A model that computes in this process frees and takes large
    blocks all the time, would be a quarter slower, and is left alone.
    """
    mallopt = None if isinstance(mllm, EmbeddedConfig) else _of_glibc("mallopt")
    if mallopt is None:
        return
    mallopt(_M_ARENA_MAX, ARENAS)
    mallopt(_M_MMAP_THRESHOLD, APART_BYTES)
    mallopt(_M_TRIM_THRESHOLD, APART_BYTES)


async def keep_trimmed(mllm: MLLMConfig, clock: Clock) -> None:
    """Give back what is free between other blocks, every TRIM_S, for ever. It takes some milliseconds.

    Smaller blocks, such as pictures that are packed, still leave holes: of 16 cameras some 20 MiB in 40 seconds.
    """
    if isinstance(mllm, EmbeddedConfig):
        return
    while True:
        await clock.sleep(TRIM_S)
        await asyncio.to_thread(trim)


def trim() -> None:
    """Give whole pages that are free in any heap back to the system; without glibc nothing happens."""
    if found := _of_glibc("malloc_trim"):
        found(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
