"""PyTorch to ONNX: the network with dynamic batch, frames and queries, and the query encoder, each proved against torch
before it is kept."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from allocator_engine.check import TOLERANCES, encoder_parity, golden, parity, require_parity
from allocator_engine.errors import EngineMismatch, EngineMissing, not_installed
from allocator_engine.manifest import (
    FILE_NAME,
    Artifact,
    Manifest,
    Parity,
    artifact_of,
    manifest_path,
    mark_of,
    read,
    verified,
    versions,
    write,
    write_file,
)
from allocator_engine.query import INPUTS, OUTPUT, onnx_encoder
from allocator_engine.runtime import axes, load_checkpoint, onnx_engine, torch_engine
from allocator_engine.spec import STREAM, EngineSpec
from allocator_engine.words import features

if TYPE_CHECKING:
    import torch
    from onnx import GraphProto, ModelProto
    from torch import nn

    from allocator_engine.model.query import QueryEncoder, SentenceEncoder

OPSET = 20
"""The ONNX operator set: new enough for LayerNormalization and Gelu as single operations."""

ONNX_NAME = "engine.onnx"
ENCODER_NAME = "encoder.onnx"


def export(checkpoint: Path) -> Manifest:
    """Make an engine of a checkpoint: `engine.onnx`, `encoder.onnx` and `engine.json` beside it. A plan made before is
    no longer part of it. A sentence encoder of others has no file: the checkpoint holds none of its weights either.

    Raises EngineMissing if there is no checkpoint or a package is missing, EngineMismatch if the checkpoint is damaged,
    ParityError if ONNX Runtime's answers are not the network's; then nothing is written.
    """
    trained = load_checkpoint(checkpoint)
    model = to_onnx(trained.network, STREAM)
    found = parity(torch_engine(trained.network, STREAM), onnx_engine(model, STREAM), TOLERANCES["onnxruntime"])
    require_parity(found, "the ONNX file")
    encoder = _proved_encoder(trained.encoder)
    folder = checkpoint.parent
    write_file(folder / ONNX_NAME, model)
    manifest = Manifest(
        spec=STREAM,
        checkpoint=artifact_of(checkpoint),
        onnx=artifact_of(folder / ONNX_NAME),
        encoder=_written(encoder, folder),
        versions=versions(OPSET),
        parity={"onnxruntime": found, **_proofs(encoder)},
        trained_on=trained.notes,
    )
    write(manifest, folder / FILE_NAME)
    return manifest


def add_encoder(engine: Path) -> Manifest:
    """Add `encoder.onnx` to an engine; its other files stay as they are, and so does the name of its figures.

    Raises as `export`, and EngineMismatch for an engine whose query encoder cannot be exported.
    """
    manifest, mark = read(engine), mark_of(engine)
    encoder = _proved_encoder(load_checkpoint(verified(engine, manifest.checkpoint)).encoder)
    if encoder is None:
        raise EngineMismatch(
            f"{manifest_path(engine)} has a sentence encoder of others, which stays with torch and transformers;"
            " pip install 'resadapt-stream[embedded]' where the engine is used"
        )
    written = _written(encoder, manifest_path(engine).parent)
    manifest = replace(manifest, encoder=written, parity={**manifest.parity, **_proofs(encoder)}, mark=mark)
    write(manifest, manifest_path(engine))
    return manifest


def _proved_encoder(encoder: "SentenceEncoder") -> tuple[bytes, Parity] | None:
    """The ONNX file's content and its parity; None for an encoder of others."""
    from allocator_engine.model.query import QueryEncoder

    if not isinstance(encoder, QueryEncoder):
        return None
    model = encoder_to_onnx(encoder)
    found = encoder_parity(encoder.embed, onnx_encoder(model), TOLERANCES["encoder"])
    require_parity(found, "the ONNX file of the query encoder")
    return model, found


def _written(encoder: tuple[bytes, Parity] | None, folder: Path) -> Artifact | None:
    if encoder is None:
        return None
    write_file(folder / ENCODER_NAME, encoder[0])
    return artifact_of(folder / ENCODER_NAME)


def _proofs(encoder: tuple[bytes, Parity] | None) -> Mapping[str, Parity]:
    return {"encoder": encoder[1]} if encoder else {}


def to_onnx(network: "nn.Module", spec: EngineSpec) -> bytes:
    """An ONNX file's content whose tensors have the spec's names, and whose dynamic axes are batch, frames and queries.

    Raises EngineMissing where onnx or onnxscript is not installed.
    """
    import torch

    sizes = {name: torch.export.Dim(name, min=1, max=4096) for name in ("batch", "frames", "queries")}
    dynamic = [{axis: sizes[name] for axis, name in axes(tensor).items()} for tensor in spec.inputs]
    example = golden(0)
    return _exported(
        _with_float_thumbnails(network.cpu().eval()),
        [torch.from_numpy(example[tensor.name]) for tensor in spec.inputs],
        (dynamic[0], tuple(dynamic[1:])),
        [tensor.name for tensor in spec.inputs],
        [tensor.name for tensor in spec.outputs],
    )


def encoder_to_onnx(encoder: "QueryEncoder") -> bytes:
    """An ONNX file's content that turns the hashes and weights of one question's features into its vector.

    Raises EngineMissing where onnx or onnxscript is not installed.
    """
    import torch

    hashes, weights = features("is there a car?")
    given = [torch.from_numpy(np.array(hashes, np.int64)), torch.from_numpy(np.array(weights, np.float32))]
    count = torch.export.Dim("features", min=1, max=1 << 20)
    return _exported(_one_question(encoder.cpu().eval()), given, ({0: count}, {0: count}), INPUTS, [OUTPUT])


def _exported(
    module: "nn.Module",
    example: "Sequence[torch.Tensor]",
    dynamic: tuple[object, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> bytes:
    """An ONNX file's content, checked, without what the exporter notes of this machine."""
    import torch

    try:
        import onnx
        import onnxscript  # noqa: F401 - the exporter needs it and says so only in the middle of its work
    except ImportError as error:
        raise EngineMissing(f"for exporting {not_installed(error.name or 'onnx', 'train')}") from error

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making: every axis is named once per tensor
        program = torch.onnx.export(
            module,
            tuple(example),
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=list(inputs),
            output_names=list(outputs),
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


def _one_question(encoder: "QueryEncoder") -> "nn.Module":
    """The encoder as a function of tensors alone, with a sum of rows in the place of the bag of embeddings."""
    import torch

    class QuestionEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, hashes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            rows = self.encoder.table.weight[hashes % self.encoder.buckets]
            return self.encoder.mixed((rows * weights[:, None]).sum(0, keepdim=True))[0]

    return QuestionEncoder()


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
