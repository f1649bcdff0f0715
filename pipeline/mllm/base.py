"""The contract of a multimodal LLM backend."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from allocator_engine.grid import Grid
from pipeline.core.context import Context, Room
from pipeline.errors import MLLMUnavailable
from pipeline.types import Answers, Json, Segment, WatchQuery

QUESTION_TOKENS = 1024
"""Of the longest prompt, kept free for a question and its answer; a quarter of it where that is less."""

LEAST_ROOM_TOKENS = 256
"""Vision tokens to which a context may grow whatever that drives out, unless they make too long a prompt: with too many
streams for the cache, reading a little again is better than seeing nothing."""

_OPENING_TOKENS = 96
_TIME_TOKENS = 12
"""Prompt tokens, at most, of the instruction with its markup, and of a segment's time text with its two markers."""


@dataclass(frozen=True, slots=True)
class MLLMInfo:
    """A started MLLM: `name` as configured, the `family` (`model_type`), the token grid, whether its answers mean
    anything at all (the tiny random checkpoint's do not, and says so), how many frames a segment may hold (1 where
    only images can be sent), `notes` for people on how it answers, and `needs_pixels`: whether each ask takes the
    pixels of the whole context, not only of what is new."""

    name: str
    family: str
    grid: Grid
    meaningful: bool = True
    max_frames_per_segment: int = 2
    notes: tuple[str, ...] = ()
    needs_pixels: bool = False


class MLLM(Protocol):
    """A frozen multimodal LLM that answers standing questions about a stream's context.

    `ask` may be called for many streams at once, for one stream never twice at a time. It does not block the event
    loop. Given the same context and questions it gives the same answers, whatever it has cached.
    """

    @property
    def info(self) -> MLLMInfo: ...

    async def start(self) -> None:
        """Load and warm up. Raises ConfigError for a model that is missing or of an unsupported family, EngineMismatch
        for one that does not start or answer here as it must, MLLMUnavailable for a server that cannot be reached."""
        ...

    def pending(self, context: Context) -> int:
        """Vision tokens of `context` that the next `ask` has to encode or prefill: those of its newest segments that
        were not asked about yet, or of all when what was kept for this stream is gone or of another epoch. Asks of
        other streams may make it more, hence the `limit` of `ask`."""
        ...

    def room(self, context: Context) -> Room:
        """Bounds to which `context` may grow: what fits the longest prompt, and what can be kept of it without another
        stream's prefix having to go. It shrinks as more streams ask."""
        ...

    async def ask(
        self,
        context: Context,
        queries: Sequence[WatchQuery],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> Answers:
        """Answer every query on one shared visual prefix; one Answer each, in order.

        `aside` are segments that only these queries see, behind the context; they are not kept. Raises MLLMUnavailable
        or one of its kinds when it cannot answer now, also when more than `limit` vision tokens would have to be
        encoded or prefilled, `aside` included; what it has kept stays consistent.
        """
        ...

    async def say(
        self, context: Context, questions: Sequence[str], most: int = 64, schema: Mapping[str, Json] | None = None
    ) -> list[str]:
        """Answers in words, at most `most` tokens each, on the same prefix as `ask`: colours, numbers, intervals.

        With a JSON schema each answer is JSON that follows it, or is cut off at `most` tokens. Raises as `ask` does,
        and ConfigError for a schema, or a family, that it cannot take.
        """
        ...

    def forget(self, stream_id: str) -> None:
        """Drop whatever is kept for a stream. Unknown ids are fine."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Counting(Protocol):
    """A backend that counts its troubles."""

    def counts(self) -> Mapping[str, int]:
        """Counts of each kind of trouble since the start, by name, as `pipeline.mllm.counters` explains. May be
        called from any thread."""
        ...


def room_within(context: Context, prompt_tokens: int, kept_tokens: int) -> Room:
    """The room for a context where a prompt has at most `prompt_tokens`, question and answer included, of which
    `kept_tokens` may be kept: the text around its pictures, which is estimated, taken off."""
    prompt_tokens -= min(QUESTION_TOKENS, prompt_tokens // 4)
    text = _OPENING_TOKENS + _TIME_TOKENS * (len(context.segments) + 1)
    return Room(max(0, min(prompt_tokens - text, max(kept_tokens - text, LEAST_ROOM_TOKENS))))


def check_length(prompt: int, more: int, longest: int, stream_id: str) -> None:
    """Raise MLLMUnavailable, before anything is sent, if `prompt` tokens with `more` behind them, of a question and its
    answer, are too many."""
    if prompt + more > longest:
        raise MLLMUnavailable(
            f"a prompt of {prompt} tokens, with {more} of a question and its answer, does not fit into {longest}"
            f" (mllm.max_prompt_tokens, or the checkpoint's own bound); lower context_max_tokens of {stream_id}",
            sent=False,
        )


def check_limit(pending: int, limit: int | None, stream_id: str) -> None:
    """Raise MLLMUnavailable, before anything is sent, if more vision tokens would be than were paid for."""
    if limit is not None and pending > limit:
        raise MLLMUnavailable(
            f"what was kept of {stream_id} is gone: {pending} vision tokens would be sent where {limit} were paid for",
            sent=False,
        )


@contextmanager
def sent() -> Iterator[None]:
    """Whatever fails in here, the context was sent and is to be charged."""
    try:
        yield
    except MLLMUnavailable as error:
        error.sent = True
        raise
