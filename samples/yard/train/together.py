"""Training in several processes at once, each with batches of its own, as `torchrun` starts them."""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def join() -> None:
    """Join the other processes, where `torchrun` has started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")


def place() -> tuple[int, int]:
    """The number of this process, from 0, and of those that train together."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def wait() -> None:
    """Until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def average(module: nn.Module) -> None:
    """Replace every gradient by its mean over the processes; what one of them has no gradient of counts as 0 there."""
    if dist.is_initialized():
        learned = [weight for weight in module.parameters() if weight.requires_grad]
        flat = torch.cat([_gradient(weight).flatten() for weight in learned])
        dist.all_reduce(flat)
        _hand_out(flat / dist.get_world_size(), learned)


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _hand_out(flat: Tensor, learned: Iterable[Tensor]) -> None:
    start = 0
    for weight in learned:
        weight.grad = flat[start : start + weight.numel()].view_as(weight)
        start += weight.numel()
