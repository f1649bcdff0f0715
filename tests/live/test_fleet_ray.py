"""A fleet on a real Ray cluster, one machine of which is killed."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ray_cluster import can_run
from tests.services import require

pytestmark = pytest.mark.timeout(300)  # processes start slowly on busy cores

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)  # Ray takes a minute to start on busy cores
def test_a_killed_machine_costs_no_event_and_no_hop_is_decided_twice():
    require(importlib.util.find_spec("ray") is not None, "the extra fleet: pip install 'resadapt-stream[fleet]'")
    require(can_run() is None, str(can_run()))
    require(bool(list(Path("/usr/lib/postgresql").glob("*/bin"))), "PostgreSQL: apt-get install postgresql")
    require(shutil.which("su") is not None, "su")
    options = ["--kills", "1", "--nodes", "2", "--streams", "4"]
    command = [sys.executable, "-m", "tests.bench.bench_failover", *options]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert {name: found[name] for name in ("lost", "two_contents", "two_owners", "missed", "owed")} == {
        "lost": 0, "two_contents": 0, "two_owners": 0, "missed": 0, "owed": 0,
    }  # fmt: skip
    assert found["events"] > 4
    assert found["pictures"] == 4  # through the head, from the nodes
