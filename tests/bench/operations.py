"""Operations of the Allocator on a hop, against those of a large MLLM on the tokens that it leaves.

An operation is one multiplication or addition, of matrix products and convolutions alone.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from allocator_engine.check import crowd
from allocator_engine.grid import GRIDS
from allocator_engine.spec import STREAM

if TYPE_CHECKING:
    from torch import nn

SHARE = 0.1
"""The share of a hop's native tokens that the MLLM is shown."""

PICTURES = ((256, 448), (1080, 1920))
"""Heights and widths in px for which shares are reported: the smallest of interest, and a usual camera's."""


@dataclass(frozen=True, slots=True)
class Transformer:
    """A transformer as far as operations are counted: its layers, the width of their attention, the weights of a
    layer's matrices, and whether a token sees all others or only those before it."""

    layers: int
    width: int
    weights: int
    causal: bool

    def operations(self, tokens: int) -> int:
        """Operations of `tokens` in one pass: 2 per weight and token, and 4 per feature and pair of tokens that see
        each other, for the scores and for the sum of the values (Hoffmann et al., 2022, appendix F, without the
        softmax)."""
        pairs = tokens * (tokens + 1) // 2 if self.causal else tokens**2
        return self.layers * (2 * self.weights * tokens + 4 * self.width * pairs)


@dataclass(frozen=True, slots=True)
class LargeModel:
    """A multimodal LLM of the Qwen-VL kind: `merger` are the weights that make one token of `patches` vision patches,
    `embedding` those that make a patch of its pixels."""

    name: str
    vision: Transformer
    text: Transformer
    patches: int
    embedding: int
    merger: int

    def operations(self, tokens: int) -> int:
        """Operations of encoding and reading one segment of so many vision tokens. The questions, the answers, and what
        the segment's tokens see of the context before it are left out: they would only add to it."""
        patches = self.patches * tokens
        seen = self.vision.operations(patches) + 2 * self.embedding * patches
        return seen + 2 * self.merger * tokens + self.text.operations(tokens)


def _qwen3_vl_8b() -> LargeModel:
    """From the fields of the published config.json of Qwen/Qwen3-VL-8B-Instruct: 36 text layers of width 4096 with 32
    heads and 8 key-value heads of 128, and 3 matrices of 12288; 27 vision layers of width 1152 with 2 matrices of
    4304; patches of 2 x 3 x 16 x 16 values, of which 2 x 2 are merged to one token, once and for 3 deeper levels."""
    text, hidden, deep = 4096, 1152, 3
    key_values = 8 * 128
    text_weights = 2 * text * text + 2 * text * key_values + 3 * text * 12288
    vision_weights = 4 * hidden * hidden + 2 * hidden * 4304
    merged = 4 * hidden
    return LargeModel(
        "Qwen3-VL-8B",
        vision=Transformer(27, hidden, vision_weights, causal=False),
        text=Transformer(36, text, text_weights, causal=True),
        patches=4,
        embedding=2 * 3 * 16 * 16 * hidden,
        merger=(1 + deep) * (merged * merged + merged * text),
    )


QWEN3_VL_8B = _qwen3_vl_8b()


def tokens_shown(height: int, width: int, share: float = SHARE) -> tuple[int, int]:
    """Vision tokens that are shown of a hop of two frames of `height` x `width` px, which share one segment, and its
    native ones, for Qwen3-VL."""
    grid = GRIDS["qwen3_vl"]
    native = grid.tokens(*grid.native(height, width))
    return max(1, int(native * share)), native


def network_operations(network: "nn.Module", frames: int = 2, queries: int = 6) -> int:
    """Operations of one hop of `frames` with so many queries, as torch counts them while the network, on the CPU,
    decides it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    tensors = crowd(1, frames, queries)
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        network(*(torch.from_numpy(tensors[tensor.name]) for tensor in STREAM.inputs))
    return int(counted.get_total_flops())
