"""PyTorch to ONNX: one file with dynamic batch, frames and queries, proved against the network before it is kept."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from allocator_engine.check import TOLERANCES, golden, parity, require_parity
from allocator_engine.errors import EngineMissing
from allocator_engine.manifest import FILE_NAME, Manifest, artifact_of, versions, write, write_file
from allocator_engine.runtime import axes, onnx_engine, torch_engine
from allocator_engine.spec import STREAM, EngineSpec

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
    from torch import nn

OPSET = 20
"""Of ONNX: new enough for LayerNormalization and Gelu as single operations."""

ONNX_NAME = "engine.onnx"


def export(checkpoint: Path) -> Manifest:
    """Make an engine of a checkpoint: `engine.onnx` and `engine.json` beside it. A plan made before is no longer part
    of it.

    Raises EngineMissing if there is no checkpoint or a package is missing, EngineMismatch if the checkpoint is damaged,
    ParityError if ONNX Runtime's answers are not the network's; then nothing is written.
    """
    from allocator_engine.model.checkpoint import load

    trained = load(checkpoint)
    model = to_onnx(trained.network, STREAM)
    found = parity(torch_engine(trained.network, STREAM), onnx_engine(model, STREAM), TOLERANCES["onnxruntime"])
    require_parity(found, "the ONNX file")
    folder = checkpoint.parent
    write_file(folder / ONNX_NAME, model)
    manifest = Manifest(
        spec=STREAM,
        checkpoint=artifact_of(checkpoint),
        onnx=artifact_of(folder / ONNX_NAME),
        versions=versions(OPSET),
        parity={"onnxruntime": found},
        trained_on=trained.notes,
    )
    write(manifest, folder / FILE_NAME)
    return manifest


def to_onnx(network: "nn.Module", spec: EngineSpec) -> bytes:
    """An ONNX file's content whose tensors have the spec's names, and whose dynamic axes are batch, frames and queries.

    Raises EngineMissing where onnx or onnxscript is not installed.
    """
    import torch

    try:
        import onnx
        import onnxscript  # noqa: F401 - the exporter needs it and says so only in the middle of its work
    except ImportError as error:
        raise EngineMissing(f"exporting needs {error.name}; pip install 'resadapt-stream[train]'") from error

    sizes = {name: torch.export.Dim(name, min=1, max=4096) for name in ("batch", "frames", "queries")}
    dynamic = [{axis: sizes[name] for axis, name in axes(tensor).items()} for tensor in spec.inputs]
    example = golden(0)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making: every axis is named once per tensor
        program = torch.onnx.export(
            _with_float_thumbnails(network.cpu().eval()),
            tuple(torch.from_numpy(example[tensor.name]) for tensor in spec.inputs),
            dynamo=True,
            dynamic_shapes=(dynamic[0], tuple(dynamic[1:])),
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _with_float_thumbnails(network: "nn.Module") -> "nn.Module":
    """The network behind a cast of its thumbnails: all that TensorRT can do with bytes is to cast them."""
    import torch

    class Border(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, thumbnails: torch.Tensor, *others: torch.Tensor) -> object:
            return self.network(thumbnails.float(), *others)

    return Border()


def _strip(model: "ModelProto") -> None:
    """Take out what the exporter notes of the machine it ran on: stack traces with paths."""
    _strip_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
    model.ClearField("metadata_props")


def _strip_graph(graph: "GraphProto") -> None:
    for item in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
