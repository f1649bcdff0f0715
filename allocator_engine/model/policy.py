"""The policy: one Beta distribution per frame, by mean and concentration (alpha + beta)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ACTION_RANGE = (1e-6, 1 - 1e-6)
"""Actions stay this far from 0 and 1, where the density of a Beta may be infinite."""


def sample(
    mean: NDArray[np.float32], concentration: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Actions drawn from Beta distributions, within ACTION_RANGE; of the arguments' shape."""
    wide = mean.astype(np.float64)
    drawn = rng.beta(wide * concentration, (1 - wide) * concentration)
    return np.clip(drawn, *ACTION_RANGE)


def log_prob(mean: Tensor, concentration: Tensor, action: Tensor) -> Tensor:
    """Log density of actions in (0, 1), of the arguments' shape."""
    alpha, beta = mean * concentration, (1 - mean) * concentration
    scale = torch.lgamma(concentration) - torch.lgamma(alpha) - torch.lgamma(beta)
    return scale + (alpha - 1) * torch.log(action) + (beta - 1) * torch.log1p(-action)


def entropy(mean: Tensor, concentration: Tensor) -> Tensor:
    """Differential entropy in nats: 0 for the uniform distribution, less for every other."""
    alpha, beta = mean * concentration, (1 - mean) * concentration
    volume = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(concentration)
    spread: Tensor = (
        (alpha - 1) * torch.digamma(alpha)
        + (beta - 1) * torch.digamma(beta)
        - (concentration - 2) * torch.digamma(concentration)
    )
    return volume - spread
