"""A loss for repeating what the heads of the lower vision part put out for each cell.

A plate's characters are a hundredth of what a cell knows, so a squared error over all of it would let them go.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from samples.yard.train.vision import evenly
from samples.yard.world.facts import KINDS, VEHICLES
from samples.yard.world.targets import HEADS

_SAID_OF: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "kind": ("", ()),
    "colour": ("kind", tuple(KINDS.index(kind) for kind in VEHICLES)),
    "person": ("kind", (KINDS.index("person"),)),
    "legible": ("", ()),
    "plate": ("legible", (0,)),
    "glyphs": ("legible", (0,)),
}
"""The heads to repeat; the cells that matter to each are those of which another head says one of these."""

TOLD = sum(HEADS[name].outputs for name in _SAID_OF)
"""Outputs of all of them."""


def told_loss(repeated: Tensor, lower: Tensor) -> Tensor:
    """The distance of `repeated` `[cells, TOLD]` from the output of the lower part's heads, `lower` `[cells, outputs]`,
    both logits: the mean over heads of the cross entropy to what each says, where that matters."""
    said = dict(zip(HEADS, torch.split(lower.detach(), [head.outputs for head in HEADS.values()], 1), strict=True))
    parts = torch.split(repeated, [HEADS[name].outputs for name in _SAID_OF], 1)
    losses = []
    for (name, (other, slots)), part in zip(_SAID_OF.items(), parts, strict=True):
        matters = said[other][:, list(slots)].sigmoid().amax(1) if other else torch.ones_like(part[:, 0])
        if HEADS[name].classes == 2:
            yes = said[name].sigmoid() * matters[:, None]
            losses.append(evenly(part, yes, matters[:, None] - yes))
        else:
            shape = -1, HEADS[name].slots, HEADS[name].classes
            losses.append(_choice(part.reshape(shape), said[name].reshape(shape), matters))
    return torch.stack(losses).mean()


def _choice(part: Tensor, said: Tensor, matters: Tensor) -> Tensor:
    """Cross entropy between choices `[cells, slots, classes]`."""
    each = -(said.softmax(2) * part.log_softmax(2)).sum(2).mean(1)
    return (each * matters).sum() / matters.sum().clamp(min=1)
