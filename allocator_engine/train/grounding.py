"""Lessons from pictures and queries, allocating nothing: what cells show, which queries hold, and their transitions.

A hop that decides a question about the past counts as a transition: it is worth the same look.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from allocator_engine.train.learner import Learner
from allocator_engine.train.rollout import Episode
from allocator_engine.train.transitions import any_transition, transitions
from allocator_engine.train.watched import Watched


def grounding_loss(episode: Episode, learner: Learner, cells_weight: float) -> tuple[Tensor, dict[str, float]]:
    """The loss on what each cell shows where that is known, and on what holds and changes in each frame; and its parts.

    Raises ValueError for a network that does not say such things.
    """
    watched = learner.watch(episode)
    understood = learner.understand(watched, (), episode.known)
    if understood.foreseen is None:
        raise ValueError("this network does not say which queries hold; let `grounding` be empty")
    losses = foreseen_losses(understood.foreseen, watched, episode)
    loss = torch.stack([*losses.values()]).sum()
    if understood.cells is not None and episode.cells is not None:
        losses["cells"] = _balanced(understood.cells, episode.cells)
        loss = loss + cells_weight * losses["cells"]
    return loss, figures_of(losses)


def foreseen_losses(foreseen: Tensor, watched: Watched, episode: Episode) -> dict[str, Tensor]:
    """Cross entropies of whether each known query holds at the end of each hop, and of whether it, and any of them,
    changes or is decided in each frame, where those are known. `foreseen` as a network understands it."""
    ends = [max(hop.stop - 1, 0) for hop in watched.hops]
    decided = transitions(episode.holds) if episode.decided is None else episode.decided
    hop_of = watched.hop_of
    return {
        "holds": _cross_entropy(foreseen[ends, 1:, 0], episode.holds.T),
        "transitions": _cross_entropy(foreseen[:, 1:, 1], decided.T[hop_of]),
        "any_transition": _cross_entropy(foreseen[:, :1, 1], any_transition(decided).T[hop_of]),
    }


def figures_of(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Losses as figures of the log."""
    return {name: float(loss.detach()) for name, loss in losses.items()}


def _cross_entropy(said: Tensor, truth: NDArray[np.int8] | NDArray[np.float32]) -> Tensor:
    """Mean cross entropy of logits against 0 to 1, where the truth is not -1."""
    wanted = torch.from_numpy(truth.astype(np.float32)).to(said.device)
    known = wanted >= 0
    if not bool(known.any()):
        return said.sum() * 0
    return functional.binary_cross_entropy_with_logits(said[known], wanted[known])


def _balanced(said: Tensor, truth: NDArray[np.int8]) -> Tensor:
    """Cross entropy of what cells show, `[frames, 112, slots]`: of each slot the yeses weigh as much as the noes."""
    wanted = torch.from_numpy(truth).to(said.device)
    each = functional.binary_cross_entropy_with_logits(said, wanted.clamp(min=0).float(), reduction="none")
    sides = [(each * side).sum(dim=(0, 1)) / side.sum(dim=(0, 1)).clamp(min=1) for side in (wanted == 1, wanted == 0)]
    both: Tensor = (sides[0] + sides[1]).mean() / 2
    return both
