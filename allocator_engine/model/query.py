"""What a question asks for, as a vector: computed once, when a watch is registered."""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from allocator_engine.spec import QUERY_FEATURES

MAX_WORDS = 64
"""Words of a question that are read; what follows is ignored."""

_GRAMS = (3, 4, 5)
_WORD = re.compile(r"\w+")


class SentenceEncoder(Protocol):
    """Turns questions into vectors. `about` names what the vectors depend on, apart from what training changes."""

    @property
    def about(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Float32 `[texts, 128]`, each of length 1. The same text always gives the same vector."""
        ...


class QueryEncoder(nn.Module):
    """Hashed words, pairs of words and character n-grams (Bojanowski et al., 2017, fastText), and one mixing layer.

    Small enough to be trained along with the network; words it never saw share n-grams with those it did.
    """

    def __init__(self, buckets: int = 8192, width: int = 96) -> None:
        super().__init__()
        self.buckets, self.width = buckets, width
        self.table = nn.EmbeddingBag(buckets, width, mode="sum")
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, QUERY_FEATURES))

    @property
    def about(self) -> str:
        """See SentenceEncoder."""
        return f"hashed words, {self.buckets} x {self.width}"

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Float32 `[texts, 128]`, each of length 1."""
        parts = [hashed(text, self.buckets) for text in texts]
        device = self.table.weight.device
        ids = torch.tensor([id_ for part in parts for id_ in part[0]], dtype=torch.int64, device=device)
        weights = torch.tensor([weight for part in parts for weight in part[1]], device=device)
        ends = np.cumsum([0, *(len(part[0]) for part in parts)])
        starts = torch.from_numpy(ends[:-1].astype(np.int64)).to(device)
        summed = self.table(ids, starts, per_sample_weights=weights)
        return functional.normalize(self.mix(self.norm(summed)), dim=1)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See SentenceEncoder."""
        if not texts:
            return np.zeros((0, QUERY_FEATURES), np.float32)
        with torch.inference_mode():
            return np.asarray(self(texts).cpu().numpy(), np.float32)


@lru_cache(maxsize=65_536)
def hashed(text: str, buckets: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Bucket and weight of every feature of a text; words, pairs and n-grams weigh the same in sum.

    The hash is CRC-32 of UTF-8, so that every process and machine finds the same buckets. A text without words has one
    feature of its own.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())[:MAX_WORDS]
    pairs = [f"{a} {b}" for a, b in zip(["", *words], [*words, ""], strict=True)]
    framed = [f"<{word}>" for word in words]
    grams = [word[i : i + n] for word in framed for n in _GRAMS for i in range(len(word) - n + 1)]
    kinds = (("w", words or [""]), ("p", pairs if words else []), ("g", grams))
    found = [(f"{kind}:{part}", len(parts) ** -0.5) for kind, parts in kinds for part in parts]
    ids = tuple(zlib.crc32(name.encode()) % buckets for name, _ in found)
    return ids, tuple(weight for _, weight in found)
