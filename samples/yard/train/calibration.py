"""One temperature for all answers, so that the score of a watch means what it says."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen3VLForConditionalGeneration

from samples.yard.train.contexts import AS_SERVED, lesson_batch
from samples.yard.train.packing import IGNORED, Packer
from samples.yard.train.text import first_of_each, read

_WORK = 300_000.0
_SEED = (1, 5)
_TEMPERATURES = np.exp(np.linspace(np.log(0.6), np.log(2.5), 60))


def calibrate(
    model: Qwen3VLForConditionalGeneration, packer: Packer, files: Sequence[Path], most: float = _WORK
) -> float:
    """Fit the temperature to the answers to standing watches on episodes apart, and divide the output's scale by it.

    The scale is the last norm's weight, which nothing but the output reads. Returns the temperature.
    """
    rng = np.random.default_rng(_SEED)
    said, wanted = [], []
    with torch.inference_mode():
        for packed in (one.to(model.device) for one in lesson_batch(files, packer, AS_SERVED, rng, most)):
            known = packed.targets != IGNORED
            owner = packed.owner[known]
            standing = torch.tensor([question.kind == "standing" for question in packed.questions], device=owner.device)
            chosen = first_of_each(owner) & standing[owner]
            said.append(read(model, packed).said[chosen])
            wanted.append(packed.targets[known][chosen])
    temperature = best_temperature(torch.cat(said), torch.cat(wanted))
    with torch.no_grad():
        model.model.language_model.norm.weight.div_(temperature)
    return temperature


def best_temperature(said: Tensor, wanted: Tensor) -> float:
    """The temperature of least cross entropy: `said` are logits `[answers, vocabulary]`, `wanted` ids `[answers]`."""
    losses = [float(functional.cross_entropy(said / temperature, wanted)) for temperature in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])
