"""Checks of an engine on this machine: parity with its network, hashes, versions, GPU."""

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allocator_engine.encode import HopView, batch, empty_memory, nothing_read
from allocator_engine.errors import EngineError, ParityError
from allocator_engine.manifest import Artifact, Manifest, Parity, manifest_path, read, rebuild, require_spec, verified
from allocator_engine.query import Embed, load_encoder
from allocator_engine.runtime import AUTO, Engine, load, load_checkpoint, plan_fault, torch_fault
from allocator_engine.spec import CELL_COLUMNS, CELL_ROWS, GRANT_RANGE, QUERY_FEATURES, STREAM, THUMBNAIL

TOLERANCES = {"onnxruntime": 5e-4, "tensorrt": 2e-2, "half": 2e-2, "encoder": 1e-5}
"""Largest distance from the network by way of computing: in single precision half of what `fit` counts scales in, in
half precision 2 % of native. The query encoder's vectors differ by rounding alone."""

_WEIGHTS = {"concentration": 0.25}
"""Weights of outputs in a comparison, 1 by default. The policy's certainty matters to training only; serving takes the
mean."""

HOPS = 6
"""Golden hops, one after the other, each of a batch of streams."""

QUESTIONS = (
    "is there a car?", "has the gate been open for more than a minute?", "a", "", "?!", "ist der Hof leer?",
    "车门开着吗", "IS A PERSON IN RED NEAR THE VAN", "dog " * 80,
)  # fmt: skip
"""Golden questions: short, long, without words, of other scripts."""

_SHAPES = ((1, 0), (2, 1), (3, 6), (1, 9), (4, 3))  # frames and queries of the streams in a golden batch


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of a check: its subject, whether it passed, and the reason or a description."""

    what: str
    healthy: bool
    detail: str


def golden(step: int, before: Mapping[str, NDArray[np.float32]] | None = None) -> dict[str, NDArray[np.generic]]:
    """Inputs of `STREAM`: the golden hop number `step` of five streams, one of them black, with 1 to 4 frames and 0 to
    9 queries each. `before` is what the engine gave for the step before."""
    rng = np.random.default_rng((0, step))
    views = [_view(rng, frames, queries, black=stream == 2) for stream, (frames, queries) in enumerate(_SHAPES)]
    tensors = batch(views)
    if before is not None:
        tensors |= {"memory": before["next_memory"], "readings": before["next_readings"]}
    return tensors


def _view(rng: np.random.Generator, frames: int, queries: int, black: bool) -> HopView:
    rows, columns = THUMBNAIL[0] // CELL_ROWS, THUMBNAIL[1] // CELL_COLUMNS
    coarse = rng.integers(0, 256, (frames, CELL_ROWS, CELL_COLUMNS, 3), dtype=np.uint8)
    shown = coarse.repeat(rows, axis=1).repeat(columns, axis=2) * np.uint8(not black)
    asked = rng.standard_normal((queries, QUERY_FEATURES)).astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    elapsed_s = rng.choice([0.04, 0.5, 1.0], frames).astype(np.float32)
    elapsed_s[:1] = rng.choice([0.0, 0.5, 60.0])  # a stream begins, goes on, or comes back
    grant = float(rng.uniform(*GRANT_RANGE))
    return HopView(shown, elapsed_s, asked, grant, empty_memory(), nothing_read(queries))


def parity(reference: Engine, candidate: Engine, tolerance: float, hops: int = HOPS) -> Parity:
    """Distance of `candidate` from `reference` on golden hops; both go on with the reference's memory.

    Frames that are padding are not compared, and a concentration counts for a quarter.
    """
    largest, expected = 0.0, None
    for step in range(hops):
        tensors = golden(step, expected)
        expected, found = reference.run(tensors), candidate.run(tensors)
        shown = np.asarray(tensors["present"]) > 0
        for name, value in expected.items():
            apart = np.abs(found[name] - value) / np.maximum(1.0, np.abs(value)) * _WEIGHTS.get(name, 1.0)
            most = np.max(apart[shown] if value.shape == shown.shape else apart)
            largest = float(np.maximum(largest, most))  # unlike max(), it keeps what is not a number
    return Parity(largest, tolerance, hops)


def encoder_parity(reference: Embed, candidate: Embed, tolerance: float) -> Parity:
    """Distance of the vectors of `candidate` from those of `reference` on golden questions."""
    apart = np.abs(candidate(QUESTIONS) - reference(QUESTIONS))
    return Parity(float(np.max(apart)), tolerance, len(QUESTIONS))


def require_parity(found: Parity, what: str) -> None:
    """Raise ParityError if it is beyond its tolerance."""
    if not found.largest <= found.tolerance:
        raise ParityError(
            f"{what} differs from the network by {found.largest:.2g}; expected at most {found.tolerance:g}"
            " (differences relative to values above 1)"
        )


def examine(engine: Path) -> list[Finding]:
    """Findings on an engine's manifest, files, versions, fitness for this machine, and parity as measured here.

    Raises EngineMissing if there is no engine, EngineMismatch if its manifest cannot be read.
    """
    manifest = read(engine)
    findings = [_trial("spec", lambda: _spec(engine, manifest)), *_files(engine, manifest)]
    whole = all(finding.healthy for finding in findings)
    findings.append(Finding("versions", True, f"made with {_versions(manifest)}"))
    compiled = ["onnxruntime"] if manifest.onnx else []
    if manifest.plan:
        fault = plan_fault(manifest.plan)
        findings.append(Finding("GPU", fault is None, f"the plan {fault or 'fits this machine'}"))
        compiled += [] if fault else ["tensorrt"]
    if whole:
        findings += [_trial(f"parity {backend}", _parity(engine, manifest, backend)) for backend in compiled]
        findings.append(_trial("query encoder", lambda: _encoder_parity(engine, manifest)))
    return findings


def condition_of(engine: Path, backend: str = AUTO) -> str:
    """In a line: which backend computes an engine here, its distance from the network, and what it was made with.

    Raises EngineError as `load`, and if the answers differ.
    """
    loaded, manifest = load(engine, backend), read(engine)
    return f"{loaded.backend} {_parity(engine, manifest, loaded.backend)()}; made with {_versions(manifest)}"


def crowd(hops: int, frames: int = 2, queries: int = 6) -> dict[str, NDArray[np.generic]]:
    """Inputs of `STREAM` for a measurement: so many hops of so many frames and queries each."""
    rng = np.random.default_rng(0)
    return batch([_view(rng, frames, queries, black=False) for _ in range(hops)])


def _trial(what: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, attempt())
    except (EngineError, ValueError) as error:
        return Finding(what, False, str(error))


def _spec(engine: Path, manifest: Manifest) -> str:
    require_spec(engine, manifest, STREAM)
    return "that of this version"


def _files(engine: Path, manifest: Manifest) -> list[Finding]:
    """Findings on the files that a manifest names, each with the command that makes it again."""
    files = {
        "checkpoint": (manifest.checkpoint, "export"),
        "onnx": (manifest.onnx, "export"),
        "encoder": (manifest.encoder, "export --only-encoder"),
        "plan": (manifest.plan and manifest.plan.artifact, "compile"),
    }
    return [_file(engine, kind, artifact, command) for kind, (artifact, command) in files.items() if artifact]


def _file(engine: Path, kind: str, artifact: Artifact, command: str) -> Finding:
    def attempt() -> str:
        return f"{verified(engine, artifact, command).name}, SHA-256 {artifact.sha256[:12]}..."

    return _trial(kind, attempt)


def _versions(manifest: Manifest) -> str:
    """Packages whose version is not the one that the engine was made with: worth knowing, no fault in itself."""
    others = []
    for package, version in manifest.versions.items():
        try:
            here = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if here != version:
            others.append(f"{package} {version} (here {here})")
    return ", ".join(others) or "the versions here"


def _parity(engine: Path, manifest: Manifest, backend: str) -> Callable[[], str]:
    def attempt() -> str:
        if backend == "torch":
            return "is the network itself"
        if fault := torch_fault():
            return _kept(manifest.parity.get(backend), fault)
        found = parity(load(engine, "torch"), load(engine, backend), TOLERANCES[backend])
        require_parity(found, f"{manifest_path(engine).parent.name} by {backend}")
        return f"within {found.largest:.2g} of the network on {found.hops} golden hops"

    return attempt


def _encoder_parity(engine: Path, manifest: Manifest) -> str:
    fault = torch_fault()
    if manifest.encoder is None and fault:
        load_encoder(engine)  # raises, naming what provides one
    if manifest.encoder is None:
        return f"the checkpoint's own, by torch; to do without torch {rebuild(engine, 'export --only-encoder')}"
    if fault:
        return _kept(manifest.parity.get("encoder"), fault)
    reference = load_checkpoint(verified(engine, manifest.checkpoint)).encoder.embed
    found = encoder_parity(reference, load_encoder(engine), TOLERANCES["encoder"])
    require_parity(found, f"the query encoder of {manifest_path(engine).parent.name}")
    return f"within {found.largest:.2g} of the checkpoint's on {found.hops} golden questions"


def _kept(proof: Parity | None, fault: str) -> str:
    """The parity that was measured when the engine was made, for a machine that cannot measure it."""
    measured = f"within {proof.largest:.2g} of the network when it was made" if proof else "never compared"
    return f"{measured}; to compare here: {fault}"
