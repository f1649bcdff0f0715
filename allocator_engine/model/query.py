"""The query encoder: a question as a vector, computed once, when a watch is registered."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from allocator_engine.spec import QUERY_FEATURES
from allocator_engine.words import features


class SentenceEncoder(Protocol):
    """Turns questions into vectors. `about` names what the vectors depend on, apart from what training changes."""

    @property
    def about(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Float32 `[texts, 128]`, each of length 1. The same text always gives the same vector."""
        ...


class QueryEncoder(nn.Module):
    """Hashed words, pairs of words and character n-grams (Bojanowski et al., 2017, fastText), and one mixing layer.

    A feature's hash modulo `buckets` is its row of the table. Small enough to be trained with the network; words it
    never saw share n-grams with those it did.
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
        parts = [features(text) for text in texts]
        device = self.table.weight.device
        ids = torch.tensor([id_ % self.buckets for part in parts for id_ in part[0]], dtype=torch.int64, device=device)
        weights = torch.tensor([weight for part in parts for weight in part[1]], device=device)
        ends = np.cumsum([0, *(len(part[0]) for part in parts)])
        starts = torch.from_numpy(ends[:-1].astype(np.int64)).to(device)
        summed = self.table(ids, starts, per_sample_weights=weights)
        return self.mixed(summed)

    def mixed(self, summed: Tensor) -> Tensor:
        """Vectors of the weighted sums of features, `[texts, width]`: float32 `[texts, 128]`, each of length 1."""
        return functional.normalize(self.mix(self.norm(summed)), dim=1)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See SentenceEncoder."""
        if not texts:
            return np.zeros((0, QUERY_FEATURES), np.float32)
        with torch.inference_mode():
            return np.asarray(self(texts).cpu().numpy(), np.float32)
