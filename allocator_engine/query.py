"""Questions to vectors without torch: hashed words, and the trained encoder as an ONNX file."""

import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allocator_engine.errors import EngineFailed, EngineMissing
from allocator_engine.manifest import manifest_path, read, rebuild, verified
from allocator_engine.runtime import load_checkpoint, onnx_calls
from allocator_engine.spec import QUERY_FEATURES

MAX_WORDS = 64
"""Words of a question that are read; what follows is ignored."""

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Questions to vectors: float32 `[questions, 128]`, each of length 1. The same text always gives the same vector."""

INPUTS, OUTPUT = ("hashes", "weights"), "vector"
"""Tensors of the ONNX file, for one question: int64 and float32 `[features]` in, float32 `[128]` out."""

_GRAMS = (3, 4, 5)
_WORD = re.compile(r"\w+")


@lru_cache(maxsize=65_536)
def features(text: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Hash and weight of every feature of a text; words, pairs and n-grams weigh the same in sum.

    The hash is CRC-32 of UTF-8, the same in every process and on every machine. A text without words has one feature
    of its own.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())[:MAX_WORDS]
    pairs = [f"{a} {b}" for a, b in zip(["", *words], [*words, ""], strict=True)]
    framed = [f"<{word}>" for word in words]
    grams = [word[i : i + n] for word in framed for n in _GRAMS for i in range(len(word) - n + 1)]
    kinds = (("w", words or [""]), ("p", pairs if words else []), ("g", grams))
    found = [(f"{kind}:{part}", len(parts) ** -0.5) for kind, parts in kinds for part in parts]
    return tuple(zlib.crc32(name.encode()) for name, _ in found), tuple(weight for _, weight in found)


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
