"""The beginning of a training: weights from nothing, or those of an engine that was trained before."""

from dataclasses import replace
from pathlib import Path

import torch

from allocator_engine.errors import EngineError
from allocator_engine.model.checkpoint import load
from allocator_engine.model.network import Shape, StreamNetwork
from allocator_engine.model.query import QueryEncoder
from allocator_engine.train.learner import StreamLearner


def begin(shape: Shape, seed: int, start: Path | None = None) -> tuple[StreamLearner, str]:
    """A learner of `shape`, and a remark on where it begins: at the checkpoint `start` where that fits, else at
    weights drawn from `seed`. One that does not listen to queries begins at the weights of one that does; one that
    listens never at those of one that does not. Computes on one thread from then on."""
    torch.set_num_threads(1)  # each thread that asks has one of its own
    torch.manual_seed(seed)
    if start is not None:
        try:
            known = load(start)
        except EngineError as error:
            return _anew(shape), f"begins from nothing: {error}"
        has = known.network.shape
        if has == shape or (not shape.listens and replace(has, listens=False) == shape):
            network = StreamNetwork(shape)
            network.load_state_dict(known.network.state_dict())
            return StreamLearner(network.train(), known.encoder), f"begins from {start.parent.name}/{start.name}"
        return _anew(shape), f"begins from nothing: {start} has another shape"
    return _anew(shape), "begins from nothing"


def _anew(shape: Shape) -> StreamLearner:
    return StreamLearner(StreamNetwork(shape), QueryEncoder())
