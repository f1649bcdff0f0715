"""A trained Allocator as one safetensors file: the network, its query encoder, and what they were trained on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from allocator_engine.errors import EngineMismatch, EngineMissing
from allocator_engine.model.network import Shape, StreamNetwork
from allocator_engine.model.query import QueryEncoder

_FORMAT = "resadapt-allocator stream"
_PARTS = ("network", "encoder")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`network` and `encoder` on the CPU, in evaluation mode; `notes` say what they were trained on and how."""

    network: StreamNetwork
    encoder: QueryEncoder
    notes: Mapping[str, str] = field(default_factory=dict)


def save(checkpoint: Checkpoint, file: Path) -> None:
    """Write a checkpoint; the file is either whole or as it was. Raises EngineMismatch for weights not finite."""
    tensors = _tensors(checkpoint.network, checkpoint.encoder)
    check_finite(tensors, "the checkpoint")
    shape = {"network": asdict(checkpoint.network.shape), "encoder": _encoder_shape(checkpoint.encoder)}
    about = {"format": _FORMAT, "shape": json.dumps(shape), "notes": json.dumps(dict(checkpoint.notes))}
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".partial")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, beside, metadata=about)
    beside.replace(file)


def load(file: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises EngineMissing if there is none, and EngineMismatch for a file that is damaged, of another kind, or that holds
    weights which are not finite.
    """
    if not file.exists():
        raise EngineMissing(f"there is no checkpoint {file}; train one or give the path of another")
    try:
        with safe_open(file, framework="pt") as kept:
            about = kept.metadata() or {}
            tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise EngineMismatch(f"{file} is damaged ({error}); fetch it again") from error
    if about.get("format") != _FORMAT:
        raise EngineMismatch(f"{file} holds {about.get('format')!r}; expected {_FORMAT!r}")
    check_finite(tensors, str(file))
    try:
        shape = json.loads(about["shape"])
        widths = shape["network"] | {"stem": tuple(shape["network"]["stem"])}
        network, encoder = StreamNetwork(Shape(**widths)), QueryEncoder(**shape["encoder"])
        for name, module in zip(_PARTS, (network, encoder), strict=True):
            part = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            module.load_state_dict(part)
        notes = json.loads(about.get("notes", "{}"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise EngineMismatch(
            f"{file} does not fit this version ({error}); train it again or fetch its version"
        ) from error
    return Checkpoint(network.eval(), encoder.eval(), notes)


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise EngineMismatch naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise EngineMismatch(f"{name} in {where} holds values that are not finite; expected trained weights")


def _tensors(network: nn.Module, encoder: nn.Module) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": tensor
        for part, module in zip(_PARTS, (network, encoder), strict=True)
        for name, tensor in module.state_dict().items()
    }


def _encoder_shape(encoder: QueryEncoder) -> dict[str, int]:
    return {"buckets": encoder.buckets, "width": encoder.width}
