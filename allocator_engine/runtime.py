"""Engines, loaded: the network as a pure function of numpy arrays, whichever library computes it.

TensorRT where a plan fits this machine's GPU, ONNX Runtime on one CPU thread otherwise, torch as the plain reference.
"""

import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from allocator_engine.errors import EngineFailed, EngineMismatch, EngineMissing, not_installed
from allocator_engine.manifest import Manifest, TensorRTPlan, read, rebuild, require_spec, verified
from allocator_engine.spec import STREAM, EngineSpec, TensorSpec

if TYPE_CHECKING:
    from torch import nn

    from allocator_engine.model.checkpoint import Checkpoint

Array = NDArray[np.generic]
Tensors = Mapping[str, Array]
Floats = NDArray[np.float32]

LIMITS: Mapping[str, int] = {"batch": 64, "frames": 16, "queries": 256}
"""Most hops, frames of a hop and queries of one call. A plan is built for exactly these."""

_OF_QUERIES = ("queries", "asked", "readings", "next_readings")  # tensors whose second axis is theirs

AUTO = "auto"
"""The name of the best backend that works here."""

TENSORRT = ("tensorrt", "tensorrt_rtx")
"""The two packages with the common API, the one for data centres first."""


class Engine(Protocol):
    """An allocator engine. Calls may come from any thread, one at a time."""

    @property
    def spec(self) -> EngineSpec: ...

    def run(self, tensors: Tensors) -> dict[str, Floats]:
        """The outputs of the spec for inputs of the spec, every value finite.

        Raises ValueError for inputs that are not the spec's, EngineFailed when there is no usable answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An Engine of a `backend`. `passed_over` says why no better backend was chosen."""

    spec: EngineSpec
    backend: str
    compute: Callable[[Tensors], Mapping[str, Array]]
    passed_over: tuple[str, ...] = ()

    def run(self, tensors: Tensors) -> dict[str, Floats]:
        self.spec.check_inputs(tensors)
        sizes = _sizes(self.spec, tensors)
        outputs = self.compute(tensors)
        try:
            self.spec.check_outputs(outputs)
        except ValueError as error:
            raise EngineFailed(f"the {self.backend} engine answered with {error}") from error
        for tensor in self.spec.outputs:
            self._check(tensor, outputs[tensor.name], sizes)
        return {name: np.asarray(output, np.float32) for name, output in outputs.items()}

    def _check(self, tensor: TensorSpec, output: Array, sizes: Mapping[str, int]) -> None:
        expected = shape_of(tensor, sizes)
        if output.shape != expected:
            raise EngineFailed(
                f"{tensor.name} of the {self.backend} engine is {list(output.shape)}; expected {list(expected)}"
            )
        if not np.isfinite(np.asarray(output, np.float32)).all():
            raise EngineFailed(f"{tensor.name} of the {self.backend} engine holds values that are not finite")


class _NotHere(EngineMismatch):
    """The files are sound, but this machine cannot run them."""


def load(manifest: Path, backend: str = AUTO, device: str = "cpu") -> LoadedEngine:
    """The engine of a manifest (or of its folder), computed by `backend`: tensorrt, onnxruntime, torch, or `auto`.

    `device` is where torch computes. Raises EngineMissing if there is no such engine, and EngineMismatch for another
    spec, for a file that is not the manifest's, or where the backend, or every one, cannot run on this machine.
    """
    described = read(manifest)
    require_spec(manifest, described, STREAM)
    openers: dict[str, Callable[[], LoadedEngine]] = {
        "tensorrt": lambda: _open_plan(manifest, described),
        "onnxruntime": lambda: _open_onnx(manifest, described),
        "torch": lambda: _open_torch(manifest, described, device),
    }
    if backend != AUTO:
        if backend not in openers:
            raise EngineMismatch(f"the backend is {backend!r}; expected {AUTO} or one of {', '.join(openers)}")
        return openers[backend]()
    passed_over: list[str] = []
    for name, opener in openers.items():
        try:
            engine = opener()
        except _NotHere as error:
            passed_over.append(f"{name}: {error}")
        else:
            return LoadedEngine(engine.spec, engine.backend, engine.compute, tuple(passed_over))
    raise EngineMismatch(f"nothing here can run {manifest}: {'; '.join(passed_over)}")


def axes(tensor: TensorSpec) -> dict[int, str]:
    """Names of a tensor's axes whose size may differ: batch, then frames or queries."""
    second = "queries" if tensor.name in _OF_QUERIES else "frames"
    return {axis: ("batch", second)[axis] for axis, size in enumerate(tensor.shape) if size is None}


def shape_of(tensor: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The tensor's shape where batch, frames and queries have these `sizes`."""
    named = axes(tensor)
    return tuple(sizes[named[axis]] if size is None else size for axis, size in enumerate(tensor.shape))


def torch_fault(extra: str = "embedded") -> str | None:
    """None where torch can be imported; else a line that names the extra which installs it."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return not_installed("torch", extra)
    return None


def gpu() -> tuple[str, str] | None:
    """Name and compute capability (as "9.0") of the first GPU that torch can use here, or None."""
    if torch_fault():
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability(0)
    return torch.cuda.get_device_name(0), f"{major}.{minor}"


def tensorrt_library(name: str) -> ModuleType:
    """The package tensorrt or tensorrt_rtx. Raises ImportError where it, or a library under it, is not installed."""
    return importlib.import_module(name)


def torch_engine(network: "nn.Module", spec: EngineSpec, device: str = "cpu") -> LoadedEngine:
    """The network itself, on `device`. It uses as many CPU threads as torch is set to."""
    import torch

    network = network.to(device).eval()

    def compute(tensors: Tensors) -> dict[str, Array]:
        try:  # a GPU's memory may run out, or its fault show, wherever something is copied
            given = [torch.from_numpy(np.array(tensors[tensor.name])).to(device) for tensor in spec.inputs]
            with torch.inference_mode():
                outputs = network(*given)
            return {t.name: o.float().cpu().numpy() for t, o in zip(spec.outputs, outputs, strict=True)}
        except RuntimeError as error:
            raise EngineFailed(f"torch: {_first_line(error)}") from error

    return LoadedEngine(spec, "torch", compute)


def onnx_engine(model: bytes, spec: EngineSpec) -> LoadedEngine:
    """The engine of an ONNX file's content. Raises EngineMismatch as `onnx_calls`."""
    call, names = onnx_calls(model), [tensor.name for tensor in spec.outputs]
    return LoadedEngine(spec, "onnxruntime", lambda tensors: dict(zip(names, call(names, tensors), strict=True)))


def onnx_calls(model: bytes) -> Callable[[Sequence[str], Tensors], list[Array]]:
    """The function of an ONNX file's content, from names of outputs and inputs to outputs; it raises EngineFailed.

    It computes on one CPU thread that never spins, so that it takes nothing from the decoders. Raises EngineMismatch
    where ONNX Runtime is not installed, or does not take the model.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as states
    except ImportError as error:
        raise _NotHere(f"ONNX Runtime is not installed ({error}); pip install onnxruntime") from error
    faults = (
        states.Fail, states.InvalidArgument, states.InvalidGraph, states.InvalidProtobuf, states.NotImplemented,
        states.RuntimeException, states.EPFail,
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except faults as error:
        raise EngineMismatch(f"ONNX Runtime does not take the model: {_first_line(error)}") from error

    def call(names: Sequence[str], tensors: Tensors) -> list[Array]:
        try:
            outputs: list[Array] = session.run(list(names), dict(tensors))
        except faults as error:
            raise EngineFailed(f"ONNX Runtime: {_first_line(error)}") from error
        return outputs

    return call


def plan_engine(plan: bytes, spec: EngineSpec, library: str) -> LoadedEngine:
    """A TensorRT plan's content on this machine's GPU. Raises EngineMismatch where the library does not take it."""
    trt = tensorrt_library(library)
    logger = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    context = engine.create_execution_context() if engine is not None else None
    if context is None:
        raise _NotHere(f"{library} {trt.__version__} does not take the plan on this machine")
    return LoadedEngine(spec, "tensorrt", PlanCalls(spec, context, (runtime, engine)))


class PlanCalls:
    """Calls of an execution context, whose memory is torch's."""

    def __init__(self, spec: EngineSpec, context: "_ExecutionContext", kept: tuple[object, ...]) -> None:
        self._spec, self._context, self._kept = spec, context, kept
        self._lock = threading.Lock()

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        with self._lock:  # a context holds the shapes and addresses of one call
            try:
                return self._computed(tensors)
            except RuntimeError as error:  # CUDA's, such as no memory left
                raise EngineFailed(f"TensorRT: {_first_line(error)}") from error

    def _computed(self, tensors: Tensors) -> dict[str, Array]:
        import torch

        shapes = {t.name: shape_of(t, _sizes(self._spec, tensors)) for t in self._spec.outputs}
        held = {name: torch.from_numpy(np.array(array)).cuda() for name, array in tensors.items()}
        for name, tensor in held.items():
            if not self._context.set_input_shape(name, tuple(tensor.shape)):
                raise EngineFailed(f"{name} {list(tensor.shape)} is beyond the plan's limits {dict(LIMITS)}")
        outputs = {name: torch.empty(shape, device="cuda") for name, shape in shapes.items()}
        for name, tensor in (held | outputs).items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.current_stream()
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise EngineFailed("TensorRT could not run the plan")
        stream.synchronize()
        return {name: output.cpu().numpy() for name, output in outputs.items()}


class _ExecutionContext(Protocol):
    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...

    def set_tensor_address(self, name: str, address: int) -> bool: ...

    def execute_async_v3(self, stream_handle: int) -> bool: ...


def _open_plan(path: Path, manifest: Manifest) -> LoadedEngine:
    plan = manifest.plan
    if plan is None:
        raise _NotHere(f"{path} has no TensorRT plan; add one with: resadapt-allocator compile {path}")
    content = verified(path, plan.artifact, "compile").read_bytes()
    fault = plan_fault(plan)
    if fault:
        advice = rebuild(path, "compile") if gpu() else "choose another backend"
        raise _NotHere(f"{plan.artifact.file} {fault}; {advice}")
    try:
        return plan_engine(content, manifest.spec, plan.library)
    except _NotHere as error:
        raise _NotHere(f"{error}; {rebuild(path, 'compile')}") from error


def plan_fault(plan: TensorRTPlan) -> str | None:
    """The reason why a plan cannot run on this machine, or None where nothing is known against it."""
    if missing := torch_fault("tensorrt"):
        return f"has its tensors in torch's memory: {missing}"
    here = gpu()
    if here is None:
        return "needs a GPU, and there is none here"
    if plan.capability not in ("", here[1]):
        return f"was built for {plan.gpu} ({plan.capability}); this is {here[0]} ({here[1]})"
    if dict(plan.limits) != dict(LIMITS):
        return f"was built for at most {dict(plan.limits)}; expected {dict(LIMITS)}"
    try:
        found = str(tensorrt_library(plan.library).__version__)
    except ImportError as error:
        return f"needs {plan.library} {plan.version}, which is not installed ({error})"
    if found != plan.version:
        return f"was built by {plan.library} {plan.version}; this is {found}"
    return None


def _open_onnx(path: Path, manifest: Manifest) -> LoadedEngine:
    if manifest.onnx is None:
        raise _NotHere(f"{path} has no ONNX file; {rebuild(path)}")
    return onnx_engine(verified(path, manifest.onnx).read_bytes(), manifest.spec)


def _open_torch(path: Path, manifest: Manifest, device: str) -> LoadedEngine:
    if missing := torch_fault():
        raise _NotHere(missing)
    return torch_engine(load_checkpoint(verified(path, manifest.checkpoint)).network, manifest.spec, device)


def load_checkpoint(file: Path) -> "Checkpoint":
    """The network and the query encoder of a checkpoint. Raises EngineMissing where torch is not installed, and as
    `allocator_engine.model.checkpoint.load`."""
    try:
        from allocator_engine.model.checkpoint import load
    except ImportError as error:
        raise EngineMissing(not_installed(error.name or "torch", "embedded")) from error
    return load(file)


def _sizes(spec: EngineSpec, tensors: Tensors) -> dict[str, int]:
    """Batch, frames and queries of inputs of the spec. Raises ValueError unless these agree on them."""
    sizes: dict[str, int] = {}
    for tensor in spec.inputs:
        for axis, name in axes(tensor).items():
            size = tensors[tensor.name].shape[axis]
            if sizes.setdefault(name, size) != size:
                raise ValueError(f"tensor {tensor.name!r} has {size} along {name}, others {sizes[name]}")
    return sizes


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
