"""ONNX to a TensorRT plan, with the API that tensorrt and tensorrt_rtx share.

Types are the ONNX file's own (strongly typed). Half precision is therefore made in the ONNX graph, where it can be
proved on any machine; inputs and outputs keep the types of the spec.
"""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from allocator_engine.check import TOLERANCES, parity, require_parity
from allocator_engine.errors import EngineMismatch, EngineMissing, not_installed
from allocator_engine.manifest import (
    Manifest,
    Parity,
    TensorRTPlan,
    artifact_of,
    manifest_path,
    read,
    require_spec,
    verified,
    write,
    write_file,
)
from allocator_engine.runtime import (
    LIMITS,
    TENSORRT,
    Engine,
    gpu,
    load,
    onnx_engine,
    plan_engine,
    shape_of,
    tensorrt_library,
)
from allocator_engine.spec import STREAM, EngineSpec

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

PLAN_NAME = "engine.plan"

Precision = Literal["fp16", "fp32"]

TYPICAL = {"batch": 16, "frames": 2, "queries": 8}
"""The sizes that a plan is tuned for."""

_TIMES = ("elapsed_s", "present")
"""Inputs of which whatever follows from them alone stays in single precision: differences of large times are small."""

_SINGLE = ("LayerNormalization", "ReduceSum", "Softmax")
"""Operations that sum over many values, and stay in single precision too."""


def compile_plan(engine: Path, precision: Precision = "fp16", portable: bool = False) -> Manifest:
    """Add a TensorRT plan to an engine, and return the new manifest.

    The plan is for this machine's GPU, or `portable`, which is the only choice without a GPU and needs tensorrt_rtx.
    Where a GPU is here the plan's answers are compared with the network's. Raises EngineMissing without an engine or a
    package, EngineMismatch for an engine of another spec or an ONNX file that TensorRT refuses, ParityError if the
    answers differ; then the engine is as it was.
    """
    manifest = read(engine)
    require_spec(engine, manifest, STREAM)
    if manifest.onnx is None:
        raise EngineMissing(f"{manifest_path(engine)} names no ONNX file; make one with resadapt-allocator export")
    model = verified(engine, manifest.onnx).read_bytes()
    proofs = {backend: proof for backend, proof in manifest.parity.items() if backend in ("onnxruntime", "encoder")}
    here = None if portable else gpu()
    library, trt = find_library(for_this_gpu=here is not None)
    if precision == "fp16":
        model = to_half(model)
        proofs["half"] = _proved(engine, onnx_engine(model, STREAM), "half")
    content = build(model, STREAM, trt, for_this_gpu=here is not None)
    if gpu() is not None:
        proofs["tensorrt"] = _proved(engine, plan_engine(content, STREAM, library), "tensorrt")
    path = manifest_path(engine).parent / PLAN_NAME
    write_file(path, content)
    plan = TensorRTPlan(artifact_of(path), library, str(trt.__version__), *(here or ("", "")), precision, LIMITS)
    manifest = replace(manifest, plan=plan, parity=proofs, mark="")
    write(manifest, manifest_path(engine))
    return manifest


def find_library(for_this_gpu: bool) -> tuple[str, ModuleType]:
    """The name and module of the TensorRT that is installed here: tensorrt, which builds plans for the GPU at hand
    only, before tensorrt_rtx. Raises EngineMissing naming the packages."""
    reasons = [] if for_this_gpu else ["tensorrt builds plans for the GPU at hand only"]
    for name in TENSORRT if for_this_gpu else TENSORRT[1:]:
        try:
            return name, tensorrt_library(name)
        except ImportError as error:
            reasons.append(f"{name}: {error}")
    packages = "[tensorrt-rtx]" if not for_this_gpu else "[tensorrt]' or '[tensorrt-rtx]"
    raise EngineMissing(
        f"no TensorRT here for that plan ({'; '.join(reasons)}); pip install 'resadapt-stream{packages}'"
    )


def to_half(model: bytes) -> bytes:
    """The same graph computing in half precision, but for times and for sums over many values; its inputs and outputs
    keep their types. Raises EngineMissing where onnx or ONNX Runtime is not installed."""
    try:
        import onnx
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    except ImportError as error:
        raise EngineMissing(f"for half precision {not_installed(error.name or 'onnx', 'train')}") from error
    whole = onnx.load_from_string(model)
    times = _nodes_of_times(whole)
    half: ModelProto = convert_float_to_float16(
        whole, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_SINGLE], node_block_list=times
    )
    _join(half, set(times))
    return bytes(half.SerializeToString(deterministic=True))


def _nodes_of_times(model: "ModelProto") -> list[str]:
    """Names of the nodes whose values follow from the times alone."""
    inputs = {tensor.name for tensor in model.graph.input}
    origins: dict[str, frozenset[str]] = {name: frozenset([name]) for name in inputs}
    found = []
    for node in model.graph.node:
        of = frozenset[str]().union(*(origins.get(name, frozenset()) for name in node.input))
        # A shape says how many, not how long: it is an integer, whatever it is the shape of.
        origins.update(dict.fromkeys(node.output, frozenset() if node.op_type == "Shape" else of))
        if of and of <= set(_TIMES):
            found.append(node.name)
    return found


def _join(model: "ModelProto", times: set[str]) -> None:
    """Connect neighbours in single precision, between which the converter casts to half and back."""
    from onnx import TensorProto, helper

    def target(node: "NodeProto") -> int:
        return int(helper.get_attribute_value(node.attribute[0])) if node.op_type == "Cast" else -1

    single = {tensor.name for tensor in model.graph.input}
    single |= {name for node in model.graph.node if node.name in times for name in node.output}
    halved = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if target(node) == TensorProto.FLOAT16 and node.input[0] in single
    }
    restored = {
        node.output[0]: halved[node.input[0]]
        for node in model.graph.node
        if target(node) == TensorProto.FLOAT and node.input[0] in halved
    }
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = restored.get(name, name)


def build(model: bytes, spec: EngineSpec, trt: ModuleType, for_this_gpu: bool) -> bytes:
    """A plan of an ONNX file's content, with one optimisation profile from 1 to LIMITS.

    Raises EngineMismatch with TensorRT's own words if it does not take the model.
    """
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    # Newer versions know no other kind of network and have no flag for it.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    if not parser.parse(model):
        faults = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise EngineMismatch(f"{trt.__name__} cannot read the ONNX file: {faults}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    least = dict.fromkeys(LIMITS, 1)
    for tensor in spec.inputs:
        profile.set_shape(tensor.name, *(shape_of(tensor, sizes) for sizes in (least, TYPICAL, LIMITS)))
    config.add_optimization_profile(profile)
    if for_this_gpu and hasattr(trt, "ComputeCapability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineMismatch(f"{trt.__name__} {trt.__version__} could not build a plan of the ONNX file")
    return bytes(plan)


def _proved(engine: Path, candidate: Engine, backend: str) -> Parity:
    found = parity(load(engine, "torch"), candidate, TOLERANCES[backend])
    require_parity(found, f"the plan in {backend} precision" if backend == "half" else "the plan")
    return found
