"""The model's work on one stream: a prefix that grows, and questions that branch from it without changing it.

Where all text layers are full attention, the questions are packed into one row of a single branch, under a mask that
lets each see the prefix and itself. Where some keep a running state or a window, each has a branch of its own.

Positions are always given, so the model's own `rope_deltas` are neither read nor written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import transformers
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from allocator_engine.grid import Grid
from pipeline.errors import EngineMismatch
from pipeline.mllm.card import Card
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
from pipeline.mllm.transformers import cache
from pipeline.mllm.transformers.cache import PackedQuestions, Prefix
from pipeline.mllm.transformers.grammar_mask import Grammars
from pipeline.mllm.transformers.positions import Run, positions
from pipeline.mllm.transformers.vision import Encoded, VisionEncoder, encoder_outputs
from pipeline.types import Segment

MAX_PACKED_TOKENS = 2048
"""Question tokens in one pass; more questions take more passes. Bounds the mask, which is this times the prompt."""

MAX_BRANCHES = 8
"""Copies of a cache in one pass, where the questions cannot be packed. Bounds the memory that branching takes."""

_TOLERANCE = {torch.float32: 1e-3}
_TOLERANCE_HALF = 0.1

LogOdds = tuple[float, float]
"""Log-probability of all spellings of yes, and of no, as first answer token."""

FirstToken = tuple[LogOdds, Mapping[int, float]]
"""The log-odds of a question, and the probabilities of some tokens to come first."""


@dataclass(slots=True)
class _PromptParts:
    """Parts of a prompt as the model takes them."""

    ids: list[int] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)


class PromptReader:
    """A frozen model that reads prompts. Not thread-safe: one thread calls it."""

    def __init__(self, card: Card, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._card, self._model, self.tokenizer = card, model, tokenizer
        self._device, self._vision = model.device, VisionEncoder(card, model)
        yes, no = answer_tokens(self.tokens)
        self._yes, self._no = self._tensor(sorted(yes)), self._tensor(sorted(no))
        self._marks = self._special(VISION_START), self._special(VISION_END)
        self.end = self._special(TURN_END)
        self._pads = {pad: self._special(pad) for pad in (IMAGE_PAD, VIDEO_PAD)}
        kinds = getattr(model.config.get_text_config(), "layer_types", None) or []
        self.packs = all(kind == "full_attention" for kind in kinds)
        self.grammars = Grammars(tokenizer, model.config.get_text_config().vocab_size, self.end)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, its chat markup included."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def text(self, tokens: Sequence[int]) -> str:
        """The text of token ids, without its chat markup."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    def length(self, parts: Sequence[Part]) -> int:
        """Prompt tokens of the parts."""
        return sum(
            len(self.tokens(part.text)) if isinstance(part, Text) else part.segment.tokens + len(self._marks)
            for part in parts
        )

    def _special(self, token: str) -> int:
        ids = self.tokens(token)
        if len(ids) != 1:
            raise EngineMismatch(f"the tokenizer in {self._card.folder} does not know {token}; expected a Qwen-VL one")
        return ids[0]

    def empty(self) -> Prefix:
        """The prefix of nothing."""
        return Prefix(cache.empty_cache(self._model.config))

    def encode(self, segments: Sequence[Segment]) -> list[Encoded]:
        """The segments' vision tokens, in one call of the vision encoder."""
        return self._vision.encode(segments)

    def extend(self, prefix: Prefix, parts: Sequence[Part], encoded: Mapping[str, Encoded] | None = None) -> None:
        """Read more of a prompt into `prefix`. Segments whose content id is in `encoded` are not encoded again."""
        self._read(prefix, parts, encoded or {})

    def extend_and_ask(
        self,
        prefix: Prefix,
        parts: Sequence[Part],
        encoded: Mapping[str, Encoded],
        questions: Sequence[Sequence[int]],
    ) -> torch.Tensor:
        """As `extend`, and in the same pass a group of questions behind it, of which nothing stays in `prefix`: logits
        `[questions, vocabulary]` of the first answer token. Only where the model packs."""
        prompt, seen = self._seen(parts, encoded)
        where, position = positions(prompt.runs, prefix.position)
        read = Prefix(prefix.cache, prefix.tokens + len(prompt.ids), position)
        asked, own = PackedQuestions(read, len(questions)).add(dict(enumerate(questions)))
        tokens = [token for question in questions for token in question]
        mask = torch.cat([own.new_zeros(len(prompt.ids), read.tokens + len(tokens)), own])
        mask[: len(prompt.ids), : read.tokens] = own.new_ones(len(prompt.ids), read.tokens).tril_(prefix.tokens)
        ends = len(prompt.ids) + self._tensor([len(question) for question in questions]).cumsum(0) - 1
        logits = self._pass(
            prefix.cache,
            input_ids=self._tensor([[*prompt.ids, *tokens]]),
            position_ids=torch.cat([torch.from_numpy(where), torch.tensor(asked).expand(3, -1)], dim=1)
            .to(self._device)
            .unsqueeze(1),
            attention_mask=self._additive(mask.to(self._device)),
            logits_to_keep=ends,
            mm_encoder_outputs=encoder_outputs(prompt.segments, seen),
        )
        prefix.cache.crop(-len(tokens))
        prefix.tokens, prefix.position = read.tokens, position
        return logits[0]

    def check(self) -> None:
        """Prove the branches against one pass over the whole prompt, on a small picture; this warms up as well.

        Raises EngineMismatch if they differ, as they would under a version of transformers that continues a cache
        otherwise than is assumed here.
        """
        parts = [opening(self._card.family), *looks([_gray(self._card.grid)], 0.0)]
        questions = [suffix(text, self._card.family) for text in ("Is it day?", "Is anybody there?")]
        prefix = self._opened(parts[:1])
        self.extend(prefix, parts[1:])
        for question in questions:
            plain = self._read(self.empty(), [*parts, question], {})
            tokens = [self.tokens(question.text)]
            ways = [self.last_logits(prefix, tokens)]
            if self.packs:
                ways.append(self.extend_and_ask(self._opened(parts[:1]), parts[1:], {}, tokens))
            off = max(float((plain - kept).abs().max() / plain.abs().max()) for kept in ways)
            if not off <= _TOLERANCE.get(plain.dtype, _TOLERANCE_HALF):
                raise EngineMismatch(
                    f"answers from a kept prefix differ from plain ones by {off:.1e} of the largest logit, under"
                    f" transformers {transformers.__version__}; use a version that the package names"
                )

    def _opened(self, parts: Sequence[Part]) -> Prefix:
        prefix = self.empty()
        self.extend(prefix, parts)
        return prefix

    def _read(self, prefix: Prefix, parts: Sequence[Part], encoded: Mapping[str, Encoded]) -> torch.Tensor:
        """Extend `prefix`; returns the logits `[1, vocabulary]` of what would come next."""
        prompt, seen = self._seen(parts, encoded)
        where, position = positions(prompt.runs, prefix.position)
        logits = self._pass(
            prefix.cache,
            input_ids=self._tensor([prompt.ids]),
            position_ids=torch.from_numpy(where).to(self._device).unsqueeze(1),
            attention_mask=self._causal(prefix.tokens, len(prompt.ids)),
            logits_to_keep=1,
            mm_encoder_outputs=encoder_outputs(prompt.segments, seen),
        )
        prefix.tokens, prefix.position = prefix.tokens + len(prompt.ids), position
        return logits[:, -1]

    def _seen(self, parts: Sequence[Part], encoded: Mapping[str, Encoded]) -> tuple[_PromptParts, list[Encoded]]:
        """The parts as the model takes them, and what it sees: those that are not `encoded` go through its encoder."""
        prompt = self._prompt(parts)
        anew = [segment for segment in prompt.segments if segment.content_id not in encoded]
        fresh = iter(self.encode(anew))
        return prompt, [encoded.get(segment.content_id) or next(fresh) for segment in prompt.segments]

    def read_on(self, prefix: Prefix, tokens: Sequence[int]) -> torch.Tensor:
        """Read tokens of text into `prefix`; returns the logits `[vocabulary]` of what would come next."""
        where = torch.arange(prefix.position, prefix.position + len(tokens), device=self._device)
        logits = self._pass(
            prefix.cache,
            input_ids=self._tensor([list(tokens)]),
            position_ids=where.expand(3, 1, -1),
            logits_to_keep=1,
        )
        prefix.tokens, prefix.position = prefix.tokens + len(tokens), prefix.position + len(tokens)
        return logits[0, -1]

    def answer(self, prefix: Prefix, questions: Sequence[Sequence[int]]) -> list[LogOdds]:
        """The model's answer to each question (token ids) after `prefix`, which stays as it is."""
        return [odds for group in self.answers(prefix, questions) for odds in group]

    def answers(self, prefix: Prefix, questions: Sequence[Sequence[int]]) -> Iterator[list[LogOdds]]:
        """The same, as soon as each group of questions is answered."""
        for group in self.groups(questions):
            yield self.log_odds(self.last_logits(prefix, group))

    def first_tokens(
        self, prefix: Prefix, questions: Sequence[Sequence[int]], watched: Sequence[Sequence[int]]
    ) -> Iterator[list[FirstToken]]:
        """As `answers`, and of each question the probability of its `watched` tokens to come first."""
        done = 0
        for group in self.groups(questions):
            yield self.first_of(self.last_logits(prefix, group), watched[done : done + len(group)])
            done += len(group)

    def first_of(self, logits: torch.Tensor, watched: Sequence[Sequence[int]]) -> list[FirstToken]:
        """The same of the logits `[questions, vocabulary]` of first tokens."""
        shares = [self.shares(row, wanted) for row, wanted in zip(logits, watched, strict=True)]
        return list(zip(self.log_odds(logits), shares, strict=True))

    def last_logits(self, prefix: Prefix, questions: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits `[questions, vocabulary]` of the first answer token."""
        if self.packs:
            return self.read_row(PackedQuestions(prefix, len(questions)), dict(enumerate(questions)))
        return self._branched(prefix, questions)

    def read_row(self, row: PackedQuestions, more: Mapping[int, Sequence[int]]) -> torch.Tensor:
        """Read more tokens of some questions of `row`; logits `[of those questions, vocabulary]` of what comes next."""
        where, mask = row.add(more)
        ends = self._tensor([len(tokens) for tokens in more.values()]).cumsum(0) - 1
        logits = self._pass(
            row.branch.cache,
            input_ids=self._tensor([[token for tokens in more.values() for token in tokens]]),
            position_ids=self._tensor(where).expand(3, 1, -1),
            attention_mask=self._additive(mask.to(self._device)),
            logits_to_keep=ends,
        )
        return logits[0]

    def groups(self, questions: Sequence[Sequence[int]], growth: int = 0) -> Iterator[list[Sequence[int]]]:
        """The questions that are read in one pass each, when each may yet grow by so many tokens."""
        group: list[Sequence[int]] = []
        for question in questions:
            tokens = sum(map(len, group)) + len(question) + growth * (len(group) + 1)
            if group and (tokens > MAX_PACKED_TOKENS if self.packs else len(group) == MAX_BRANCHES):
                yield group
                group = []
            group.append(question)
        if group:
            yield group

    def _branched(self, prefix: Prefix, questions: Sequence[Sequence[int]]) -> torch.Tensor:
        lengths = [len(question) for question in questions]
        longest = max(lengths)
        # What is padded on the right comes after the answer's place, so causality alone keeps it out.
        rows = [list(question) + [question[-1]] * (longest - len(question)) for question in questions]
        where = torch.arange(prefix.position, prefix.position + longest, device=self._device)
        kept, place = torch.unique(self._tensor(lengths) - 1, return_inverse=True)
        logits = self._pass(
            cache.branched(prefix.cache, len(rows)),
            input_ids=self._tensor(rows),
            position_ids=where.expand(3, len(rows), -1),
            logits_to_keep=kept,
        )
        return logits[torch.arange(len(rows), device=self._device), place]

    def _causal(self, held: int, more: int) -> torch.Tensor | None:
        """The mask of tokens that continue a prompt; None where the model has to make its own."""
        if not self.packs or not held:
            return None
        mask = torch.zeros(more, held + more, dtype=self._model.dtype, device=self._device)
        mask[:, held:] = mask.new_full((more, more), float("-inf")).triu_(1)
        return mask[None, None]

    def _additive(self, mask: torch.Tensor) -> torch.Tensor:
        """A bool mask `[added, prompt]` as what is added to attention scores: each layer would make that of its own."""
        added = torch.zeros(mask.shape, dtype=self._model.dtype, device=mask.device)
        return added.masked_fill_(~mask, float("-inf"))[None, None]

    def _pass(self, continued: DynamicCache, **given: object) -> torch.Tensor:
        """The logits of one pass, which adds what it reads to the cache that it continues."""
        output = self._model(**given, **cache.continuing(self._model, continued))
        logits: torch.Tensor = output.logits
        return logits

    def log_odds(self, logits: torch.Tensor) -> list[LogOdds]:
        """Log-probabilities of yes and of no, all spellings together, of each row `[rows, vocabulary]`."""
        shares = torch.log_softmax(logits.float(), dim=-1)
        yes = torch.logsumexp(shares[:, self._yes], dim=-1)
        no = torch.logsumexp(shares[:, self._no], dim=-1)
        return list(zip(yes.tolist(), no.tolist(), strict=True))

    def shares(self, logits: torch.Tensor, tokens: Sequence[int]) -> dict[int, float]:
        """The probabilities of some tokens in one row of logits `[vocabulary]`."""
        if not tokens:
            return {}
        found = torch.softmax(logits.float(), dim=-1)[self._tensor(tokens)]
        return dict(zip(tokens, found.tolist(), strict=True))

    def _prompt(self, parts: Sequence[Part]) -> _PromptParts:
        prompt = _PromptParts()
        for part in parts:
            if isinstance(part, Text):
                ids = self.tokens(part.text)
                assert not set(ids) & set(self._pads.values()), part.text
                prompt.ids.extend(ids)
                prompt.runs.append(len(ids))
            else:
                self._add_picture(part, prompt)
        return prompt

    def _add_picture(self, part: Vision, prompt: _PromptParts) -> None:
        segment, cell = part.segment, self._card.grid.cell_px
        cells = self._card.grid.tokens(*segment.size)
        assert cells == segment.tokens, segment
        prompt.ids.extend([self._marks[0], *[self._pads[part.pad]] * cells, self._marks[1]])
        prompt.runs.extend([1, (segment.size[0] // cell, segment.size[1] // cell), 1])
        prompt.segments.append(segment)

    def _tensor(self, values: Sequence[object]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


def _gray(grid: Grid) -> Segment:
    side = grid.cell_px
    return Segment((0.0,), np.full((1, side, side, 3), 128, np.uint8), tokens=1, content_id="gray")
