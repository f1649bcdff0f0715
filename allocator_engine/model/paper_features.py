"""The inputs of the configuration `paper`: the frozen features of a SmolVLM2 (Marafioti et al., 2025)."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from allocator_engine.digests import of_weights
from allocator_engine.errors import EngineMismatch
from allocator_engine.model import pretrained
from allocator_engine.resize import Picture

MAX_TOKENS = 1024
"""Tokens of the queries that are read; what follows is ignored."""

_FRAMES = 8  # encoded in one call


class SmolFeatures:
    """Vision tokens of frames and hidden states of text, from a local SmolVLM2 or one on the Hub, frozen.

    `width` is the length of a feature, `tokens` how many of them a frame has: 576 and 64 with
    HuggingFaceTB/SmolVLM2-256M-Video-Instruct; `weights` is a hash of its weights. Raises EngineMissing if the model is
    not there, and EngineMismatch if it is of another kind or its weights do not fit.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.name = pretrained.full_name(name)
        model = pretrained.model(self.name)
        if model.config.model_type != "smolvlm":
            raise EngineMismatch(f"{name} is of the family {model.config.model_type!r}; expected smolvlm")
        self._words = pretrained.tokenizer(self.name)
        self._model: nn.Module = torch.nn.Module.to(model, device)
        self._device, self.weights = device, of_weights(model)
        vision = model.config.vision_config
        self._side_px = int(vision.image_size)
        self.width = int(model.config.text_config.hidden_size)
        self.tokens = (self._side_px // int(vision.patch_size) // int(model.config.scale_factor)) ** 2

    def frames(self, pictures: Sequence[Picture]) -> Tensor:
        """Float32 `[frames, tokens, width]`: what SigLIP sees of each whole picture, made square, behind the connector
        that puts 4 x 4 patches into a token."""
        vision, connector = self._model.get_submodule("vision_model"), self._model.get_submodule("connector")
        parts = [torch.zeros(0, self.tokens, self.width, device=self._device)]
        with torch.no_grad():
            for first in range(0, len(pictures), _FRAMES):
                shown = [picture.render(self._side_px, self._side_px) for picture in pictures[first : first + _FRAMES]]
                pixels = torch.from_numpy(np.stack(shown)).to(self._device).permute(0, 3, 1, 2).float()
                parts.append(connector(vision(pixels / 127.5 - 1.0).last_hidden_state))
        return torch.cat(parts)

    def words(self, texts: Sequence[str]) -> Tensor:
        """Float32 `[tokens, width]`: the language model's last hidden states of the queries, line by line; none for no
        queries."""
        read = self._words("\n".join(texts), add_special_tokens=False, truncation=True, max_length=MAX_TOKENS)
        ids = torch.tensor([read["input_ids"]], dtype=torch.int64, device=self._device)
        if not ids.numel():
            return torch.zeros(0, self.width, device=self._device)
        with torch.no_grad():
            return cast(Tensor, self._model.get_submodule("text_model")(input_ids=ids).last_hidden_state[0])
