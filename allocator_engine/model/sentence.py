"""A sentence encoder of others in the place of the QueryEncoder: a BERT-like model, pooled and projected."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from allocator_engine.digests import of_weights
from allocator_engine.errors import EngineMismatch
from allocator_engine.model import pretrained
from allocator_engine.spec import QUERY_FEATURES

MAX_TOKENS = 128
"""Tokens of a question that are read; what follows is ignored."""

KEPT = 65_536
"""Embeddings that are kept."""


class PretrainedEncoder:
    """Mean over the tokens of the last hidden states (Reimers and Gurevych, 2019, Sentence-BERT), and 128 directions of
    it: a fixed random orthonormal projection, which about keeps the angles between sentences (Johnson and
    Lindenstrauss, 1984).

    `name` is a local folder or a name on the Hub, as sentence-transformers publishes them. Nothing of it is trained.
    `projection` float32 `[hidden, 128]` and `weights`, a hash, are those of a checkpoint; without them the projection
    is drawn from `seed`. Raises EngineMissing if the model is not there, and EngineMismatch if it has fewer than 128
    features or other weights.
    """

    def __init__(self, name: str, projection: Tensor | None = None, weights: str | None = None, seed: int = 0) -> None:
        self.name = pretrained.full_name(name)
        self._words, self._model = pretrained.tokenizer(self.name), pretrained.model(self.name)
        self.weights = of_weights(self._model)
        if weights is not None and weights != self.weights:
            raise EngineMismatch(
                f"{self.name} has the weights {self.weights}; expected {weights}, of which the checkpoint was trained"
            )
        hidden = int(self._model.config.hidden_size)
        self.projection = _drawn(hidden, seed, self.name) if projection is None else projection.float()
        if self.projection.shape != (hidden, QUERY_FEATURES):
            raise EngineMismatch(
                f"the projection is {list(self.projection.shape)}; {self.name} needs {[hidden, QUERY_FEATURES]}"
            )
        self._kept: dict[str, NDArray[np.float32]] = {}

    @property
    def about(self) -> str:
        """See SentenceEncoder."""
        return f"{self.name} {self.weights}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See SentenceEncoder."""
        if not texts:
            return np.zeros((0, QUERY_FEATURES), np.float32)
        # One at a time: padding beside a longer text would move the last digits.
        found = [self._known(text) for text in texts]
        return np.stack(found)

    def _known(self, text: str) -> NDArray[np.float32]:
        """Several threads may ask at once, and one may clear what another has just looked for."""
        vector = self._kept.get(text)
        if vector is None:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            vector = self._kept[text] = self._embedded(text)
        return vector

    def _embedded(self, text: str) -> NDArray[np.float32]:
        read = self._words(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            states: Tensor = self._model(**read).last_hidden_state[0]
            found = functional.normalize(states.mean(dim=0) @ self.projection, dim=0)
        return np.asarray(found.numpy(), np.float32)


def _drawn(hidden: int, seed: int, name: str) -> Tensor:
    if hidden < QUERY_FEATURES:
        raise EngineMismatch(f"{name} has {hidden} features; expected at least {QUERY_FEATURES}")
    normal = np.random.default_rng(seed).standard_normal((hidden, QUERY_FEATURES))
    return torch.from_numpy(np.linalg.qr(normal)[0]).float().contiguous()
