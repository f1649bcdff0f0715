"""Questions to vectors without torch: the trained encoder of hashed words, as an ONNX file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allocator_engine.errors import EngineFailed, EngineMissing
from allocator_engine.manifest import manifest_path, read, rebuild, verified
from allocator_engine.runtime import load_checkpoint, onnx_calls
from allocator_engine.spec import QUERY_FEATURES
from allocator_engine.words import features

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Questions to vectors: float32 `[questions, 128]`, each of length 1. The same text always gives the same vector."""

INPUTS, OUTPUT = ("hashes", "weights"), "vector"
"""Tensors of the ONNX file, for one question: int64 and float32 `[features]` in, float32 `[128]` out."""


def onnx_encoder(model: bytes) -> Embed:
    """The query encoder of an ONNX file's content, on one CPU thread.

    Raises EngineMismatch where ONNX Runtime is not installed, or does not take the model.
    """
    call = onnx_calls(model)

    def embedded(text: str) -> NDArray[np.float32]:
        hashes, weights = features(text)
        given = (np.array(hashes, np.int64), np.array(weights, np.float32))
        vector = call([OUTPUT], dict(zip(INPUTS, given, strict=True)))[0]
        if vector.shape != (QUERY_FEATURES,) or vector.dtype != np.float32:
            raise EngineFailed(
                f"the query encoder answered with {vector.dtype}{list(vector.shape)};"
                f" expected float32[{QUERY_FEATURES}]"
            )
        return np.asarray(vector, np.float32)

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        # One at a time: padding beside a longer text would move the last digits.
        return np.stack([embedded(text) for text in texts]) if texts else np.zeros((0, QUERY_FEATURES), np.float32)

    return embed


def load_encoder(engine: Path) -> Embed:
    """The query encoder of an engine: its ONNX file, or the checkpoint's where the engine has none.

    Raises EngineMissing where neither works here, naming the command that makes the file or the extra to install, and
    EngineMismatch for a file that is not the manifest's.
    """
    manifest = read(engine)
    if manifest.encoder is not None:
        return onnx_encoder(verified(engine, manifest.encoder, "export --only-encoder").read_bytes())
    try:
        return load_checkpoint(verified(engine, manifest.checkpoint)).encoder.embed
    except EngineMissing as error:
        raise EngineMissing(
            f"{manifest_path(engine)} names no file of its query encoder, so that its checkpoint has to be loaded:"
            f" {error}; or, where torch is installed, {rebuild(engine, 'export --only-encoder')}"
        ) from error
