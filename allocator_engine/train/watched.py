"""An episode as the network sees it in training: all of its frames at once."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from allocator_engine.encode import elapsed_s, thumbnails
from allocator_engine.model.network import StreamNetwork
from allocator_engine.spec import CELLS, MEMORY_FEATURES
from allocator_engine.train.rollout import Episode


@dataclass(frozen=True, slots=True)
class Watched:
    """`thumbnails` uint8 `[frames, 128, 224, 3]`, `elapsed_s` and `pts_s` `[frames]`, and the frames of each hop."""

    thumbnails: NDArray[np.uint8]
    elapsed_s: NDArray[np.float32]
    pts_s: NDArray[np.float32]
    hops: tuple[slice, ...]

    @classmethod
    def of(cls, episode: Episode) -> "Watched":
        """The frames of an episode, as serving would show them hop by hop."""
        ends = np.cumsum([0, *(len(hop.pictures) for hop in episode.hops)]).tolist()
        pts_s = [pts_s for hop in episode.hops for pts_s in hop.pts_s]
        return cls(
            thumbnails([picture for hop in episode.hops for picture in hop.pictures]),
            elapsed_s(pts_s, None),
            np.array(pts_s, np.float32),
            tuple(slice(first, last) for first, last in pairwise(ends)),
        )

    @property
    def hop_of(self) -> NDArray[np.int64]:
        """The hop of each frame: int64 `[frames]`."""
        return np.repeat(np.arange(len(self.hops)), [hop.stop - hop.start for hop in self.hops])


def read(network: StreamNetwork, watched: Watched, queries: Tensor, asked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The network's features of every frame, `[1, frames, 112, width]`, their meaning to the queries, and its logits
    of each query (see `StreamNetwork.read`).

    In one call, because a network that is shown an episode at once sees what it would hop by hop; one without memory
    is shown every hop as a stream of its own.
    """
    device = network.place.device
    shown = torch.from_numpy(watched.thumbnails).to(device)
    elapsed = torch.from_numpy(watched.elapsed_s).to(device)
    streams = [slice(0, len(shown))] if network.shape.remembers else watched.hops
    frames = [torch.arange(*each.indices(len(shown)), device=device) for each in streams if each.stop > each.start]
    at = pad_sequence(frames, batch_first=True)
    present = pad_sequence([torch.ones(len(each), device=device) for each in frames], batch_first=True)
    memory = torch.zeros(len(frames), CELLS, MEMORY_FEATURES, device=device)
    readings = torch.zeros(len(frames), queries.shape[1], MEMORY_FEATURES, device=device)
    cells, _ = network.perceive(shown[at], present, elapsed[at], memory)
    queries, asked = queries.expand(len(frames), -1, -1), asked.expand(len(frames), -1)
    meaning, foreseen, _ = network.read(cells, present, elapsed[at], queries, asked, readings)
    real = present > 0
    return cells[real][None], meaning[real][None], foreseen[real][None]
