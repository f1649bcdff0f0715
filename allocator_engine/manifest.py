"""engine.json: what an engine consists of, what it was made from and with, and how it was proved.

The manifest lies beside its files and is written last. A file whose hash is not in the manifest is never loaded: a
folder that was left half written is refused, and the command that makes it whole is named.
"""

import importlib.metadata
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from allocator_engine.digests import SHORT, sha256_of
from allocator_engine.errors import EngineMismatch, EngineMissing
from allocator_engine.spec import EngineSpec, TensorSpec

FILE_NAME = "engine.json"
SHIPPED = Path(__file__).parent / "shipped"
"""The folder of the shipped engine: the same place in a checkout and in an installation."""

FORMAT = "resadapt-allocator engine"

_CLOSED = ConfigDict(extra="forbid")
_PACKAGES = ("resadapt-stream", "torch", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of the engine: its name beside the manifest, and the SHA-256 of its bytes in hexadecimal."""

    __pydantic_config__ = _CLOSED

    file: str
    sha256: str

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file or self.file in ("", ".", ".."):
            raise ValueError(f"{self.file!r} is not the name of a file beside the manifest")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"{self.sha256!r} is not a SHA-256 in hexadecimal")


@dataclass(frozen=True, slots=True)
class TensorRTPlan:
    """A TensorRT engine and what it may run on.

    `library` is tensorrt or tensorrt_rtx, which load nobody else's plans, nor another version's. `gpu` and `capability`
    (as "9.0") name the card it was built for; both are empty in a portable plan, which the library itself accepts or
    refuses. `precision` is fp32 or fp16; `limits` the largest batch, frames and queries of one call.
    """

    __pydantic_config__ = _CLOSED

    artifact: Artifact
    library: str
    version: str
    gpu: str
    capability: str
    precision: str
    limits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Parity:
    """Distance of a backend's outputs from the network's on golden hops; of the query encoder's, on golden questions.

    `largest` is the greatest |difference| / max(1, |value|) over all outputs of `hops` hops (or questions);
    `tolerance` the most that is allowed.
    """

    __pydantic_config__ = _CLOSED

    largest: float
    tolerance: float
    hops: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One engine. `encoder` is the query encoder as ONNX; `versions` of packages and of the opset; `parity` by backend;
    `trained_on` whatever the training noted, such as the versions of the world and, as `mllm`, the hash of the weights
    of the MLLM whose answers it learned from. `mark` is the name under which figures of the engine are kept, for a
    manifest that has grown since; empty otherwise (see `mark_of`)."""

    __pydantic_config__ = _CLOSED

    spec: EngineSpec
    checkpoint: Artifact
    onnx: Artifact | None = None
    plan: TensorRTPlan | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Parity] = field(default_factory=dict)
    trained_on: Mapping[str, str] = field(default_factory=dict)
    encoder: Artifact | None = None
    mark: str = ""
    format: str = FORMAT


_BORDER = TypeAdapter(Manifest)


def manifest_path(engine: Path) -> Path:
    """The manifest of an engine that is given by its folder or by the manifest itself."""
    return engine / FILE_NAME if engine.is_dir() else engine


def read(engine: Path) -> Manifest:
    """The manifest of an engine. Raises EngineMissing if there is none, EngineMismatch if it is damaged."""
    path = manifest_path(engine)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise EngineMissing(
            f"there is no engine {path} ({error.strerror}); make one with resadapt-allocator export CHECKPOINT"
        ) from error
    try:
        manifest = _BORDER.validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in fault["loc"]) or "it"
        raise EngineMismatch(f"{path} is no engine manifest: {where}: {fault['msg']}; {rebuild(path)}") from error
    if manifest.format != FORMAT:
        raise EngineMismatch(f"{path} holds {manifest.format!r}; expected {FORMAT!r}; {rebuild(path)}")
    return manifest


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest to the file `path`, which is either whole or as it was."""
    write_file(path, _BORDER.dump_json(manifest, indent=2) + b"\n")


def write_file(path: Path, content: bytes) -> None:
    """Write a file that is either whole or as it was, also when the power fails."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as partial:
        try:
            partial.write(content)
            partial.flush()
            os.fsync(partial.fileno())
            os.chmod(partial.name, 0o644)
            os.replace(partial.name, path)
        finally:
            Path(partial.name).unlink(missing_ok=True)


def artifact_of(path: Path) -> Artifact:
    """The file at `path` as it is now."""
    return Artifact(path.name, sha256_of(path))


def mark_of(engine: Path) -> str:
    """Name under which figures of an engine are kept: its manifest's `mark`, or 12 digits of the manifest's SHA-256.

    Raises EngineMissing and EngineMismatch as `read`.
    """
    return read(engine).mark or sha256_of(manifest_path(engine))[:SHORT]


def verified(engine: Path, artifact: Artifact, command: str = "export") -> Path:
    """The path of an engine's file, once its hash is the manifest's. Raises EngineMismatch naming what differs and the
    `command` of resadapt-allocator that makes it again."""
    path = manifest_path(engine).parent / artifact.file
    try:
        found = sha256_of(path)
    except OSError as error:
        raise EngineMismatch(f"{path} cannot be read ({error.strerror}); {rebuild(engine, command)}") from error
    if found != artifact.sha256:
        raise EngineMismatch(
            f"{path} has SHA-256 {found[:12]}..., the manifest says {artifact.sha256[:12]}...;"
            f" {rebuild(engine, command)}"
        )
    return path


def require_spec(engine: Path, manifest: Manifest, expected: EngineSpec) -> None:
    """Raise EngineMismatch naming what differs unless the engine is one of `expected`."""
    if manifest.spec != expected:
        raise EngineMismatch(
            f"{manifest_path(engine)} is an engine of another spec: {_difference(manifest.spec, expected)};"
            f" {rebuild(engine)}"
        )


def rebuild(engine: Path, command: str = "export") -> str:
    """Advice for an engine that does not fit: the command that makes it again."""
    path = manifest_path(engine)
    beside = sorted(path.parent.glob("*.safetensors"))
    checkpoint = beside[0] if len(beside) == 1 else path.parent / "CHECKPOINT.safetensors"
    what = checkpoint if command.startswith("export") else path
    return f"make it again with: resadapt-allocator {command} {what}"


def trained_for(manifest: Manifest, weights: Path) -> bool:
    """True if an engine learned from the answers of the MLLM with these weights: it notes their SHA-256, or the first
    12 digits or more of it."""
    noted = manifest.trained_on.get("mllm", "")
    return len(noted) >= SHORT and weights.is_file() and sha256_of(weights).startswith(noted)


def versions(opset: int) -> dict[str, str]:
    """Versions of what an engine is made with, as far as they are installed."""
    found = {"opset": str(opset)}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _difference(found: EngineSpec, expected: EngineSpec) -> str:
    for part in ("inputs", "outputs"):
        given = {tensor.name: tensor for tensor in getattr(found, part)}
        wanted = {tensor.name: tensor for tensor in getattr(expected, part)}
        for name in sorted({*given, *wanted}):
            if given.get(name) != wanted.get(name):
                return f"its {part} have {_described(given.get(name))} where {_described(wanted.get(name))} is expected"
    for one_field in fields(found):
        mine, theirs = getattr(found, one_field.name), getattr(expected, one_field.name)
        if mine != theirs:
            return f"its {one_field.name} is {mine}, expected {theirs}"
    raise AssertionError("the specs are equal")


def _described(tensor: TensorSpec | None) -> str:
    return f"{tensor.name} {tensor.dtype}{list(tensor.shape)}" if tensor else "nothing"
