"""Requests to vLLM, and the meaning and cost of its replies. Pure, but for reading the tokenizer's files."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from allocator_engine.grid import Grid
from pipeline.core.context import Context, ContextRules
from pipeline.errors import ConfigError, EngineMismatch, MLLMUnavailable
from pipeline.mllm.card import Card
from pipeline.mllm.options import OptionWalk, Path, Spelled, hint, read_option
from pipeline.mllm.prompt import answer_tokens, read_answer
from pipeline.mllm.vllm.prompt import PromptWriter, VllmPrompt
from pipeline.mllm.vllm.settings import SamplingOptions
from pipeline.types import Answer, Segment, Usage, WatchQuery

_REMEMBERED_OPTIONS = 1024  # sets of values
_CANARY_QUESTIONS = ("Is it day?", "Is anybody there?")


@dataclass(frozen=True, slots=True)
class VllmReply:
    """The engine's reply to one question.

    `shares` are log-probabilities of the watched tokens to come first, not renormalised. Seconds: waiting in the
    engine's queue, and from then to the first token. `lost` says that the engine lacks pictures that it was thought to
    have, and answered nothing.
    """

    words: str = ""
    shares: Mapping[int, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    queued_s: float = 0.0
    first_token_s: float = 0.0
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """One asking: the prompt that its questions (token ids) share, and how they are to be answered."""

    context: Context
    aside: tuple[Segment, ...]
    prompt: VllmPrompt
    questions: list[list[int]]
    how: SamplingOptions

    def fresh_tokens(self, known: int) -> int:
        """Vision tokens of what is asked about, but for the first `known` segments of the context."""
        return sum(segment.tokens for segment in (*self.context.segments, *self.aside)[known:])

    @property
    def kept_tokens(self) -> int:
        """Prompt tokens up to the end of the context."""
        return self.prompt.ends[len(self.context.segments) - 1] if self.context.segments else 0

    @property
    def more_tokens(self) -> int:
        """Tokens of the longest question and its answer, behind what all share."""
        return max(map(len, self.questions)) + self.how.most


@contextmanager
def refusals(work: Work) -> Iterator[None]:
    """Turns an engine's refusal of one ask into that ask's error: MLLMUnavailable, in the same words. Only a
    schema that cannot be followed stays the ConfigError of the person who gave it."""
    try:
        yield
    except EngineMismatch as error:
        raise MLLMUnavailable(str(error), sent=False) from error
    except ConfigError as error:
        if work.how.schema is not None:
            raise
        # The question refused was not sent, but those beside it may have been.
        raise MLLMUnavailable(str(error), sent=len(work.questions) > 1) from error


class Reading:
    """The model's tokens: writes prompts, reads answers. Raises ConfigError for a tokenizer that cannot be loaded or
    that begins yes and no alike, EngineMismatch for one of another family."""

    def __init__(self, card: Card) -> None:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(card.folder, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"the tokenizer in {card.folder} cannot be loaded: {error}") from error
        self._writer = PromptWriter(card.family, lambda text: tokenizer.encode(text, add_special_tokens=False))
        self._yes, self._no = answer_tokens(self._writer.encode)
        self._plain = card.plain_questions
        self.spelled = lru_cache(_REMEMBERED_OPTIONS)(lambda options: Spelled.of(options, self._writer.encode))

    def work(
        self,
        context: Context,
        questions: Sequence[str],
        aside: Sequence[Segment] = (),
        how: SamplingOptions | None = None,
    ) -> Work:
        """These questions about a context. They are answered by yes or no, unless `how` says otherwise."""
        how = how or SamplingOptions(watched=tuple(sorted(self._yes | self._no)))
        asked = [self._writer.question(question) for question in questions]
        return Work(context, tuple(aside), self._writer.prefix(context, aside), asked, how)

    def first(self, context: Context, queries: Sequence[WatchQuery], aside: Sequence[Segment] = ()) -> Work:
        """The questions of these watches about a context, each to be answered by yes or no or by one of its values."""
        asked = [self._writer.question(query.asked, "" if self._plain else hint(query)) for query in queries]
        options = [self.spelled(query.options).children[()] for query in queries if query.options]
        watched = tuple(sorted((self._yes | self._no).union(*options)))
        how = SamplingOptions(watched=watched)
        return Work(context, tuple(aside), self._writer.prefix(context, aside), asked, how)

    def further(self, first: Work, steps: Sequence[tuple[int, OptionWalk, Path]]) -> Work:
        """Some of the questions again, with what has been said so far behind them."""
        asked = [[*first.questions[number], *path] for number, _, path in steps]
        watched = {token for _, walk, path in steps for token in walk.spelled.children[path]}
        return replace(first, questions=asked, how=SamplingOptions(watched=tuple(sorted(watched))))

    def read(self, query: WatchQuery, shares: Mapping[int, float], walk: OptionWalk | None) -> Answer:
        """The answer of a watch: of its first token, or of the walk through its values."""
        return read_option(query, walk.shares) if walk else self.answer(query.id, shares)

    def answer(self, watch_id: str, shares: Mapping[int, float]) -> Answer:
        """The answer in the log-probabilities of the watched tokens."""
        return read_answer(watch_id, _log_sum(shares, self._yes), _log_sum(shares, self._no))

    def canary(self, grid: Grid) -> Work:
        """Questions about a gray image and a gray pair of frames, which any model can be asked."""
        side = 2 * grid.cell_px
        segments = [_gray(grid, (0.0,), side), _gray(grid, (1.0, 1.5), side)]
        return self.work(Context.empty("canary", ContextRules()).append(segments), _CANARY_QUESTIONS)


def _gray(grid: Grid, pts_s: tuple[float, ...], side: int) -> Segment:
    pixels = np.full((len(pts_s), side, side, 3), 128, np.uint8)
    return Segment(pts_s, pixels, grid.tokens(side, side), f"canary {pts_s}")


def _log_sum(shares: Mapping[int, float], tokens: frozenset[int]) -> float:
    total = math.fsum(math.exp(shares.get(token, -math.inf)) for token in tokens)
    return math.log(total) if total else -math.inf


def usage(work: Work, known: int, replies: Sequence[VllmReply], seconds: float) -> Usage:
    """The cost of the replies, of whose context the first `known` segments had not to be read again."""
    queued_s = min(reply.queued_s for reply in replies)
    return Usage(
        encoded_tokens=work.fresh_tokens(known),
        prefilled_tokens=sum(reply.prompt_tokens - reply.cached_tokens for reply in replies),
        cached_tokens=sum(reply.cached_tokens for reply in replies),
        seconds=seconds,
        queued_s=queued_s,
        first_answer_s=min(reply.queued_s + reply.first_token_s for reply in replies) - queued_s,
        answer_tokens=sum(reply.answer_tokens for reply in replies),
    )
