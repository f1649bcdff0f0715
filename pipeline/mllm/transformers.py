"""The embedded multimodal LLM: any Qwen-VL checkpoint, run in this process by transformers.

Of each stream's context the model keeps what it has read (its cache). An `ask` reads the new segments only, then
branches one short question per watch from there. All of the model's work happens in one thread, in the order in which
it was asked for; the event loop never waits for it.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.clock import Clock, SystemClock
from pipeline.context import Context
from pipeline.errors import MLLMOverloaded, MLLMTimeout, MLLMUnavailable
from pipeline.mllm.base import MLLMInfo, check_limit
from pipeline.mllm.card import Card, read_card
from pipeline.mllm.kept import Kept, KeptPrefixes
from pipeline.mllm.prompt import looks, opening, read_answer, suffix
from pipeline.types import Answers, Segment, Usage, WatchQuery

if TYPE_CHECKING:
    from pipeline.mllm.branching import LogOdds, Prefix, Reader

T = TypeVar("T")

MAX_PREFILL_TOKENS = 4096
"""Vision tokens read in one pass; a longer context takes more passes. Bounds the memory of a prefill."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(slots=True)
class Counters:
    """What the bounds did: asks refused because the queue was full or memory was out, and asks that came too late."""

    refused: int = 0
    out_of_memory: int = 0
    timed_out: int = 0


class TransformersMLLM:
    """Answers from a local or Hub checkpoint of a supported family (see `pipeline.mllm.card`), frozen.

    `device` and `dtype` are torch's names or "auto" (see `pipeline.mllm.loading`), `threads` the CPU threads of the
    model. Bounds: caches are kept for `max_streams` streams and `max_cache_tokens` prompt tokens together, the least
    recently used go first; with `max_queue` asks unfinished, another is refused with MLLMOverloaded; an ask that has
    no answer after `timeout_s` seconds ends in MLLMTimeout.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        name: str,
        device: str = "auto",
        dtype: str = "auto",
        threads: int = 1,
        max_streams: int = 64,
        max_cache_tokens: int = 131_072,
        max_queue: int = 64,
        timeout_s: float = 60.0,
        clock: Clock = SystemClock(),
    ) -> None:
        self._checkpoint, self._name = str(checkpoint), name
        self._device, self._dtype, self._threads = device, dtype, threads
        self._max_queue, self._timeout_s, self._clock = max_queue, timeout_s, clock
        self._kept: KeptPrefixes[Prefix] = KeptPrefixes(max_streams, max_cache_tokens)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mllm")
        self._unfinished: set[object] = set()
        self._card: Card | None = None
        self._reader: Reader | None = None
        self.counters = Counters()

    @property
    def info(self) -> MLLMInfo:
        """Known without the weights: reads the checkpoint's JSON files, and raises ConfigError as `start` does."""
        if self._card is None:
            self._card = read_card(self._checkpoint)
        return MLLMInfo(self._name, self._card.family, self._card.grid, self._card.meaningful)

    @property
    def kept(self) -> KeptPrefixes["Prefix"]:
        """The caches kept, and what their bounds did."""
        return self._kept

    async def start(self) -> None:
        """Load the weights and warm up. Raises ConfigError and EngineMismatch as `pipeline.mllm.loading.load` does,
        EngineMismatch also when the kept prefix does not answer as one pass over the whole prompt would."""
        if self._reader is None:
            await asyncio.wrap_future(self._worker.submit(self._load))

    def pending(self, context: Context) -> int:
        return sum(segment.tokens for segment in context.segments[self._kept.segments(context) :])

    async def ask(self, context: Context, queries: Sequence[WatchQuery], limit: int | None = None) -> Answers:
        if len(self._unfinished) >= self._max_queue:
            self.counters.refused += 1
            raise MLLMOverloaded(f"{self._name} has {self._max_queue} asks unfinished, which is max_queue", sent=False)
        deadline_s = self._clock.monotonic_s() + self._timeout_s
        questions = [suffix(query.question, self.info.family).text for query in queries]
        work = self._submit(lambda: self._answer(context, questions, deadline_s, limit))
        try:
            async with asyncio.timeout(self._timeout_s):
                odds, usage = await asyncio.wrap_future(work)
        except (TimeoutError, MLLMTimeout) as error:
            self.counters.timed_out += 1
            raise MLLMTimeout(f"{self._name} has no answer after timeout_s = {self._timeout_s:g} seconds") from error
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            raise MLLMUnavailable(f"{self._name} was closed before it could answer") from error
        answers = [read_answer(query.id, *pair) for query, pair in zip(queries, odds, strict=True)]
        return Answers(tuple(answers), usage)

    async def say(self, context: Context, questions: Sequence[str], most: int = 16) -> list[str]:
        """Answers in words, at most `most` tokens each, on the same kept prefix as `ask`: colours, numbers, plates,
        intervals. Raises as `ask` does, and ConfigError for a family that cannot."""
        deadline_s = self._clock.monotonic_s() + self._timeout_s
        asked = [suffix(question, self.info.family).text for question in questions]
        return await asyncio.wrap_future(self._submit(lambda: self._say(context, asked, most, deadline_s)))

    def forget(self, stream_id: str) -> None:
        self._kept.drop(stream_id)
        if self._unfinished:
            # Work under way may keep the stream's prefix again: drop it once more after that.
            self._worker.submit(self._kept.drop, stream_id)

    async def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._worker.shutdown)
        self._kept.clear()
        self._reader = None

    def _submit(self, work: Callable[[], T]) -> "Future[T]":
        future: Future[T] = self._worker.submit(work)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    # What follows runs in the worker thread.

    def _load(self) -> None:
        import torch

        from pipeline.mllm.loading import load

        torch.set_num_threads(self._threads)
        self._card = read_card(self._checkpoint)
        reader = load(self._checkpoint, self._card, self._device, self._dtype)
        with torch.inference_mode():
            reader.check()
        self._reader = reader

    def _answer(
        self, context: Context, questions: list[str], deadline_s: float, limit: int | None
    ) -> "tuple[list[LogOdds], Usage]":
        import torch

        assert self._reader is not None, "ask before start"
        self._in_time(deadline_s)
        began_s = self._clock.monotonic_s()
        with torch.inference_mode():
            found = self._kept.find(context)
            fresh = context.segments[len(found.content_ids) if found else 0 :]
            check_limit(sum(segment.tokens for segment in fresh), limit, context.stream_id)
            kept = self._bring_up(context, found, self._reader, deadline_s)
            self._in_time(deadline_s)
            asked = [self._reader.tokens(question) for question in questions]
            with self._dropped_on_failure(context.stream_id):
                odds = self._reader.answer(kept.prefix, asked)
        cached = found.tokens if found else 0
        usage = Usage(
            encoded_tokens=sum(segment.tokens for segment in fresh),
            prefilled_tokens=kept.tokens - cached + sum(map(len, asked)),
            cached_tokens=cached,
            seconds=self._clock.monotonic_s() - began_s,
        )
        return odds, usage

    def _say(self, context: Context, questions: list[str], most: int, deadline_s: float) -> list[str]:
        import torch

        assert self._reader is not None, "ask before start"
        with torch.inference_mode():
            kept = self._bring_up(context, self._kept.find(context), self._reader, deadline_s)
            with self._dropped_on_failure(context.stream_id):
                return self._reader.say(kept.prefix, [self._reader.tokens(question) for question in questions], most)

    def _bring_up(
        self, context: Context, found: "Kept[Prefix] | None", reader: "Reader", deadline_s: float
    ) -> "Kept[Prefix]":
        """Read what is new in `context`, pass by pass; what was read is kept even if time runs out between them."""
        kept = found
        if kept is None:
            with self._dropped_on_failure(context.stream_id):
                prefix = reader.empty()
                reader.extend(prefix, [opening(self.info.family)])
            kept = Kept(context.epoch, context.anchor_s, (), prefix.tokens, prefix)
            self._kept.put(context.stream_id, kept)
        for group in _passes(context.segments[len(kept.content_ids) :]):
            self._in_time(deadline_s)
            with self._dropped_on_failure(context.stream_id):
                reader.extend(kept.prefix, looks(group, context.anchor_s))
            ids = (*kept.content_ids, *(segment.content_id for segment in group))
            kept = Kept(context.epoch, context.anchor_s, ids, kept.prefix.tokens, kept.prefix)
            self._kept.put(context.stream_id, kept)
        return kept

    def _in_time(self, deadline_s: float) -> None:
        if self._clock.monotonic_s() > deadline_s:
            raise MLLMTimeout(f"{self._name} came to it too late")

    @contextmanager
    def _dropped_on_failure(self, stream_id: str) -> Iterator[None]:
        """Keep nothing half-written: whatever fails in here takes the stream's cache with it."""
        try:
            yield
        except BaseException as error:
            self._kept.drop(stream_id)
            if _is_out_of_memory(error):
                self.counters.out_of_memory += 1
                raise MLLMOverloaded(
                    f"{self._name} ran out of memory reading {stream_id}; lower max_cache_tokens or max_streams"
                ) from error
            raise


def _is_out_of_memory(error: BaseException) -> bool:
    # On the CPU torch raises a plain RuntimeError; only its text tells.
    said = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)
    return said or isinstance(error, MemoryError)


def _passes(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    group: list[Segment] = []
    for segment in segments:
        if group and sum(one.tokens for one in group) + segment.tokens > MAX_PREFILL_TOKENS:
            yield group
            group = []
        group.append(segment)
    if group:
        yield group
