"""The vision part and the heads that teach it."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from samples.yard.episodes.vision import embed_patches_by_product, tokens
from samples.yard.shape import HIDDEN, SEEING_LAYERS, vision_fields
from samples.yard.train.pictures import VisionBatch
from samples.yard.train.start import embed_cosines, widen
from samples.yard.world.targets import HEADS

_MOST_WEIGHT = 10.0  # of a yes that is rare: more would make one mistaken cell drown out a picture


class TaughtVision(nn.Module):
    """The lower layers of Qwen3-VL's vision part, and one linear layer that answers all heads from each token."""

    def __init__(self, seed: int) -> None:
        from transformers import Qwen3VLVisionConfig, Qwen3VLVisionModel

        super().__init__()
        self._seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.visual = Qwen3VLVisionModel(Qwen3VLVisionConfig.from_dict(vision_fields(SEEING_LAYERS)))
            self.heads = nn.Linear(HIDDEN, sum(head.outputs for head in HEADS.values()))
            widen(self.visual)
        embed_cosines(self.visual)
        embed_patches_by_product(self.visual)

    def forget_heads(self) -> None:
        """Draw the heads anew, so that a stage may also begin from a checkpoint, which has none."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            self.heads.reset_parameters()

    def forward(self, patches: Tensor, grid_thw: Tensor) -> Tensor:
        """Outputs of all heads `[cells, outputs]`."""
        outputs: Tensor = self.heads(tokens(self.visual, patches, grid_thw))
        return outputs


def dense_loss(
    model: TaughtVision, batch: VisionBatch, stress: Mapping[str, float] | None = None
) -> tuple[Tensor, Mapping[str, float]]:
    """Weighted mean over heads of the cross entropy where the target is known, and each head's accuracy.

    `stress` multiplies the weights of heads; in those that it names, each yes/no slot weighs the same, and in each slot
    the yeses together as much as the noes: a bag that covers two cells of hundreds is not lost among them.
    """
    stress = stress or {}
    batch = batch.to(model.heads.weight.device)
    outputs = model(batch.patches, batch.grid_thw)
    parts = outputs.split([head.outputs for head in HEADS.values()], dim=1)
    total = outputs.new_zeros(())
    figures: dict[str, float] = {}
    for (name, head), part in zip(HEADS.items(), parts, strict=True):
        target = batch.targets[name]
        known = target >= 0
        if not known.any():
            figures[name] = math.nan
            continue
        if head.classes == 2:
            loss = even_loss(part, target) if name in stress else _yes_no_loss(part, target, head.rare)
            figures[name] = balanced(part[known] > 0, target[known] > 0)
            figures[f"{name} loss"] = float(loss.detach())
        else:
            values, wanted = part.unflatten(1, (head.slots, head.classes))[known], target[known]
            loss = functional.cross_entropy(values, wanted)
            figures[name] = float((values.argmax(1) == wanted).float().mean())
        total = total + head.weight * stress.get(name, 1.0) * loss
    return total, figures


def _yes_no_loss(values: Tensor, target: Tensor, rare: bool) -> Tensor:
    """Mean cross entropy of yes/no outputs `[cells, slots]` where the target is known (0 or 1)."""
    yes, no = (target == 1).sum(0), (target == 0).sum(0)
    weight = (no / yes.clamp(min=1)).clamp(1, _MOST_WEIGHT) if rare else None
    wanted = target.clamp(min=0).to(values.dtype)
    each = functional.binary_cross_entropy_with_logits(values, wanted, pos_weight=weight, reduction="none")
    return each[target >= 0].mean()


def even_loss(values: Tensor, target: Tensor) -> Tensor:
    """Mean over slots of the mean of the yeses' and of the noes' mean cross entropy; a slot may lack either."""
    return evenly(values, (target == 1).to(values.dtype), (target == 0).to(values.dtype))


def evenly(values: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """As `even_loss`, where each of `values` `[cells, slots]` counts as so much of a yes and of a no."""
    sides = [
        (share * functional.softplus(value)).sum(0) / share.sum(0).clamp(min=1)
        for share, value in ((yes, -values), (no, values))
    ]
    return torch.stack(sides).mean()


def balanced(said: Tensor, true: Tensor) -> float:
    """Mean of the hit rates among the true and among the false."""
    rates = [(said[true == state] == state).float().mean() for state in (True, False) if (true == state).any()]
    return float(torch.stack(rates).mean())
