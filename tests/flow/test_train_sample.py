"""The sample that trains."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from allocator_engine.model.checkpoint import load

ROOT = Path(__file__).parents[2]


def trained(work: Path, steps: int) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "samples/04_train_an_allocator/train.py", str(steps), work],
        capture_output=True, text=True, timeout=290, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_the_sample_trains_and_refuses_the_state_of_other_steps_in_a_line(tmp_path):
    work = tmp_path / "work"
    done = trained(work, 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("grounding: loss") == 1
    assert done.stdout.count(" of native") == 2
    assert load(work / "allocator.safetensors").notes["steps"] == "3"
    assert len((work / "capo.jsonl").read_text().splitlines()) == 3
    other = trained(work, 6)
    assert other.returncode == 1
    assert "capo.state" in other.stderr
    assert "Traceback" not in other.stderr
