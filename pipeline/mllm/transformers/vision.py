"""The model's vision encoder: segments to vision tokens, as many segments at once as are given.

Pictures do not look at each other in the encoder, so segments of several streams may share one call, and an image and
a two-frame video of one temporal patch are encoded alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pipeline.mllm.card import Card
from pipeline.mllm.patches import patch_grid, patches
from pipeline.mllm.prompt import IMAGE_PAD, VIDEO_PAD, Vision
from pipeline.types import Segment


@dataclass(frozen=True, slots=True)
class Encoded:
    """One segment's vision tokens `[tokens, width of the text part]`, and the same of each earlier level that the
    family adds to its text layers (Qwen3-VL's deep stack; none elsewhere)."""

    tokens: torch.Tensor
    levels: tuple[torch.Tensor, ...]

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.tokens, *self.levels))


@dataclass
class EncoderOutput(BaseModelOutputWithPooling):
    """The encoder's output, which transformers takes in place of pixels: per picture, and per level
    and picture, its vision tokens."""

    # Declared as one tensor, the encoders of these families put a sequence of them there.
    pooler_output: Sequence[torch.Tensor] | None = None  # type: ignore[assignment]
    deepstack_features: Sequence[Sequence[torch.Tensor]] | None = None


class _VisionOutput(Protocol):
    pooler_output: Sequence[torch.Tensor]


class _VisionModel(Protocol):
    def get_image_features(
        self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, return_dict: bool
    ) -> _VisionOutput: ...


class VisionEncoder:
    """The vision part of a frozen model. Not thread-safe: one thread calls it."""

    def __init__(self, card: Card, model: PreTrainedModel) -> None:
        self._grid, self._normalisation = card.grid, card.normalisation
        self._model, self._device = cast(_VisionModel, model.get_submodule("model")), model.device

    def encode(self, segments: Sequence[Segment]) -> list[Encoded]:
        """The segments' vision tokens, in one call of the encoder."""
        if not segments:
            return []
        made = [torch.from_numpy(patches(segment.pixels, self._grid, self._normalisation)) for segment in segments]
        grids = [patch_grid(*segment.size, self._grid) for segment in segments]
        output = self._model.get_image_features(
            torch.cat(made).to(self._device),
            torch.tensor(grids, dtype=torch.long, device=self._device),
            return_dict=True,
        )
        levels: Sequence[Sequence[torch.Tensor]] = getattr(output, "deepstack_features", None) or []
        return [
            Encoded(tokens, tuple(level[number] for level in levels))
            for number, tokens in enumerate(output.pooler_output)
        ]


def encoder_outputs(segments: Sequence[Segment], encoded: Sequence[Encoded]) -> dict[str, EncoderOutput] | None:
    """The model's argument `mm_encoder_outputs` for segments in the order of the prompt; None without any."""
    kinds = {"image": IMAGE_PAD, "video": VIDEO_PAD}
    outputs = {
        kind: _joined([one for segment, one in zip(segments, encoded, strict=True) if Vision(segment).pad == pad])
        for kind, pad in kinds.items()
        if any(Vision(segment).pad == pad for segment in segments)
    }
    return outputs or None


def _joined(encoded: Sequence[Encoded]) -> EncoderOutput:
    levels = zip(*(one.levels for one in encoded), strict=True)
    return EncoderOutput(
        pooler_output=[one.tokens for one in encoded], deepstack_features=[list(level) for level in levels]
    )
