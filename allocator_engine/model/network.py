"""The network of the configuration `stream`: thumbnails, memory and queries in, a Beta policy per frame out.

A frame becomes 8 x 14 cells. Each cell is compared with what the memory holds of it, the cells of a frame are mixed,
every query reads the cells that concern it, and what it reads is compared with what it has read before: that says how
likely a transition is (that it begins or ceases to hold). The scale that is worth most for that, at a price that the
grant sets, is corrected by what the set of readings means. Nothing crosses frames but the two memories, of cells and of
readings, so a stream may be shown hop by hop or at once: the decisions are the same.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator_engine.model.recall import FEATURES, RECALLED, Recall
from allocator_engine.model.worth import best_share, worth_of_transitions
from allocator_engine.spec import CELL_COLUMNS, CELL_ROWS, CELLS, QUERY_FEATURES


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths of the network. `remembers` and `listens` off make it blind to its memory or to the queries; with
    `foresees` off, where no transitions are taught, the policy begins close to Beta(1, 1), which tries every scale.
    """

    stem: tuple[int, int, int] = (32, 64, 96)
    width: int = 128
    heads: int = 4
    mixers: int = 2
    readers: int = 2
    head_width: int = 256
    remembers: bool = True
    listens: bool = True
    foresees: bool = True


class Stem(nn.Module):
    """Thumbnails to cells: patches of 4 x 4 px, and two convolutions of stride 2."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        halving = (nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.layers = nn.ModuleList([nn.Conv2d(3, widths[0], 4, stride=4), *halving])
        self.norm = nn.LayerNorm(widths[-1])

    def forward(self, thumbnails: Tensor) -> Tensor:
        """Float32 `[frames, 112, features]` of uint8 `[frames, 128, 224, 3]`."""
        x = (thumbnails.float() / 127.5 - 1.0).permute(0, 3, 1, 2)
        for index, layer in enumerate(self.layers):
            x = layer(functional.gelu(x) if index else x)
        normed: Tensor = self.norm(x.flatten(2).transpose(1, 2))
        return normed


class Mixer(nn.Module):
    """Neighbouring cells of one frame: a depthwise convolution and a layer per cell (Liu et al., 2022, ConvNeXt)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, cells: Tensor) -> Tensor:
        """`[frames, 112, width]` to the same."""
        laid_out = torch.unflatten(cells.transpose(1, 2), 2, (CELL_ROWS, CELL_COLUMNS))
        near = self.near(laid_out).flatten(2).transpose(1, 2)
        mixed: Tensor = cells + self.out(self.norm(near))
        return mixed


class QueryReader(nn.Module):
    """Every query reads the cells that concern it. Queries do not see each other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm, self.cell_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.back = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, queries: Tensor, cells: Tensor) -> Tensor:
        """`[frames, queries, width]` that have read `[frames, 112, width]`."""
        cells = self.cell_norm(cells)
        q = self.query(self.query_norm(queries)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k = self.key(cells).unflatten(2, (self.heads, -1)).transpose(1, 2)
        v = self.value(cells).unflatten(2, (self.heads, -1)).transpose(1, 2)
        weights = torch.softmax(q @ k.transpose(2, 3) * q.shape[3] ** -0.5, dim=3)
        queries = queries + self.back((weights @ v).transpose(1, 2).flatten(2))
        read: Tensor = queries + self.out(self.norm(queries))
        return read


class StreamNetwork(nn.Module):
    """See `STREAM` for the tensors of `forward`; its parts are called one by one in training."""

    def __init__(self, shape: Shape = Shape()) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.stem = Stem(shape.stem)
        self.recall = Recall(shape.stem[-1])
        self.cell = nn.Linear(shape.stem[-1] + RECALLED + FEATURES, width)
        self.place = nn.Parameter(torch.randn(CELLS, width) * 0.02)
        self.mixers = nn.ModuleList(Mixer(width) for _ in range(shape.mixers))
        self.ask = nn.Linear(QUERY_FEATURES, width)
        self.nothing_asked = nn.Parameter(torch.randn(width) * 0.02)
        self.readers = nn.ModuleList(QueryReader(width, shape.heads) for _ in range(shape.readers))
        self.read_norm = nn.LayerNorm(width)
        self.reread = Recall(width)
        self.since = nn.Sequential(nn.Linear(width + RECALLED + FEATURES, width), nn.GELU(), nn.Linear(width, width))
        self.weight = nn.Linear(width, 1)
        self.foresee = nn.Linear(width, 2)  # whether a query holds, and whether it begins or ceases to
        self.summary_norm = nn.LayerNorm(4 * width)
        self.head = nn.Sequential(
            nn.Linear(4 * width + _GRANT_FEATURES, shape.head_width),
            nn.GELU(),
            nn.Linear(shape.head_width, shape.head_width),
            nn.GELU(),
            nn.Linear(shape.head_width, 2),
        )
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # nothing is corrected before answers tell what to correct
        nn.init.zeros_(last.bias)

    def forward(
        self,
        thumbnails: Tensor,
        present: Tensor,
        elapsed_s: Tensor,
        queries: Tensor,
        asked: Tensor,
        grant: Tensor,
        memory: Tensor,
        readings: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The outputs of `STREAM` for its inputs."""
        cells, next_memory = self.perceive(thumbnails, present, elapsed_s, memory)
        meaning, _, next_readings = self.read(cells, present, elapsed_s, queries, asked, readings)
        mean, concentration = self.decide(meaning, grant[:, None].expand(-1, meaning.shape[1]))
        return mean, concentration, next_memory, next_readings

    def perceive(self, thumbnails: Tensor, present: Tensor, elapsed_s: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Features of each frame, against what is remembered: `[batch, frames, 112, width]`, and the next memory."""
        seen = self.stem(thumbnails.flatten(0, 1)).unflatten(0, (thumbnails.shape[0], thumbnails.shape[1]))
        if not self.shape.remembers:
            memory = memory * 0
        features, recalled, next_memory = self.recall(seen, present, elapsed_s, memory)
        cells = self.cell(torch.cat([seen, features, recalled], dim=3)) + self.place
        mixed = cells.flatten(0, 1)
        for mixer in self.mixers:
            mixed = mixer(mixed)
        return mixed.unflatten(0, (thumbnails.shape[0], thumbnails.shape[1])), next_memory

    def read(
        self, cells: Tensor, present: Tensor, elapsed_s: Tensor, queries: Tensor, asked: Tensor, readings: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The meaning of the frames to the set of queries: `[batch, frames, features]`, the last of them the worth of
        their transitions; logits of each query alone, behind the null query, `[batch, frames, 1 + queries, 2]`: that it
        holds once the frame is shown, and that it changes about then; and the next readings. The null query stands for
        any; only its transitions mean something, and what it reads is not remembered."""
        batch, frames = cells.shape[0], cells.shape[1]
        if not self.shape.listens:
            asked = asked * 0
        if not self.shape.remembers:
            readings = readings * 0
        null = self.nothing_asked.expand(batch, 1, -1)
        tokens = torch.cat([null, self.ask(queries * QUERY_FEATURES**0.5)], dim=1)
        tokens = tokens[:, None].expand(-1, frames, -1, -1).flatten(0, 1)
        flat = cells.flatten(0, 1)
        for reader in self.readers:
            tokens = reader(tokens, flat)
        tokens = torch.unflatten(tokens, 0, (batch, frames))
        read = self.read_norm(tokens[:, :, 1:])
        features, recalled, next_readings = self.reread(read, present, elapsed_s, readings)
        since = self.since(torch.cat([read, features, recalled], dim=3))
        tokens = torch.cat([tokens[:, :, :1], tokens[:, :, 1:] + since], dim=2)
        present = torch.cat([torch.ones_like(asked[:, :1]), asked], dim=1)[:, None, :, None]
        silence = (present - 1.0) * _SILENT
        weights = torch.softmax(self.weight(tokens) + silence, dim=2)
        most = (tokens + silence).amax(dim=2)
        everywhere = cells.sum(dim=2) / CELLS  # not mean(): the ONNX exporter would name it like our output
        summary = torch.cat([(weights * tokens).sum(dim=2), most, tokens[:, :, 0], everywhere], dim=2)
        foreseen = self.foresee(tokens)
        # Transitions are taught from the truth, not from rewards: those correct what is made of it.
        holds, changes = torch.sigmoid(foreseen.detach()).unbind(dim=3)
        each = worth_of_transitions(changes, holds)
        # Where nothing is asked it is as if one query stood that nobody knows, which begins as often as it ends.
        unknown = worth_of_transitions(changes[:, :, 0], torch.full_like(changes[:, :, 0], 0.5))
        expected = (asked[:, None] * each[:, :, 1:]).sum(dim=2) + (1 - asked.amax(dim=1))[:, None] * unknown
        return torch.cat([self.summary_norm(summary), expected[:, :, None]], dim=2), foreseen, next_readings

    def decide(self, meaning: Tensor, grant: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and concentration `[batch, frames]` of the policy for a `grant` level `[batch, frames]`."""
        summary, expected = meaning[:, :, :-1], meaning[:, :, -1]
        share = torch.exp2(grant)
        level = torch.stack([grant / 4 + 1, share.clamp(max=1.0), share.clamp(max=1.0).sqrt()], dim=2)
        outputs = self.head(torch.cat([summary, level], dim=2))
        scale = best_share(expected, grant).sqrt() if self.shape.foresees else torch.full_like(grant, 0.5)
        # In logits, so that a correction has its full gradient also where the best scale is none, or native.
        corrected = torch.sigmoid(torch.logit(scale, eps=_LEAST_MEAN) + outputs[:, :, 0])
        mean = _LEAST_MEAN + (1 - 2 * _LEAST_MEAN) * corrected
        concentration = _LEAST_CONCENTRATION + functional.softplus(outputs[:, :, 1] - 1.0)
        # Near 0 and 1 a flat policy would put all of its density on the very end, and never look elsewhere. That it is
        # narrow there is no reason for its mean to move away.
        needed = _LEAST_SHAPE / torch.minimum(mean, 1 - mean).detach()
        return mean, torch.maximum(concentration, needed).clamp(max=_MOST_CONCENTRATION)


_GRANT_FEATURES = 3
_SILENT = 1e4  # large enough to silence a padded query, small enough for half precision
_LEAST_MEAN = 0.002
_LEAST_SHAPE = 0.2  # of alpha and beta
_LEAST_CONCENTRATION, _MOST_CONCENTRATION = 2.0, 256.0
