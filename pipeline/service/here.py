"""The machine that this process runs on, as far as the process may use it."""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux tells the limits of control groups (v2), and the group of this process."""


def usable_cores(groups: Path = GROUPS, own: Path = OWN_GROUP) -> int:
    """The cores that this process may run on, or fewer where its control group may not use them all the time."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    for quota, period in (limit for limit in _limits("cpu.max", groups, own) if len(limit) == 2):
        if quota.isdecimal() and period.isdecimal() and int(period):
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def usable_memory(groups: Path = GROUPS, own: Path = OWN_GROUP) -> int | None:
    """Bytes of memory that this process may take: those of the machine, or of its control group where that has fewer.
    None where the system does not tell."""
    if sys.platform != "linux":
        return None
    limits = (int(limit[0]) for limit in _limits("memory.max", groups, own) if limit and limit[0].isdecimal())
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits])


def _limits(name: str, groups: Path, own: Path) -> Iterator[list[str]]:
    """The words of a file of the process's control group, and of each group around it."""
    try:
        line = next((line for line in own.read_text().splitlines() if line.startswith("0::")), "0::/")
    except OSError:  # no control groups here
        return
    group = groups / line.removeprefix("0::").strip("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(groups) and (folder / name).is_file():
            yield (folder / name).read_text().split()
