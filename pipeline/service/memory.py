"""Memory of a process that runs for months: what is freed goes back to the system, whichever thread freed it."""

import ctypes
import sys

from pipeline.config.mllm import EmbeddedConfig, MLLMConfig

APART_BYTES = 16 * 1024
"""From this size on a block of memory has a mapping of its own: packed pictures are as small as that. glibc begins with
eight times as much, and raises it."""
APART_BLOCKS = 32 * 1024
"""So many blocks have one at most, half of what Linux allows a process; further ones come from the heaps."""
SPARE_BYTES = 8 * 1024
"""By so much more than is needed a heap grows, and so much it keeps free at its end: less than would be taken for a
block that is to lie apart."""
ARENAS = 4
"""Heaps that threads share; glibc makes up to eight a core, each of which keeps what was freed between other blocks."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -3, -4, -8


def keep_steady(mllm: MLLMConfig) -> None:
    """Give pictures, packed ones too, mappings of their own. Call it before threads start; without glibc nothing
    happens.

    Pictures of a context are freed half a minute after they were made, in another order and by another thread. From
    heaps they leave holes, which grew by some MiB a minute. A model that computes in this process frees and takes large
    blocks all the time, would be a quarter slower, and is left alone.
    """
    if isinstance(mllm, EmbeddedConfig) or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_ARENA_MAX, ARENAS)
    mallopt(_M_MMAP_THRESHOLD, APART_BYTES)
    mallopt(_M_MMAP_MAX, APART_BLOCKS)
    mallopt(_M_TOP_PAD, SPARE_BYTES)
    mallopt(_M_TRIM_THRESHOLD, SPARE_BYTES)
