"""Export an Allocator, compile it if a TensorRT is here, prove it, and compare its backends. See README.md."""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from allocator_engine.bench import measure
from allocator_engine.check import examine, golden
from allocator_engine.compile import compile_plan
from allocator_engine.errors import EngineError
from allocator_engine.export import export
from allocator_engine.manifest import SHIPPED, read
from allocator_engine.model.checkpoint import Checkpoint, save
from allocator_engine.model.network import StreamNetwork
from allocator_engine.model.query import QueryEncoder
from allocator_engine.runtime import load


def make(checkpoint: Path | None, folder: Path) -> None:
    """An engine in `folder` of a checkpoint: the one given, else the shipped one, else random weights."""
    file = folder / "allocator.safetensors"
    if checkpoint is None and (SHIPPED / "engine.json").exists():
        checkpoint = SHIPPED / read(SHIPPED).checkpoint.file
    if checkpoint is None:
        torch.manual_seed(0)
        save(Checkpoint(StreamNetwork().eval(), QueryEncoder().eval()), file)
    else:
        shutil.copy(checkpoint, file)
    manifest = export(file)
    print(f"exported {checkpoint or 'random weights'} with ONNX opset {manifest.versions['opset']}")
    try:
        compile_plan(folder)
        print("compiled engine.plan")
    except EngineError as error:
        print(f"not compiled: {error}")


def answers(folder: Path, backend: str) -> str:
    """The scales that a backend proposes for the frames of five golden hops, of which the third is black."""
    hops = golden(0)
    try:
        proposed = load(folder, backend).run(hops)["mean"]
    except EngineError as error:
        return str(error)
    shown = hops["present"].astype(bool)
    return " | ".join(" ".join(f"{mean:.4f}" for mean in proposed[i][shown[i]]) for i in range(len(shown)))


def main(checkpoint: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(checkpoint, folder)
        for finding in examine(folder):
            print(f"{'ok' if finding.healthy else 'FAIL':<4} {finding.what}: {finding.detail}")
        for backend in ("torch", "onnxruntime", "tensorrt"):
            print(f"{backend:<12} proposes {answers(folder, backend)}")
        report = measure(folder, "cpu", batches=[1, 16], rounds=10, now_s=time.process_time, compiled=False)
        for row in report.rows:
            print(f"{row.backend:<12} {row.batch:>2} hops a call: {row.median_ms:.2f} ms/frame, {row.ratio:.2f}x eager")
        print(*report.remarks, sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
