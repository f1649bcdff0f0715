"""The trained parts: the network that understands and decides, and the query encoder if it is ours."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from allocator_engine.model.network import StreamNetwork
from allocator_engine.model.query import QueryEncoder, SentenceEncoder
from allocator_engine.spec import QUERY_FEATURES
from allocator_engine.train.rollout import Episode
from allocator_engine.train.watched import Watched, read


@dataclass(frozen=True, slots=True)
class Understood:
    """An episode's frames as a network understands them: `meaning` to the standing queries, `[1, frames, features]`.

    From a network that foresees: `foreseen`, logits `[frames, 1 + queries, 2]` that each query, standing or beside,
    holds once the frame is shown and that it changes about then, behind those of any query, of which only the
    transitions mean something; and `cells`, logits `[frames, 112, slots]` of what each cell shows.
    """

    meaning: Tensor
    foreseen: Tensor | None = None
    cells: Tensor | None = None


class Learner(nn.Module, ABC):
    """A configuration of the network as CAPO trains it: its parameters are what is learned.

    `about` names everything that the outcome of a training depends on.
    """

    about: str

    @abstractmethod
    def watch(self, episode: Episode) -> Watched:
        """The network's view of an episode: made once, however often the episode is played."""

    @abstractmethod
    def understand(self, watched: Watched, standing: Sequence[str], beside: Sequence[str] = ()) -> Understood:
        """The meaning of the frames to the standing queries, and what is foreseen of them and of those beside."""

    @abstractmethod
    def decide(self, meaning: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and concentration `[group, frames]` of the policy, of `meaning` `[group, frames, features]` and grants
        `[group, frames]` as `grant_level` gives them."""


class StreamLearner(Learner):
    """The configuration `stream`, and its query encoder if that can be trained. Of cells it says `slots` things."""

    def __init__(self, network: StreamNetwork, encoder: SentenceEncoder, slots: int = 0) -> None:
        super().__init__()
        self.network = network
        self.shows = nn.Linear(network.shape.width, slots) if slots else None  # training only
        self.words = encoder if isinstance(encoder, QueryEncoder) else None
        self.encoder = encoder
        self.about = f"{network.shape} {encoder.about}"

    def watch(self, episode: Episode) -> Watched:
        return Watched.of(episode)

    def understand(self, watched: Watched, standing: Sequence[str], beside: Sequence[str] = ()) -> Understood:
        queries, asked = self._embedded((*standing, *beside))
        asked[:, len(standing) :] = 0
        cells, meaning, foreseen = read(self.network, watched, queries, asked)
        return Understood(meaning, foreseen[0], self.shows(cells[0]) if self.shows else None)

    def decide(self, meaning: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.decide(meaning, level)

    def _embedded(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings `[1, texts, 128]` and a mask of ones `[1, texts]`; for no text a single padding."""
        device = self.network.place.device
        if not texts:
            return torch.zeros(1, 1, QUERY_FEATURES, device=device), torch.zeros(1, 1, device=device)
        found = self.words(texts) if self.words else torch.from_numpy(self.encoder.embed(texts)).to(device)
        return found[None], torch.ones(1, len(texts), device=device)


def weight_groups(learner: Learner, decay: float) -> list[dict[str, object]]:
    """Parameters for AdamW: weights decay; biases, norms and embeddings do not."""
    named = [(name, weight) for name, weight in learner.named_parameters() if weight.requires_grad]
    plain = [weight for name, weight in named if weight.ndim > 1 and "table" not in name and "place" not in name]
    rest = [weight for _, weight in named if not any(weight is one for one in plain)]
    return [{"params": plain, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
