"""A trained Allocator as one safetensors file: the network, its query encoder, and what they were trained on.

Of a sentence encoder of others the file holds its name, a hash of its weights and the projection, not the weights.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from allocator_engine.errors import EngineMismatch, EngineMissing
from allocator_engine.manifest import write_file
from allocator_engine.model.network import Shape, StreamNetwork
from allocator_engine.model.query import QueryEncoder, SentenceEncoder
from allocator_engine.model.sentence import PretrainedEncoder

_FORMAT = "resadapt-allocator stream"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`network` and `encoder` on the CPU, in evaluation mode; `notes` say what they were trained on and how."""

    network: StreamNetwork
    encoder: SentenceEncoder
    notes: Mapping[str, str] = field(default_factory=dict)


def save(checkpoint: Checkpoint, file: Path) -> None:
    """Write a checkpoint; the file is either whole or as it was. Raises EngineMismatch for weights not finite."""
    encoder_shape, encoder = _taken_apart(checkpoint.encoder)
    tensors = {f"network.{name}": tensor for name, tensor in checkpoint.network.state_dict().items()}
    tensors |= {f"encoder.{name}": tensor for name, tensor in encoder.items()}
    shape = {"network": asdict(checkpoint.network.shape), "encoder": encoder_shape}
    write(tensors, {"format": _FORMAT, "shape": json.dumps(shape), "notes": json.dumps(dict(checkpoint.notes))}, file)


def write(tensors: Mapping[str, Tensor], about: Mapping[str, str], file: Path) -> None:
    """Write tensors and metadata; the file is either whole or as it was. Raises EngineMismatch for
    values that are not finite."""
    check_finite(tensors, "the checkpoint")
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_file(file, to_bytes(plain, metadata=dict(about)))


def load(file: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises EngineMissing if there is none, and EngineMismatch for a file that is damaged, of another kind, or that holds
    weights which are not finite.
    """
    about, tensors = read(file, _FORMAT)
    try:
        shape = json.loads(about["shape"])
        widths = shape["network"] | {"stem": tuple(shape["network"]["stem"])}
        network = StreamNetwork(Shape(**widths))
        network.load_state_dict(_part(tensors, "network."))
        encoder = _put_together(shape["encoder"], _part(tensors, "encoder."))
        notes = json.loads(about.get("notes", "{}"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, EngineMissing):
            raise
        raise EngineMismatch(
            f"{file} does not fit this version ({error}); train it again or fetch its version"
        ) from error
    return Checkpoint(network.eval(), encoder, notes)


def read(file: Path, expected: str) -> tuple[Mapping[str, str], Mapping[str, Tensor]]:
    """The metadata of a file of the format `expected`, and its tensors.

    Raises EngineMissing if there is none, and EngineMismatch for a file that is damaged, of another format, or that
    holds values which are not finite.
    """
    if not file.exists():
        raise EngineMissing(f"there is no checkpoint {file}; train one or give the path of another")
    try:
        with safe_open(file, framework="pt") as kept:
            about = kept.metadata() or {}
            tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise EngineMismatch(f"{file} is damaged ({error}); fetch it again") from error
    if about.get("format") != expected:
        raise EngineMismatch(f"{file} holds {about.get('format')!r}; expected {expected!r}")
    check_finite(tensors, str(file))
    return about, tensors


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise EngineMismatch naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise EngineMismatch(
                f"{name} in {where} holds values that are not finite; expected trained weights: train it again"
            )


def _taken_apart(encoder: SentenceEncoder) -> tuple[Mapping[str, int | str], Mapping[str, Tensor]]:
    """The description of an encoder, and the tensors that a checkpoint holds of it."""
    if isinstance(encoder, QueryEncoder):
        return {"buckets": encoder.buckets, "width": encoder.width}, encoder.state_dict()
    if isinstance(encoder, PretrainedEncoder):
        return {"name": encoder.name, "weights": encoder.weights}, {"projection": encoder.projection}
    raise TypeError(f"the encoder {type(encoder).__name__} cannot be kept in a checkpoint")


def _put_together(shape: Mapping[str, int | str], tensors: Mapping[str, Tensor]) -> SentenceEncoder:
    if "name" in shape:
        return PretrainedEncoder(str(shape["name"]), tensors["projection"], str(shape["weights"]))
    encoder = QueryEncoder(int(shape["buckets"]), int(shape["width"]))
    encoder.load_state_dict(tensors)
    return encoder.eval()


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
