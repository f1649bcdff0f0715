"""What the Allocator costs per frame: ONNX Runtime on one CPU thread against torch eager; on a GPU, TensorRT and a
compiled network with CUDA graphs against torch eager.

A call holds hops of 2 frames with 6 queries each. One core is measured in CPU time, which other processes hardly
lengthen; the GPU in wall time, copies included.

Run: python -m tests.bench.bench_allocator [ENGINE] [ROUNDS]
ENGINE is an engine.json or its folder; without one the network's weights are random, which costs the same.
Targets: at most 3 ms per frame and 1.5x torch eager on one core; at most 0.3 ms per frame at batch 16 on a GPU.
"""

import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console

from allocator_engine.check import crowd, latency
from allocator_engine.compile import compile_plan
from allocator_engine.errors import EngineError
from allocator_engine.export import export
from allocator_engine.manifest import manifest_path, read, verified
from allocator_engine.model.checkpoint import Checkpoint, save
from allocator_engine.model.checkpoint import load as load_checkpoint
from allocator_engine.model.network import StreamNetwork
from allocator_engine.model.query import QueryEncoder
from allocator_engine.runtime import Engine, Floats, Tensors, load, torch_engine
from allocator_engine.spec import STREAM
from tests.bench.report import median, p95, tell

FRAMES, QUERIES = 2, 6
CPU_BATCHES, GPU_BATCHES = (1, 4, 16), (1, 4, 16, 64)


class Graphed:
    """The network compiled into CUDA graphs, one for each shape of its inputs."""

    spec = STREAM

    def __init__(self, network: torch.nn.Module) -> None:
        self._compiled = torch.compile(network.cuda(), mode="reduce-overhead", dynamic=False)

    def run(self, tensors: Tensors) -> dict[str, Floats]:
        given = [torch.from_numpy(tensors[tensor.name]).cuda() for tensor in STREAM.inputs]
        with torch.inference_mode(), torch.autocast("cuda", torch.float16):
            outputs = self._compiled(*given)
        return {t.name: o.float().cpu().numpy() for t, o in zip(STREAM.outputs, outputs, strict=True)}


def on_cpu(folder: Path) -> Iterator[tuple[str, Engine]]:
    """What runs on one core, the plain one first."""
    yield "torch eager", load(folder, "torch")
    yield "ONNX Runtime", load(folder, "onnxruntime")


def on_gpu(folder: Path) -> Iterator[tuple[str, Engine]]:
    """What runs on the GPU, the plain one first. What does not is said."""
    network = load_checkpoint(verified(folder, read(folder).checkpoint)).network
    yield "torch eager, CUDA", torch_engine(network, STREAM, "cuda")
    yield "torch.compile, CUDA graphs, autocast fp16", Graphed(network)
    for portable in (False, True):
        try:
            manifest = compile_plan(folder, "fp16", portable)
            yield f"{manifest.plan.library} fp16{', portable' * portable}", load(folder, "tensorrt")
        except EngineError as error:
            Console().print(f"no {'portable' if portable else 'native'} TensorRT plan: {error}", markup=False)


def measure(
    engines: Iterator[tuple[str, Engine]], batches: tuple[int, ...], rounds: int, now_s: Callable[[], float]
) -> list[dict[str, object]]:
    """Milliseconds per frame on the clock `now_s`, by engine and batch, and how many times faster than the first."""
    rows: list[dict[str, object]] = []
    plain: dict[int, float] = {}
    for name, engine in engines:
        for batch in batches:
            calls = latency(engine, crowd(batch, FRAMES, QUERIES), rounds, now_s)
            per_frame = [call_s * 1000 / batch / FRAMES for call_s in calls]
            ratio = plain.setdefault(batch, median(per_frame)) / median(per_frame)
            row = {"engine": name, "batch": batch, "median_ms": median(per_frame), "p95_ms": p95(per_frame)}
            rows.append(row | {"ratio": ratio})
    return rows


def copy_of(engine: Path, scratch: Path) -> Path:
    """A copy of an engine, to which plans may be added."""
    return Path(shutil.copytree(manifest_path(engine).parent, scratch / "engine"))


def random_engine(folder: Path) -> Path:
    """An engine of the shipped shape with random weights."""
    file = folder / "allocator.safetensors"
    save(Checkpoint(StreamNetwork().eval(), QueryEncoder().eval()), file)
    export(file)
    return folder


def main(engine: str | None, rounds: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = copy_of(Path(engine), Path(scratch)) if engine else random_engine(Path(scratch))
        rows = measure(on_cpu(folder), CPU_BATCHES, rounds, time.process_time)
        if torch.cuda.is_available():
            rows += measure(on_gpu(folder), GPU_BATCHES, rounds, time.perf_counter)
    columns = ("engine", "hops per call", "ms per frame, median", "p95", "times the plain one")
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    versions = {"torch": torch.__version__, "processor": platform.processor() or platform.machine(), "gpu": gpu}
    setting = {"frames": FRAMES, "queries": QUERIES, "rounds": rounds, "warm_up": 5, "threads": 1}
    tell("allocator", columns, [list(row.values()) for row in rows], {"rows": rows} | versions | setting)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(arguments[0] if arguments else None, int(arguments[1]) if len(arguments) > 1 else 50)
