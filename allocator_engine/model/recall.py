"""The memory of a stream: leaky averages of what each cell showed and each query read, over a moment up to a minute.

The memory of a place (a cell, or a query) is four averages of 15 features, with time constants of 0.5, 3, 15 and 60
seconds, and how much has been seen for each of them (0 to 1). Nothing else is remembered, and everything in it fades.
"""

import torch
from torch import Tensor, nn

from allocator_engine.spec import MEMORY_FEATURES

SPANS_S = (0.5, 3.0, 15.0, 60.0)
"""Time constants of the averages, in seconds."""

FEATURES = 15
"""Features of a place that are averaged."""

RECALLED = 2 * FEATURES * len(SPANS_S) + len(SPANS_S) + 1
"""Features of a place that the comparison with the memory gives."""

assert (FEATURES + 1) * len(SPANS_S) == MEMORY_FEATURES

_LEAST_S = 0.1  # a frame stands for at least this long, also the first of a stream
_LEAST_SEEN = 1e-4


class Recall(nn.Module):
    """Compares every frame with what came before it, and remembers it for those that follow."""

    spans_s: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Linear(width, FEATURES)
        self.register_buffer("spans_s", torch.tensor(SPANS_S), persistent=False)

    def forward(
        self, seen: Tensor, present: Tensor, elapsed_s: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features `[batch, frames, places, 15]` of `seen` `[batch, frames, places, width]`, what the memory says of
        them `[batch, frames, places, RECALLED]`, and the next memory `[batch, places, MEMORY_FEATURES]`."""
        features = torch.tanh(self.features(seen))
        before, after = self._weights(present, elapsed_s)
        # Each average is linear in what was seen: one product over all frames instead of a loop.
        amounts = torch.cat([features, torch.ones_like(features[:, :, :, :1])], dim=3)
        kept = torch.unflatten(memory, 2, (len(SPANS_S), FEATURES + 1))
        earlier = torch.einsum("bijs,bjcf->bicsf", before[:, :, 1:], amounts)
        earlier = earlier + before[:, :, 0, None, :, None] * kept[:, None]
        following = torch.einsum("bjs,bjcf->bcsf", after[:, 1:], amounts) + after[:, 0, None, :, None] * kept
        return features, self._compared(features, earlier, elapsed_s), following.flatten(2)

    def _weights(self, present: Tensor, elapsed_s: Tensor) -> tuple[Tensor, Tensor]:
        """The part of the memory (first) and of each frame that is left before each frame `[batch, frames, 1 + frames,
        spans]`, and after the last one `[batch, 1 + frames, spans]`."""
        lasts_s = elapsed_s.clamp(min=_LEAST_S) * present
        until_s = torch.cumsum(lasts_s, dim=1)
        # A frame's time begins where the one before it ended; what stands before it has not faded over its own time.
        begins_s = until_s - lasts_s
        starts_s = torch.cat([torch.zeros_like(until_s[:, :1]), until_s], dim=1)
        written = 1.0 - torch.exp(-lasts_s[:, :, None] / self.spans_s)
        written = torch.cat([torch.ones_like(written[:, :1]), written], dim=1)
        order = torch.cumsum(torch.ones_like(starts_s[0]), dim=0)
        earlier = (order[None, :] <= order[: until_s.shape[1], None]).to(starts_s.dtype)
        ages_s = ((begins_s[:, :, None] - starts_s[:, None, :]) * earlier).clamp(min=0.0)
        before = torch.exp(-ages_s[..., None] / self.spans_s) * earlier[None, :, :, None] * written[:, None]
        ages_s = (until_s[:, -1:] - starts_s).clamp(min=0.0)
        return before, torch.exp(-ages_s[..., None] / self.spans_s) * written

    def _compared(self, features: Tensor, earlier: Tensor, elapsed_s: Tensor) -> Tensor:
        """Differences of features `[batch, frames, places, 15]` from the averages `[batch, frames, places, spans,
        16]`."""
        amount = earlier[..., FEATURES:]
        known = (amount > _LEAST_SEEN).to(features.dtype)
        change = (features[:, :, :, None] - earlier[..., :FEATURES] / amount.clamp(min=_LEAST_SEEN)) * known
        pause = torch.log1p(elapsed_s)[:, :, None, None].expand(-1, -1, features.shape[2], 1)
        return torch.cat([change.flatten(3), change.abs().flatten(3), amount.flatten(3), pause], dim=3)
