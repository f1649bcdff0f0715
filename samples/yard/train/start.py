"""The starting point of training: weights of a size that suits narrow layers, patches and times seen as waves."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
_WAVES, _PERIODS_S = 24, (0.8, 128.0)
_SHARES = (0.56, 0.22, 0.22)  # of the channels: for brightness, and for the two differences of colour


def widen(module: nn.Module) -> None:
    """Draw matrices anew with a deviation of one over the root of what comes in: the 0.02 of large models leaves layers
    of some hundred channels almost silent."""
    for name, weight in module.named_parameters():
        if weight.ndim == 2 and "embed" not in name and "heads" not in name:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)


def embed_words(embeddings: Tensor, times: Mapping[float, int]) -> None:
    """Draw the embeddings of words, float32 `[words, width]`, anew; those of `times` (id by seconds) are waves, so that
    near times are alike from the start, and a time that is hardly ever met means something."""
    width = embeddings.shape[1]
    nn.init.normal_(embeddings, std=width**-0.5)
    waves = torch.from_numpy(time_waves(list(times)))
    turned = nn.init.orthogonal_(torch.empty(waves.shape[1], width))
    with torch.no_grad():
        embeddings[list(times.values())] = waves @ turned / waves.shape[1] ** 0.5


def hold(embeddings: nn.Parameter, words: Sequence[int]) -> None:
    """Learn nothing about these words. Times would else be driven from where they began, all the same way, by the many
    answers that are none, and a time that is hardly ever met would mean nothing any more. Weight decay shrinks all of
    them alike."""
    learned = torch.ones(len(embeddings), 1)
    learned[list(words)] = 0
    embeddings.register_hook(lambda gradient: gradient * learned.to(gradient.device))  # type: ignore[no-untyped-call]


def time_waves(times_s: Sequence[float] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines and sines of times, from one that turns in less than a second to one that hardly moves: float32
    `[times, 2 * _WAVES]`."""
    turns = np.asarray(times_s, np.float64)[:, None] / np.geomspace(*_PERIODS_S, _WAVES) * 2 * np.pi
    return np.asarray(np.concatenate([np.cos(turns), np.sin(turns)], axis=1), np.float32)


def embed_cosines(visual: nn.Module) -> None:
    """Let each channel of the patch embedding begin as one coarse cosine of a patch's brightness or colour."""
    weight = visual.get_parameter("patch_embed.proj.weight")
    channels, _, times, side, _ = weight.shape
    counts = [round(share * channels) for share in _SHARES[1:]]
    filters = [
        colour[:, None, None] * wave
        for colour, count in zip(_COLOURS, [channels - sum(counts), *counts], strict=True)
        for wave in _cosines(side)[:count]
    ]
    start = np.stack(filters)[:, :, None].repeat(times, axis=2) / times
    with torch.no_grad():
        weight.copy_(torch.from_numpy(start))


def _cosines(side: int) -> list[NDArray[np.float64]]:
    """The two-dimensional cosines of a square, coarse ones first, each of length 1."""
    along = [np.cos(np.pi * (np.arange(side) + 0.5) * wave / side) for wave in range(side)]
    orders = sorted(((a, b) for a in range(side) for b in range(side)), key=lambda order: (sum(order), order))
    waves = [np.outer(along[a], along[b]) for a, b in orders]
    return [wave / np.linalg.norm(wave) for wave in waves]
