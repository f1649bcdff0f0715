"""Contexts and many questions about each, as one pass of the text part reads them.

The prompt is written by `pipeline.mllm.prompt`, so training and serving cannot differ. Every question sees the context
as far as it had grown when it was asked, and none of the other questions: a context is paid for once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from pipeline.mllm.prompt import VISION_END, VISION_START, Text, looks, opening, suffix
from pipeline.mllm.transformers.positions import Run, positions
from pipeline.types import Segment
from samples.yard.questions.grammar import Question
from samples.yard.shape import FAMILY, grid
from samples.yard.train.episodes import Looked
from samples.yard.train.notes import Notes
from samples.yard.train.pointing import GLANCES, Pointer

IGNORED = -100

_LEFT_OUT = -1


@dataclass(frozen=True, slots=True)
class PlacedQuestion:
    """A question that is asked when the context holds `after` segments, and where its tokens should look."""

    after: int
    question: Question
    points: tuple[Pointer, ...] = ()


@dataclass(frozen=True, slots=True)
class Packed:
    """One context and its questions.

    `context_ids` int64 `[C]`, `context_positions` int64 `[3, C]`, `vision` float32 `[V, HIDDEN]` for the tokens where
    `is_vision` (bool `[C]`) holds; `ends` int64 `[S]`, where each segment's picture ends; of all questions together
    `ids` int64 `[Q]`, `positions` int64 `[Q]`, `owner` int64 `[Q]` (whose token it is), `sees` int64 `[Q]` (how many
    context tokens it sees), `targets` int64 `[Q]`, what comes next where that is part of an answer. The question tokens
    `pointing` int64 `[P]` should look, each by the heads of its glance (`glances` int64 `[P]`, of GLANCES), at the
    context tokens where `wanted` (bool `[P, C]`) holds; where it never does, at nothing that was shown.
    """

    context_ids: torch.Tensor
    context_positions: torch.Tensor
    is_vision: torch.Tensor
    vision: torch.Tensor
    ends: torch.Tensor
    ids: torch.Tensor
    positions: torch.Tensor
    owner: torch.Tensor
    sees: torch.Tensor
    targets: torch.Tensor
    pointing: torch.Tensor
    glances: torch.Tensor
    wanted: torch.Tensor
    questions: tuple[Question, ...]
    notes: Notes | None = None

    def to(self, device: torch.device) -> "Packed":
        """The same on a device."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device) for name, value in tensors.items() if isinstance(value, torch.Tensor)}
        return Packed(**{**tensors, **moved})


class Packer:
    """Packs for one tokenizer."""

    def __init__(self, words: PreTrainedTokenizerBase) -> None:
        self.words = words
        self._known: dict[str, list[int]] = {}

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, remembered."""
        if text not in self._known:
            if len(self._known) > 50_000:
                self._known.clear()
            self._known[text] = self.words.encode(text, add_special_tokens=False)
        return self._known[text]

    def pack(
        self,
        looked: Sequence[Looked],
        asked: Sequence[PlacedQuestion],
        notes: Notes | None = None,
        shown: NDArray[np.bool_] | None = None,
    ) -> Packed:
        """A context of `looked`, which counts from its first frame, and what is `asked` about it, at least once.

        Where `shown` (bool, one for each vision token) is false, the token is left out, as if nobody looked at it.
        """
        ids, runs, is_vision, ends = self._context(looked)
        where, _ = positions(runs)
        vision = np.concatenate([one.vision for one in looked])
        kept = np.ones(len(ids), bool)
        if shown is not None:
            kept[is_vision] = shown
            vision = vision[shown]
        firsts = [end - len(one.vision) for end, one in zip(ends, looked, strict=True)]
        moved = np.where(kept, np.cumsum(kept) - 1, _LEFT_OUT)
        ids, is_vision = np.array(ids)[kept].tolist(), np.array(is_vision)[kept].tolist()
        where, ends = where[:, kept], moved[ends].tolist()
        written = [self._question(one.question) for one in asked]
        pointing, glances, wanted = self._pointing(asked, written, moved, firsts, ends)
        sees = [ends[one.after - 1] + 1 for one in asked]
        starts = [int(where[:, seen - 1].max()) + 1 for seen in sees]  # behind the mark that ends a picture
        lengths = torch.tensor([len(tokens) for tokens, _ in written])
        return Packed(
            torch.tensor(ids),
            torch.from_numpy(where),
            torch.tensor(is_vision),
            torch.from_numpy(vision.astype(np.float32)),
            torch.tensor(ends),
            torch.tensor([token for tokens, _ in written for token in tokens]),
            torch.cat([start + torch.arange(len(tokens)) for start, (tokens, _) in zip(starts, written, strict=True)]),
            torch.repeat_interleave(torch.arange(len(written)), lengths),
            torch.repeat_interleave(torch.tensor(sees), lengths),
            torch.tensor([target for _, targets in written for target in targets]),
            pointing,
            glances,
            wanted,
            tuple(one.question for one in asked),
            notes,
        )

    def _context(self, looked: Sequence[Looked]) -> tuple[list[int], list[Run], list[bool], list[int]]:
        anchor_s = looked[0].pts_s[0]
        ids: list[int] = []
        runs: list[Run] = []
        is_vision: list[bool] = []
        ends: list[int] = []
        for part in (opening(FAMILY), *looks([_segment(one) for one in looked], anchor_s)):
            if isinstance(part, Text):
                new, shape = self.tokens(part.text), None
            else:
                size = part.segment.size
                shape = size[0] // grid().cell_px, size[1] // grid().cell_px
                new = self.tokens(VISION_START) + self.tokens(part.pad) * part.segment.tokens + self.tokens(VISION_END)
            ids += new
            runs += [len(new)] if shape is None else [1, shape, 1]
            is_vision += [False] * len(new) if shape is None else [False, *[True] * (len(new) - 2), False]
            if shape is not None:
                ends.append(len(ids) - 1)
        return ids, runs, is_vision, ends

    def _question(self, question: Question) -> tuple[list[int], list[int]]:
        """Its tokens, and for each what the model should say next."""
        asked = self.tokens(suffix(question.text, FAMILY).text)
        answer = [*self.tokens(question.answer), *self.tokens("<|im_end|>")]
        return [*asked, *answer[:-1]], [*[IGNORED] * (len(asked) - 1), *answer]

    def _pointing(
        self,
        asked: Sequence[PlacedQuestion],
        written: Sequence[tuple[list[int], list[int]]],
        moved: NDArray[np.int64],
        firsts: Sequence[int],
        ends: Sequence[int],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The tokens, glances and wanted context tokens of all pointers. `moved` is where each token of
        the whole context is now, or _LEFT_OUT; `firsts` are the segments' first vision tokens in it."""
        tokens: list[int] = []
        glances: list[int] = []
        rows: list[NDArray[np.bool_]] = []
        start, length = 0, int(moved.max()) + 1
        for one, (ids, targets) in zip(asked, written, strict=True):
            prompt = ids[: targets.count(IGNORED) + 1]
            for point in one.points:
                places = [int(moved[firsts[segment] + cell]) for segment, cell in point.cells]
                places = [place for place in places if place != _LEFT_OUT] + [ends[index] for index in point.ends]
                token = self._place(prompt, point)
                if token is None or (point.cells and not places):
                    continue
                row = np.zeros(length, bool)
                row[places] = True
                tokens.append(start + token)
                glances.append(GLANCES.index(point.glance))
                rows.append(row)
            start += len(ids)
        wanted = np.stack(rows) if rows else np.zeros((0, length), bool)
        return torch.tensor(tokens, dtype=torch.long), torch.tensor(glances, dtype=torch.long), torch.from_numpy(wanted)

    def _place(self, prompt: Sequence[int], point: Pointer) -> int | None:
        """The token that a point is about, counted from the first that asks; None where it has none of its own."""
        if point.glance != "glyph":
            return len(prompt) - 1 + point.place
        texts = [str(self.words.decode([token])).strip() for token in prompt]
        behind = texts.index("plate") + 1
        written = [index for index in range(behind, len(texts)) if texts[index]][point.place]
        return written if len(texts[written]) == 1 else None


def _segment(one: Looked) -> Segment:
    """A segment of the same size and times, without its pixels."""
    cell = grid().cell_px
    shape = (len(one.pts_s), one.rows * cell, one.columns * cell, 3)
    nothing: NDArray[np.uint8] = np.broadcast_to(np.uint8(0), shape)
    return Segment(one.pts_s, nothing, one.rows * one.columns, "")
