"""The network of the configuration `paper`: the head of ResAdapt (arXiv 2603.28610, section 3) on frozen features.

Every frame is 64 tokens of a frozen SmolVLM2. They attend within their frame, at their place over time, and to the
words of the queries; a gate conditioned on the words pools a frame's tokens, and the pooled frame decides.

**Offline.** Attention over time goes both ways: a frame's scale depends on the frames behind it, so a clip has to be
there as a whole. It cannot allocate for a live stream, and no engine is exported of it; there is no causal variant.

Apart from the paper: the grant is an input of the policy, as in `stream`; both Beta parameters begin at 1 with their
full gradient (the reference adds 1 to a saturated softplus instead, whose gradient is 1e-5, and can never go below 8 %
of the tokens); scales are 0 to 1 of native, because more than native adds no tokens here.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator_engine.errors import EngineMismatch
from allocator_engine.model.checkpoint import read, write

_FORMAT = "resadapt-allocator paper"
_KAPPA = 0.5
_LEAST, _MOST = 0.1, 20.0  # of alpha and beta
_THETA = 10_000.0
_INFO = 5
_GRANT = 3


@dataclass(frozen=True, slots=True)
class PaperShape:
    """Widths: `inputs` is that of the features; the rest as published (43.7 M parameters). Over time half of the
    `heads` attend."""

    inputs: int = 576
    width: int = 1024
    heads: int = 16
    depth: int = 2

    def __post_init__(self) -> None:
        if self.heads % 2 or self.width % (4 * self.heads):
            raise ValueError(
                f"{self.heads} heads of a width of {self.width}; expected an even number, each of a multiple of 4"
            )

    @property
    def head(self) -> int:
        """Width of one head."""
        return self.width // self.heads


class Attention(nn.Module):
    """Multi-head attention, normalised first, with rotary positions on the first `turned` features of a head."""

    def __init__(self, width: int, heads: int, head: int, turned: int = 0, *, cross: bool = False) -> None:
        super().__init__()
        self.heads, self.turned = heads, turned
        self.norm = nn.LayerNorm(width)
        self.other_norm = nn.LayerNorm(width) if cross else None
        self.query, self.key, self.value = (nn.Linear(width, heads * head, bias=False) for _ in range(3))
        self.out = nn.Linear(heads * head, width, bias=False)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """`x` `[batch, length, width]` and what it gathers from itself, or from `other` `[1, words, width]`."""
        asking = self.norm(x)
        seen = asking if other is None or self.other_norm is None else self.other_norm(other).expand(len(x), -1, -1)
        query, key, value = (
            torch.unflatten(layer(source), 2, (self.heads, -1)).transpose(1, 2)
            for layer, source in ((self.query, asking), (self.key, seen), (self.value, seen))
        )
        if self.turned:
            query, key = rotated(query, self.turned), rotated(key, self.turned)
        gathered = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        attended: Tensor = x + self.out(gathered)
        return attended


class Layer(nn.Module):
    """Within frames, over time, to the words, and each token alone."""

    def __init__(self, shape: PaperShape) -> None:
        super().__init__()
        width, heads, head = shape.width, shape.heads, shape.head
        self.within = Attention(width, heads, head, turned=head // 2)
        self.over_time = Attention(width, heads // 2, head, turned=head)
        self.to_words = Attention(width, heads, head, cross=True)
        wide, narrow = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.alone = nn.Sequential(nn.LayerNorm(width), wide, nn.GELU(), narrow)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """`x` `[frames, tokens, width]` to the same; `words` `[words, width]`, none is fine."""
        x = self.within(x)
        x = self.over_time(x.transpose(0, 1)).transpose(0, 1)
        if len(words):
            x = self.to_words(x, words[None])
        alone: Tensor = x + self.alone(x)
        return alone


class PaperHead(nn.Module):
    """`understand` a clip, then `decide` its frames for a grant; see the module."""

    def __init__(self, shape: PaperShape = PaperShape()) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.see, self.hear = nn.Linear(shape.inputs, width, bias=False), nn.Linear(shape.inputs, width, bias=False)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.depth))
        self.token_norm, self.pooled_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gate = nn.Sequential(nn.Linear(2 * width, width // 2), nn.GELU(), nn.Linear(width // 2, 1))
        self.like_words, self.like_frame = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.inform = nn.Linear(width + _INFO, width)
        self.grant = nn.Linear(_GRANT, width, bias=False)
        self.last = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, 2)
        )
        self.skip = nn.Linear(width, 2, bias=False)
        self._begin_uniform()

    def _begin_uniform(self) -> None:
        """Every frame begins close to Beta(1, 1), whatever the grant: both parameters have full gradients there."""
        output = self.last[-1]
        assert isinstance(output, nn.Linear)
        nn.init.zeros_(output.weight)
        nn.init.constant_(output.bias, math.log(math.e - 1) / _KAPPA)  # softplus of ln(e - 1) is 1
        nn.init.orthogonal_(self.skip.weight, gain=0.01)
        nn.init.zeros_(self.grant.weight)

    def forward(self, features: Tensor, words: Tensor, grant: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and concentration `[frames]` of the policy, for one `grant` level (a scalar) of all frames."""
        meaning = self.understand(features, words)[None]
        mean, concentration = self.decide(meaning, grant.expand(1, meaning.shape[1]))
        return mean[0], concentration[0]

    def understand(self, features: Tensor, words: Tensor) -> Tensor:
        """The meaning of each frame to the queries: `[frames, width]` of `features` `[frames, tokens, inputs]` and
        `words` `[words, inputs]`, of which there may be none."""
        x, heard = self.see(features), self.hear(words)
        for layer in self.layers:
            x = layer(x, heard)
        said = self._read_out(x.mean(dim=1), heard)
        weighed = torch.cat([self.token_norm(x), said[:, None].expand_as(x)], dim=2)
        share = torch.softmax(self.gate(weighed)[..., 0], dim=1)
        pooled = torch.einsum("tl,tld->td", share, x)
        informed: Tensor = self.inform(
            torch.cat([self.pooled_norm(pooled), self._info(x, share, pooled, heard)], dim=1)
        )
        return informed

    def _read_out(self, frames: Tensor, heard: Tensor) -> Tensor:
        """The words as each frame reads them, `[frames, width]`: the frame itself where there are none."""
        if not len(heard):
            return frames
        return torch.softmax(frames @ heard.T / frames.shape[1] ** 0.5, dim=1) @ heard

    def _info(self, x: Tensor, share: Tensor, pooled: Tensor, heard: Tensor) -> Tensor:
        """Five figures of each frame `[frames, 5]`: how varied its tokens are, how even and how strong the gate is, how
        like the frame before it and the words it is."""
        evenness = -(share * share.clamp(min=1e-9).log()).sum(dim=1)
        before = functional.cosine_similarity(pooled[1:], pooled[:-1], dim=1)
        relevance = torch.zeros_like(evenness)
        if len(heard):
            relevance = functional.cosine_similarity(self.like_words(heard.mean(dim=0))[None], self.like_frame(pooled))
        return torch.stack(
            [x.var(dim=(1, 2)), evenness, share.amax(dim=1), functional.pad(before, (1, 0)), relevance], dim=1
        )

    def decide(self, meaning: Tensor, grant: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and concentration `[group, frames]` of the policy, of `meaning` `[group, frames, width]` and `grant`
        levels `[group, frames]`."""
        share = torch.exp2(grant).clamp(max=1.0)
        given = meaning + self.grant(torch.stack([grant / 4 + 1, share, share.sqrt()], dim=2))
        shapes = functional.softplus(_KAPPA * (self.last(given) + self.skip(given))) + 1e-6
        alpha, beta = shapes.clamp(_LEAST, _MOST).unbind(dim=2)
        return alpha / (alpha + beta), alpha + beta


def rotated(x: Tensor, turned: int) -> Tensor:
    """Rotary positions (Su et al., 2021) on the first `turned` features of `x` `[batch, heads, length, features]`."""
    half = turned // 2
    speeds = _THETA ** -(torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = torch.arange(x.shape[2], device=x.device, dtype=torch.float32)[:, None] * speeds
    cosine, sine = angles.cos(), angles.sin()
    first, second, rest = x[..., :half], x[..., half:turned], x[..., turned:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=3)


def save(head: PaperHead, notes: Mapping[str, str], file: Path) -> None:
    """Write a trained head; `notes` name the features it was trained on. Raises as `checkpoint.write` does."""
    about = {"format": _FORMAT, "shape": json.dumps(asdict(head.shape)), "notes": json.dumps(dict(notes))}
    write(head.state_dict(), about, file)


def load(file: Path) -> tuple[PaperHead, Mapping[str, str]]:
    """A trained head in evaluation mode, and its notes. Raises as `checkpoint.read` does, EngineMismatch also for a
    head of another version."""
    about, tensors = read(file, _FORMAT)
    try:
        head = PaperHead(PaperShape(**json.loads(about["shape"])))
        head.load_state_dict(dict(tensors))
        notes: Mapping[str, str] = json.loads(about["notes"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise EngineMismatch(f"{file} does not fit this version ({error}); train it again") from error
    return head.eval(), notes
