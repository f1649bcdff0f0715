"""Cost of an engine on a machine: milliseconds per frame by backend and batch."""

import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from allocator_engine.check import crowd
from allocator_engine.errors import EngineError, EngineMissing
from allocator_engine.export import OPSET
from allocator_engine.manifest import read, verified, versions
from allocator_engine.runtime import Engine, LoadedEngine, Tensors, gpu, load, load_checkpoint, torch_engine
from allocator_engine.spec import STREAM

if TYPE_CHECKING:
    from torch import nn

FRAMES, QUERIES = 2, 6
"""Frames and queries of every measured hop."""

WARM_UP = 5
"""Calls of each kind before the measured ones."""

EAGER = "torch"
"""The backend that the others are compared with: the network as it was trained."""


@dataclass(frozen=True, slots=True)
class CallTiming:
    """Milliseconds per frame of calls of `batch` hops, and how many times as fast as torch eager, by the medians."""

    backend: str
    batch: int
    median_ms: float
    p95_ms: float
    ratio: float


@dataclass(frozen=True, slots=True)
class EngineReport:
    """Measurements on `device`, of `rounds` calls each. `without` is the reason why a backend is not in the rows."""

    device: str
    rounds: int
    rows: tuple[CallTiming, ...]
    without: Mapping[str, str]

    @property
    def remarks(self) -> list[str]:
        """Remarks beside the rows, in lines for a person."""
        return [f"without {backend}: {reason}" for backend, reason in self.without.items()]

    def as_json(self) -> dict[str, object]:
        """The same for programs, with the machine and the versions."""
        card = gpu() if self.device == "cuda" else None
        return {
            "bench": "allocator",
            "machine": f"{platform.machine()} Python {platform.python_version()}",
            "gpu": card and card[0],
            "clock": "CPU of one thread" if self.device == "cpu" else "wall, copies included",
            "versions": versions(OPSET),
            "frames": FRAMES,
            "queries": QUERIES,
            "warm_up": WARM_UP,
        } | asdict(self)


def measure(
    engine: Path,
    device: str,
    batches: Sequence[int],
    rounds: int,
    now_s: Callable[[], float],
    compiled: bool = True,
) -> EngineReport:
    """Measure everything that can compute an engine on `device` ("cpu", in one thread, or "cuda") by the clock `now_s`.

    Raises EngineMissing if there is no such engine or device, EngineMismatch for one that does not fit this version.
    """
    network = load_checkpoint(verified(engine, read(engine).checkpoint)).network
    import torch

    if device == "cuda" and gpu() is None:
        raise EngineMissing("there is no GPU that torch can use; measure with --device cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        engines, without = contenders(engine, network, device, max(batches), compiled)
        rows = [row for batch in batches for row in compare(engines, batch, rounds, now_s)]
    finally:
        torch.set_num_threads(threads)
    return EngineReport(device, rounds, tuple(sorted(rows, key=lambda row: list(engines).index(row.backend))), without)


def contenders(
    engine: Path, network: "nn.Module", device: str, largest: int, compiled: bool
) -> tuple[dict[str, Engine], dict[str, str]]:
    """Everything that can compute an engine, up to `largest` hops at once, torch eager first; and why the rest cannot.
    ONNX Runtime stays on the CPU, TensorRT needs a plan and a GPU, whose time a clock of the CPU does not tell."""
    openers: dict[str, Callable[[], Engine]] = {"torch.compile": lambda: compiled_engine(network, device)}
    openers["onnxruntime"] = partial(load, engine, "onnxruntime")
    found: dict[str, Engine] = {EAGER: torch_engine(network, STREAM, device)}
    without = {}
    if device == "cuda":
        openers["tensorrt"] = partial(load, engine, "tensorrt")
    else:
        without["tensorrt"] = "it computes on a GPU; measure with --device cuda"
    for name, opener in openers.items():
        if name == "torch.compile" and not compiled:
            continue
        try:
            candidate = opener()
            for batch in (1, largest):
                candidate.run(crowd(batch, FRAMES, QUERIES))
        except EngineError as error:
            without[name] = str(error)
        else:
            found[name] = candidate
    return found, without


def compiled_engine(network: "nn.Module", device: str) -> LoadedEngine:
    """The network through torch.compile: on a GPU as CUDA graphs, one for each batch. It is compiled by its first
    calls, which raise EngineFailed where that does not work."""
    import torch

    on_gpu = device == "cuda"
    module = torch.compile(network, mode="reduce-overhead" if on_gpu else None, dynamic=not on_gpu)
    return replace(torch_engine(cast("nn.Module", module), STREAM, device), backend="torch.compile")


def compare(engines: Mapping[str, Engine], batch: int, rounds: int, now_s: Callable[[], float]) -> list[CallTiming]:
    """A row for each engine, at one batch. They take turns, so that whatever else the machine does meets them alike."""
    tensors = crowd(batch, FRAMES, QUERIES)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(WARM_UP + rounds):
        for name, engine in engines.items():
            taken_s = _timed(engine, tensors, now_s)
            if turn >= WARM_UP:
                seconds[name].append(taken_s)
    eager_s = statistics.median(seconds[EAGER])
    per_frame = 1000 / batch / FRAMES
    return [
        CallTiming(
            name,
            batch,
            statistics.median(calls) * per_frame,
            statistics.quantiles(calls, n=20, method="inclusive")[-1] * per_frame,
            eager_s / statistics.median(calls),
        )
        for name, calls in seconds.items()
    ]


def _timed(engine: Engine, tensors: Tensors, now_s: Callable[[], float]) -> float:
    began_s = now_s()
    engine.run(tensors)
    return now_s() - began_s
