"""The sample that compiles and compares."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import engine

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_the_sample_exports_proves_and_compares_a_checkpoint(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "samples/05_compile_and_compare/compare.py", engine() / "allocator.safetensors"],
        cwd=tmp_path, capture_output=True, text=True, timeout=290, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"exported {engine() / 'allocator.safetensors'} with ONNX opset")
    assert re.search(r"^ok   parity onnxruntime: within ", done.stdout, re.MULTILINE)
    eager, compiled = (
        [float(mean) for mean in re.findall(r"\d\.\d{4}", line)]
        for line in re.findall(r"^(?:torch|onnxruntime) +proposes (.*)$", done.stdout, re.MULTILINE)
    )
    assert eager == pytest.approx(compiled, abs=1e-3)
    assert len(set(eager)) > 5, "every frame got the same"
    assert len(re.findall(r"ms/frame, \d+\.\d+x eager$", done.stdout, re.MULTILINE)) == 4
    assert list(tmp_path.iterdir()) == []
