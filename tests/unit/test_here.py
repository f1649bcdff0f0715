"""Limits of control groups, read from files as Linux has them."""

import os
from pathlib import Path

import pytest

from pipeline.service.here import usable_cores, usable_memory

CORES = len(os.sched_getaffinity(0))
MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def groups(folder: Path, name: str, inner: str | None, outer: str | None) -> tuple[Path, Path]:
    """The groups of a unit in a slice, each with a limit or none; and the file that names the unit's group."""
    unit = folder / "groups/a.slice/b.service"
    unit.mkdir(parents=True)
    for group, limit in ((unit, inner), (unit.parent, outer)):
        if limit is not None:
            (group / name).write_text(limit)
    (folder / "own").write_text("1:name=systemd:/x\n0::/a.slice/b.service\n")
    return folder / "groups", folder / "own"


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("9999\n", "max\n", 9999),
        ("max\n", "8888\n", 8888),
        ("9999\n", "8888\n", 8888),
        ("max\n", None, MACHINE),
        (None, None, MACHINE),
        (f"{2**60}\n", None, MACHINE),
        ("", None, MACHINE),
    ],
)
def test_the_memory_is_the_machines_or_less_where_a_control_group_has_less(tmp_path, inner, outer, expected):
    assert usable_memory(*groups(tmp_path, "memory.max", inner, outer)) == expected


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("50000 100000\n", None, 1),
        ("max 100000\n", "100000 100000\n", 1),
        ("150000 100000\n", None, min(2, CORES)),
        ("max 100000\n", None, CORES),
        (None, None, CORES),
        ("9000000 100000\n", None, min(90, CORES)),
        ("100000\n", None, CORES),
        ("0 0\n", None, CORES),
    ],
)
def test_the_cores_are_those_it_may_run_on_or_fewer_by_quota(tmp_path, inner, outer, expected):
    assert usable_cores(*groups(tmp_path, "cpu.max", inner, outer)) == expected


def test_without_control_groups_it_is_the_machine(tmp_path):
    none = tmp_path / "none"
    assert (usable_cores(none, none), usable_memory(none, none)) == (CORES, MACHINE)
