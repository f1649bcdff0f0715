"""The machine that this process runs on, as far as the process may use it."""

import os
import sys
from pathlib import Path


def usable_cores() -> int:
    """The cores that this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int | None:
    """Bytes of memory that this process may take: those of the machine, or of its control group where that has fewer
    (Linux, cgroup v2). None where the system does not tell."""
    if sys.platform != "linux":
        return None
    bytes_ = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        text = limit.read_text().strip()
    except OSError:  # no control group, or an older kind
        return bytes_
    return min(bytes_, int(text)) if text.isdecimal() else bytes_
