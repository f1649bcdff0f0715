"""The configuration `paper` in training: the head learns, the features are frozen and made once per episode."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from allocator_engine.model.paper import PaperHead
from allocator_engine.model.paper_features import SmolFeatures
from allocator_engine.train.learner import Learner, Understood
from allocator_engine.train.rollout import Episode
from allocator_engine.train.watched import Watched

_QUESTIONS = 4096  # sets of them whose hidden states are kept


@dataclass(frozen=True, slots=True)
class Featured(Watched):
    """`features` `[frames, tokens, width]` beside the thumbnails, which the regulariser compares."""

    features: Tensor


class PaperLearner(Learner):
    """Sees an episode as a whole, also what is decided before the rest of it is shown (see `model.paper`): what it
    reaches in training is that of an offline allocator."""

    def __init__(self, head: PaperHead, features: SmolFeatures) -> None:
        super().__init__()
        if features.width != head.shape.inputs:
            raise ValueError(f"the features of {features.name} are {features.width} wide; expected {head.shape.inputs}")
        self.head = head
        self.features = features
        self._words = lru_cache(_QUESTIONS)(features.words)
        self.about = f"{head.shape} {features.name}"

    def watch(self, episode: Episode) -> Watched:
        plain = Watched.of(episode)
        features = self.features.frames([picture for hop in episode.hops for picture in hop.pictures])
        return Featured(plain.thumbnails, plain.elapsed_s, plain.pts_s, plain.hops, features)

    def understand(self, watched: Watched, standing: Sequence[str], beside: Sequence[str] = ()) -> Understood:
        assert isinstance(watched, Featured)
        return Understood(self.head.understand(watched.features, self._words(tuple(standing)))[None])

    def decide(self, meaning: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        return self.head.decide(meaning, level.to(torch.float32))
