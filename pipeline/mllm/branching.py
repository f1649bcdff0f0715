"""The model's work on one stream: a prefix that grows, and questions that branch from it without changing it.

Two ways to branch, by what the text layers keep. Where all are full attention, the questions are packed into one row
under a mask that lets each see the prefix and itself, and are cropped from the cache afterwards: no copy of the prefix
is made. Where some keep a running state (linear attention) or a window, which cannot be cropped, the cache is copied
at the branching point; keys and values are shared with the copy, because a cache never writes into them.

Positions are always given, so the model's own `rope_deltas` are neither read nor written.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from allocator_engine.grid import Grid
from pipeline.errors import ConfigError, EngineMismatch
from pipeline.mllm.card import Card
from pipeline.mllm.patches import patch_grid, patches
from pipeline.mllm.positions import Run, positions
from pipeline.mllm.prompt import (
    IMAGE_PAD,
    TURN_END,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    Part,
    Text,
    Vision,
    answer_tokens,
    looks,
    opening,
    suffix,
)
from pipeline.types import Segment

MAX_PACKED_TOKENS = 2048
"""Question tokens in one pass; more questions take more passes. Bounds the mask, which is this times the prompt."""

MAX_BRANCHES = 8
"""Copies of a cache in one pass, where the questions cannot be packed. Bounds the memory that branching takes."""

_TOLERANCE = {torch.float32: 1e-3}
_TOLERANCE_HALF = 0.1

LogOdds = tuple[float, float]
"""Log-probability of all spellings of yes, and of no, as first answer token."""


@dataclass(slots=True)
class Prefix:
    """What the model has made of a prompt so far: its cache, tokens in it, and the position that comes next."""

    cache: DynamicCache
    tokens: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class _Encoded:
    ids: list[int]
    runs: list[Run]
    segments: list[Segment]


class Reader:
    """A frozen model that reads prompts. Not thread-safe: one thread calls it."""

    def __init__(self, card: Card, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._card, self._model, self._tokenizer = card, model, tokenizer
        self._device = model.device
        yes, no = answer_tokens(self.tokens)
        self._yes, self._no = self._tensor(sorted(yes)), self._tensor(sorted(no))
        self._marks = self._special(VISION_START), self._special(VISION_END)
        self._end = self._special(TURN_END)
        self._pads = {pad: self._special(pad) for pad in (IMAGE_PAD, VIDEO_PAD)}
        kinds = getattr(model.config.get_text_config(), "layer_types", None) or []
        self.packs = all(kind == "full_attention" for kind in kinds)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, its chat markup included."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _special(self, token: str) -> int:
        ids = self.tokens(token)
        if len(ids) != 1:
            raise EngineMismatch(f"the tokenizer in {self._card.folder} does not know {token}; expected a Qwen-VL one")
        return ids[0]

    def empty(self) -> Prefix:
        """The prefix of nothing."""
        return Prefix(DynamicCache(config=self._model.config))

    def extend(self, prefix: Prefix, parts: Sequence[Part]) -> None:
        """Read more of a prompt into `prefix`."""
        self._read(prefix, parts)

    def check(self) -> None:
        """Prove the branches against one pass over the whole prompt, on a small picture; this warms up as well.

        Raises EngineMismatch if they differ, as they would under a version of transformers that continues a cache
        otherwise than is assumed here.
        """
        parts = [opening(self._card.family), *looks([_gray(self._card.grid)], 0.0)]
        questions = [suffix(text, self._card.family) for text in ("Is it day?", "Is anybody there?")]
        prefix = self.empty()
        self.extend(prefix, parts[:1])
        self.extend(prefix, parts[1:])
        for question in questions:
            plain = self._read(self.empty(), [*parts, question])
            kept = self._last_logits(prefix, [self.tokens(question.text)])
            off = float((plain - kept).abs().max() / plain.abs().max())
            if not off <= _TOLERANCE.get(plain.dtype, _TOLERANCE_HALF):
                raise EngineMismatch(
                    f"answers from a kept prefix differ from plain ones by {off:.1e} of the largest logit, under"
                    f" transformers {transformers.__version__}; use a version that the package names"
                )

    def _read(self, prefix: Prefix, parts: Sequence[Part]) -> torch.Tensor:
        """Extend `prefix`; returns the logits `[1, vocabulary]` of what would come next."""
        encoded = self._encode(parts)
        where, prefix.position = positions(encoded.runs, prefix.position)
        output = self._model(
            input_ids=self._tensor([encoded.ids]),
            position_ids=torch.from_numpy(where).to(self._device).unsqueeze(1),
            past_key_values=prefix.cache,
            use_cache=True,
            logits_to_keep=1,
            **self._pixels(encoded.segments),
        )
        prefix.tokens += len(encoded.ids)
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def answer(self, prefix: Prefix, questions: Sequence[Sequence[int]]) -> list[LogOdds]:
        """What the model would answer to each question (token ids) after `prefix`, which stays as it is."""
        groups = self._groups(questions)
        return [odds for group in groups for odds in self._log_odds(self._last_logits(prefix, group))]

    def say(self, prefix: Prefix, questions: Sequence[Sequence[int]], most: int) -> list[str]:
        """Each question's answer in words after `prefix`, which stays as it is: the likeliest token at each step, until
        the turn ends or `most` tokens are said. Raises ConfigError for a model whose questions cannot be packed."""
        if not self.packs:
            raise ConfigError(f"{self._card.family} keeps a running state: it answers yes or no, not in words")
        return [said for group in self._groups(questions) for said in self._said(prefix, group, most)]

    def _said(self, prefix: Prefix, questions: list[Sequence[int]], most: int) -> list[str]:
        said: list[list[int]] = [[] for _ in questions]
        asking = list(range(len(questions)))
        while asking and len(said[asking[0]]) < most:
            # What was said is short: reading it again costs less than keeping a cache per question.
            logits = self._packed(prefix, [[*questions[index], *said[index]] for index in asking])
            for index, token in zip(list(asking), logits.argmax(dim=-1).tolist(), strict=True):
                if token == self._end:
                    asking.remove(index)
                else:
                    said[index].append(token)
        return [str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip() for tokens in said]

    def _last_logits(self, prefix: Prefix, questions: list[Sequence[int]]) -> torch.Tensor:
        """Logits `[questions, vocabulary]` of the first answer token."""
        return self._packed(prefix, questions) if self.packs else self._branched(prefix, questions)

    def _groups(self, questions: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
        group: list[Sequence[int]] = []
        for question in questions:
            tokens = sum(map(len, group)) + len(question)
            if group and (tokens > MAX_PACKED_TOKENS if self.packs else len(group) == MAX_BRANCHES):
                yield group
                group = []
            group.append(question)
        if group:
            yield group

    def _packed(self, prefix: Prefix, questions: list[Sequence[int]]) -> torch.Tensor:
        lengths = self._tensor([len(question) for question in questions])
        own = torch.repeat_interleave(torch.arange(len(questions), device=self._device), lengths)
        mask = torch.tril(own[:, None] == own[None, :])
        seen = torch.ones(len(own), prefix.tokens, dtype=torch.bool, device=self._device)
        where = torch.cat([torch.arange(len(question), device=self._device) for question in questions])
        output = self._model(
            input_ids=self._tensor([[token for question in questions for token in question]]),
            position_ids=(where + prefix.position).expand(3, 1, -1),
            attention_mask=torch.cat([seen, mask], dim=1)[None, None],
            past_key_values=prefix.cache,
            use_cache=True,
            logits_to_keep=lengths.cumsum(0) - 1,
        )
        prefix.cache.crop(-len(own))
        logits: torch.Tensor = output.logits[0]
        return logits

    def _branched(self, prefix: Prefix, questions: list[Sequence[int]]) -> torch.Tensor:
        lengths = [len(question) for question in questions]
        longest = max(lengths)
        # What is padded on the right comes after the answer's place, so causality alone keeps it out.
        rows = [list(question) + [question[-1]] * (longest - len(question)) for question in questions]
        where = torch.arange(prefix.position, prefix.position + longest, device=self._device)
        kept, place = torch.unique(self._tensor(lengths) - 1, return_inverse=True)
        output = self._model(
            input_ids=self._tensor(rows),
            position_ids=where.expand(3, len(rows), -1),
            past_key_values=_branch(prefix.cache, len(rows)),
            use_cache=True,
            logits_to_keep=kept,
        )
        logits: torch.Tensor = output.logits[torch.arange(len(rows), device=self._device), place]
        return logits

    def _log_odds(self, logits: torch.Tensor) -> list[LogOdds]:
        shares = torch.log_softmax(logits.float(), dim=-1)
        yes = torch.logsumexp(shares[:, self._yes], dim=-1)
        no = torch.logsumexp(shares[:, self._no], dim=-1)
        return list(zip(yes.tolist(), no.tolist(), strict=True))

    def _encode(self, parts: Sequence[Part]) -> _Encoded:
        encoded = _Encoded([], [], [])
        for part in parts:
            if isinstance(part, Text):
                ids = self.tokens(part.text)
                assert not set(ids) & set(self._pads.values()), part.text
                encoded.ids.extend(ids)
                encoded.runs.append(len(ids))
            else:
                self._encode_picture(part, encoded)
        return encoded

    def _encode_picture(self, part: Vision, encoded: _Encoded) -> None:
        segment, cell = part.segment, self._card.grid.cell_px
        cells = self._card.grid.tokens(*segment.size)
        assert cells == segment.tokens, segment
        encoded.ids.extend([self._marks[0], *[self._pads[part.pad]] * cells, self._marks[1]])
        encoded.runs.extend([1, (segment.size[0] // cell, segment.size[1] // cell), 1])
        encoded.segments.append(segment)

    def _pixels(self, segments: Sequence[Segment]) -> dict[str, torch.Tensor]:
        images = [segment for segment in segments if Vision(segment).pad == IMAGE_PAD]
        videos = [segment for segment in segments if Vision(segment).pad == VIDEO_PAD]
        return {
            **self._vision("pixel_values", "image_grid_thw", images),
            **self._vision("pixel_values_videos", "video_grid_thw", videos),
        }

    def _vision(self, values: str, grids: str, segments: Sequence[Segment]) -> dict[str, torch.Tensor]:
        if not segments:
            return {}
        grid, normalisation = self._card.grid, self._card.normalisation
        made = [torch.from_numpy(patches(segment.pixels, grid, normalisation)) for segment in segments]
        return {
            values: torch.cat(made).to(self._device),
            grids: self._tensor([patch_grid(*segment.size, grid) for segment in segments]),
        }

    def _tensor(self, values: Sequence[object]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


def _gray(grid: Grid) -> Segment:
    side = grid.cell_px
    return Segment((0.0,), np.full((1, side, side, 3), 128, np.uint8), tokens=1, content_id="gray")


def _branch(cache: DynamicCache, copies: int) -> DynamicCache:
    """A cache that begins with `copies` of what `cache` (of one row) holds; writing to it leaves `cache` as it is."""
    shared = [
        tensor
        for layer in cache.layers
        for name in ("keys", "values")
        if isinstance(tensor := getattr(layer, name, None), torch.Tensor)
    ]
    branch: DynamicCache = copy.deepcopy(cache, {id(tensor): tensor for tensor in shared})
    branch.reorder_cache(torch.LongTensor([0] * copies))
    return branch
