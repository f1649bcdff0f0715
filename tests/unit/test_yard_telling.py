"""What the lower part's heads say is to be repeated where it matters, and nowhere else."""

import torch

from samples.yard.train.telling import TOLD, told_loss
from samples.yard.world.targets import HEADS

STARTS = dict(
    zip(HEADS, [0, *torch.tensor([head.outputs for head in HEADS.values()]).cumsum(0).tolist()], strict=False)
)
TELLING = ("kind", "colour", "person", "legible", "plate", "glyphs")


def lower(cells: int = 40) -> torch.Tensor:
    """Outputs of heads that are sure of everything; the first cell alone shows a plate."""
    said = 8 * torch.randn(cells, sum(head.outputs for head in HEADS.values()), generator=torch.manual_seed(0))
    said[:, STARTS["legible"]] = -20.0
    said[0, STARTS["legible"]] = 20.0
    return said


def repeated(said: torch.Tensor) -> torch.Tensor:
    parts = [said[:, STARTS[name] : STARTS[name] + HEADS[name].outputs] for name in TELLING]
    return torch.cat(parts, 1).clone()


def test_who_repeats_it_all_loses_least():
    said = lower()
    exact = repeated(said)
    assert exact.shape[1] == TOLD
    assert told_loss(exact, said) < 0.2  # what is left is what the heads themselves are not sure of
    assert told_loss(torch.zeros_like(exact), said) > 5 * told_loss(exact, said)


def test_a_plate_counts_in_its_own_cells_only():
    said = lower()
    at = slice(*(sum(HEADS[name].outputs for name in TELLING[:place]) for place in (4, 5)))
    elsewhere, there = repeated(said), repeated(said)
    elsewhere[1:, at] = 0
    there[0, at] = 0
    exact = told_loss(repeated(said), said)
    assert abs(told_loss(elsewhere, said) - exact) < 1e-3
    assert told_loss(there, said) > exact + 0.2


def test_nothing_is_taught_to_the_heads_that_speak():
    said = lower().requires_grad_()
    told_loss(torch.zeros(40, TOLD, requires_grad=True), said).backward()
    assert said.grad is None
