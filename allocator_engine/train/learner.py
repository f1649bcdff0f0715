"""What training changes: the network, and the query encoder if it is ours."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from allocator_engine.model.network import StreamNetwork
from allocator_engine.model.query import QueryEncoder, SentenceEncoder
from allocator_engine.spec import QUERY_FEATURES
from allocator_engine.train.watched import Watched, perceive


class Learner(nn.Module):
    """The network and, if it can be trained, its query encoder."""

    def __init__(self, network: StreamNetwork, encoder: SentenceEncoder) -> None:
        super().__init__()
        self.network = network
        self.words = encoder if isinstance(encoder, QueryEncoder) else None
        self._encoder = encoder

    def embedded(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings `[1, texts, 128]` and a mask of ones `[1, texts]`; for no text a single padding."""
        device = self.network.place.device
        if not texts:
            return torch.zeros(1, 1, QUERY_FEATURES, device=device), torch.zeros(1, 1, device=device)
        found = self.words(texts) if self.words else torch.from_numpy(self._encoder.embed(texts)).to(device)
        return found[None], torch.ones(1, len(texts), device=device)

    def understand(self, watched: Watched, told: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What each frame means to the queries `[1, frames, features]`, and to each alone behind the null query."""
        return self.network.read(perceive(self.network, watched), *self.embedded(told))


def weight_groups(learner: Learner, decay: float) -> list[dict[str, object]]:
    """Parameters for AdamW: weights decay; biases, norms and embeddings do not."""
    named = [(name, weight) for name, weight in learner.named_parameters() if weight.requires_grad]
    plain = [weight for name, weight in named if weight.ndim > 1 and "table" not in name and "place" not in name]
    rest = [weight for _, weight in named if not any(weight is one for one in plain)]
    return [{"params": plain, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
