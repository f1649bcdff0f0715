"""The embedded multimodal LLM: any Qwen-VL checkpoint, run in this process by transformers.

Of each stream's context the model keeps what it has read (its cache). An `ask` reads the new segments only, then
branches one short question per watch from there. All of the model's work happens in one thread, in the order in which
it was asked for; the event loop never waits for it. What is new in several streams that wait goes through the vision
encoder together.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.clock import Clock, SystemClock
from pipeline.config.mllm import EmbeddedConfig
from pipeline.core.context import Context, Room
from pipeline.errors import MLLMOverloaded, MLLMUnavailable, ResadaptError
from pipeline.mllm.base import MLLMInfo, check_length, check_limit, room_within
from pipeline.mllm.card import Card, read_card
from pipeline.mllm.counters import Counters
from pipeline.mllm.kept import Kept, KeptPrefixes
from pipeline.mllm.options import OptionWalk, Spelled, hint, open_steps, read_option
from pipeline.mllm.prompt import looks, opening, read_answer, suffix
from pipeline.mllm.transformers.worker import ModelWorker, Turn, is_out_of_memory
from pipeline.types import Answers, Json, Segment, Usage, WatchQuery

if TYPE_CHECKING:
    import torch

    from pipeline.mllm.transformers.cache import Prefix
    from pipeline.mllm.transformers.encodings import KeptEncodings
    from pipeline.mllm.transformers.reader import FirstToken, PromptReader

MAX_ENCODED_TOKENS = 4096
"""Vision tokens of several streams that are encoded in one call."""
MAX_PREFILL_TOKENS = 1024
"""Vision tokens that are read in one pass; a longer context takes more passes. Bounds the memory of a prefill, and its
time: under a mask, attention computes what it hides too, which in one pass over a whole context is half of it."""

_REMEMBERED_OPTIONS = 1024
"""Sets of values whose spellings are remembered."""


class TransformersMLLM:
    """Answers from a local or Hub checkpoint of a supported family (see `pipeline.mllm.card`), frozen.

    Bounds, all in `settings`: caches are kept for `max_streams` streams and `max_cache_tokens` prompt tokens together,
    the least recently used go first; a prompt with its answer has at most `max_prompt_tokens`, or what the checkpoint
    was made for; with `max_queue` asks unfinished, another is refused with MLLMOverloaded; an ask that has no answer
    after `timeout_s` seconds ends in MLLMTimeout.
    """

    def __init__(self, checkpoint: str | Path, settings: EmbeddedConfig, clock: Clock = SystemClock()) -> None:
        self._checkpoint, self.settings, self._clock = str(checkpoint), settings, clock
        self._turns = ModelWorker(settings.use, settings.max_queue, settings.timeout_s, clock)
        self._kept: KeptPrefixes[Prefix] = KeptPrefixes(settings.max_streams, settings.max_cache_tokens)
        self._card: Card | None = None
        self._loaded: PromptReader | None = None
        self._encodings: KeptEncodings | None = None
        self._spellings: dict[tuple[str, ...], Spelled] = {}

    @property
    def info(self) -> MLLMInfo:
        """Known without the weights: reads the checkpoint's JSON files, and raises ConfigError as `start` does."""
        card = self._read_card()
        return MLLMInfo(self.settings.use, card.family, card.grid, card.meaningful)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt."""
        return min(self.settings.max_prompt_tokens, self._read_card().longest_prompt)

    @property
    def reader(self) -> "PromptReader":
        """The reader of prompts with the loaded model; after `start` only."""
        assert self._loaded is not None, "ask before start"
        return self._loaded

    @property
    def counters(self) -> Counters:
        """Counts of what the bounds did."""
        return self._turns.counters

    @property
    def kept(self) -> KeptPrefixes["Prefix"]:
        """The caches kept, and what their bounds did."""
        return self._kept

    async def start(self) -> None:
        """Load the weights and warm up. Raises ConfigError and EngineMismatch as `loading.load` does,
        EngineMismatch also when the kept prefix does not answer as one pass over the whole prompt would."""
        if self._loaded is None:
            await self._turns.run(self._load)

    def counts(self) -> Mapping[str, int]:
        return self.counters.with_kept(self._kept)

    def pending(self, context: Context) -> int:
        return sum(segment.tokens for segment in context.segments[self._kept.segments(context) :])

    def room(self, context: Context) -> Room:
        return room_within(context, self.longest_prompt, self._kept.room(context))

    async def ask(
        self,
        context: Context,
        queries: Sequence[WatchQuery],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> Answers:
        turn = Turn(context, tuple(aside), limit)
        return await self._turns.take(turn, lambda: self._answer(turn, queries))

    async def say(
        self, context: Context, questions: Sequence[str], most: int = 64, schema: Mapping[str, Json] | None = None
    ) -> list[str]:
        asked = [suffix(question, self.info.family).text for question in questions]
        turn = Turn(context)
        return await self._turns.take(turn, lambda: self._say(turn, asked, most, schema))

    def forget(self, stream_id: str) -> None:
        self._drop(stream_id)
        # Work under way may keep the stream's prefix again: drop it once more after that.
        self._turns.afterwards(lambda: self._drop(stream_id))

    def _drop(self, stream_id: str) -> None:
        self._kept.drop(stream_id)
        if self._encodings is not None:
            self._encodings.drop(stream_id)

    async def close(self) -> None:
        await self._turns.close()
        self._kept.clear()
        self._loaded = self._encodings = None

    def _read_card(self) -> Card:
        if self._card is None:
            self._card = read_card(self._checkpoint)
        return self._card

    # What follows runs in the worker thread.

    def _load(self) -> None:
        import torch

        from pipeline.mllm.transformers.encodings import KeptEncodings
        from pipeline.mllm.transformers.loading import load

        torch.set_num_threads(self.settings.threads or 1)
        self._card = read_card(self._checkpoint)
        reader = load(self._checkpoint, self._card, self.settings.device, self.settings.dtype)
        with torch.inference_mode():
            reader.check()
        self._loaded, self._encodings = reader, KeptEncodings()

    def _answer(self, turn: Turn, queries: Sequence[WatchQuery]) -> Answers:
        import torch

        reader = self.reader
        asked = [reader.tokens(self._suffix(query)) for query in queries]
        walks = [OptionWalk(self._spelled(query.options)) if query.options else None for query in queries]
        watched = [walk.spelled.children.get((), ()) if walk else () for walk in walks]
        with torch.inference_mode():
            found, fresh = self._find(turn, reader, max(map(len, asked), default=0))
            self._encode_together(turn, reader)
            # One pass for what is new and the first questions, where it may be: a pass reads all weights.
            along = next(reader.groups(asked), []) if reader.packs and not turn.aside else []
            kept, logits = self._bring_up(turn, found, reader, along)
            prefix = self._show_aside(turn, kept.prefix, reader)
            self._turns.in_time(turn)
            firsts: list[FirstToken] = []
            first_s = 0.0
            with self._dropped_on_failure(turn):
                if logits is not None:
                    firsts += reader.first_of(logits, watched[: len(along)])
                    first_s = self._clock.monotonic_s()
                for group in reader.first_tokens(prefix, asked[len(firsts) :], watched[len(firsts) :]):
                    first_s = first_s or self._clock.monotonic_s()
                    firsts += group
                more, steps = self._follow(reader, prefix, asked, walks, firsts)
        cached, now_s = found.tokens if found else 0, self._clock.monotonic_s()
        usage = Usage(
            encoded_tokens=sum(segment.tokens for segment in fresh),
            prefilled_tokens=prefix.tokens - cached + sum(map(len, asked)) + more,
            cached_tokens=cached,
            seconds=now_s - turn.asked_s,
            queued_s=turn.came_s - turn.asked_s,
            first_answer_s=(first_s or now_s) - turn.came_s,
            answer_tokens=len(asked) + steps,
        )
        answers = (
            read_option(query, walk.shares) if walk else read_answer(query.id, *odds)
            for query, walk, (odds, _) in zip(queries, walks, firsts, strict=True)
        )
        return Answers(tuple(answers), usage)

    def _suffix(self, query: WatchQuery) -> str:
        told = "" if self._read_card().plain_questions else hint(query)
        return suffix(query.asked, self.info.family, told).text

    def _spelled(self, options: tuple[str, ...]) -> Spelled:
        """The model's spelling of some values. Cached, because the watches of a site are asked again at every hop."""
        if options not in self._spellings:
            if len(self._spellings) >= _REMEMBERED_OPTIONS:
                self._spellings.clear()
            self._spellings[options] = Spelled.of(options, self.reader.tokens)
        return self._spellings[options]

    @staticmethod
    def _follow(
        reader: "PromptReader",
        prefix: "Prefix",
        asked: Sequence[Sequence[int]],
        walks: Sequence[OptionWalk | None],
        firsts: Sequence["FirstToken"],
    ) -> tuple[int, int]:
        """Ask what comes behind tokens that may begin several values, until that is known. Returns the prompt tokens
        that this took, and the further tokens of answers that it gave."""
        for walk, (_, shares) in zip(walks, firsts, strict=True):
            if walk:
                walk.feed((), shares)
        read = given = 0
        while steps := open_steps(walks):
            questions = [[*asked[n], *path] for n, _, path in steps]
            wanted = [walk.spelled.children[path] for _, walk, path in steps]
            found = (one for group in reader.first_tokens(prefix, questions, wanted) for one in group)
            for (_, walk, path), (_, shares) in zip(steps, found, strict=True):
                walk.feed(path, shares)
            read += sum(map(len, questions))
            given += len(steps)
        return read, given

    def _say(self, turn: Turn, questions: Sequence[str], most: int, schema: Mapping[str, Json] | None) -> list[str]:
        import torch

        from pipeline.mllm.transformers.saying import say

        reader = self.reader
        asked = [reader.tokens(question) for question in questions]
        with torch.inference_mode():
            found, _ = self._find(turn, reader, max(map(len, asked), default=0) + most)
            self._encode_together(turn, reader)
            kept, _ = self._bring_up(turn, found, reader)
            with self._dropped_on_failure(turn):
                return say(reader, kept.prefix, asked, most, schema, lambda: self._turns.in_time(turn))

    def _find(
        self, turn: Turn, reader: "PromptReader", more_tokens: int
    ) -> "tuple[Kept[Prefix] | None, Sequence[Segment]]":
        """The prefix kept for this ask, and the segments that have to be read. Raises MLLMUnavailable over its limit,
        and where the prompt, with `more_tokens` behind the pictures, would be longer than the longest."""
        found = self._kept.find(turn.context)
        fresh = self._fresh(turn)
        before = [] if found else [opening(self.info.family)]
        prompt = reader.length([*before, *looks(fresh, turn.context.anchor_s)]) + (found.tokens if found else 0)
        try:
            check_limit(sum(segment.tokens for segment in fresh), turn.limit, turn.context.stream_id)
            check_length(prompt, more_tokens, self.longest_prompt, turn.context.stream_id)
        except MLLMUnavailable as refusal:
            refusal.sent = turn.sent  # Something was if it was encoded before its turn, and its prefix was lost since.
            raise
        turn.sent = True
        return found, fresh

    def _fresh(self, turn: Turn) -> Sequence[Segment]:
        return (*turn.context.segments[self._kept.segments(turn.context) :], *turn.aside)

    def _encode_together(self, turn: Turn, reader: "PromptReader") -> None:
        """Encode what is new in this turn in one call with what is new in those that wait behind it, as far as all of
        it is one pass: the encoder costs less per picture the more it is given."""
        if turn.encoded:
            return
        chosen: list[tuple[Turn, Sequence[Segment]]] = []
        room = MAX_ENCODED_TOKENS
        for one in (turn, *self._turns.waiting()):
            fresh = self._fresh(one)
            tokens = sum(segment.tokens for segment in fresh)
            refused = one.limit is not None and tokens > one.limit
            fresh = self._unencoded(one, fresh)
            tokens = sum(segment.tokens for segment in fresh)
            if not fresh or refused or one.deadline_s < turn.came_s:
                continue
            if (room := room - tokens) < 0:
                break
            chosen.append((one, fresh))
        if len(chosen) < 2:
            return
        for one, _ in chosen:
            one.sent = True
        with self._dropped_on_failure(turn):
            encoded = iter(reader.encode([segment for _, fresh in chosen for segment in fresh]))
        for one, fresh in chosen:
            one.encoded.update((segment.content_id, next(encoded)) for segment in fresh)

    def _bring_up(
        self,
        turn: Turn,
        found: "Kept[Prefix] | None",
        reader: "PromptReader",
        questions: Sequence[Sequence[int]] = (),
    ) -> "tuple[Kept[Prefix], torch.Tensor | None]":
        """Read what is new in the context, pass by pass; what was read is kept even if time runs out between them.
        Also the logits of `questions`, if they were asked in the last pass: not where nothing was new."""
        context, kept, logits = turn.context, found, None
        if kept is None:
            with self._dropped_on_failure(turn):
                prefix = reader.empty()
                reader.extend(prefix, [opening(self.info.family)])
            kept = Kept(context.epoch, context.anchor_s, (), prefix.tokens, prefix)
            self._kept.put(context.stream_id, kept)
        groups = list(_passes(context.segments[len(kept.content_ids) :]))
        for group in groups:
            self._turns.in_time(turn)
            with self._dropped_on_failure(turn):
                logits = self._read(kept.prefix, group, turn, reader, questions if group is groups[-1] else ())
            ids = (*kept.content_ids, *(segment.content_id for segment in group))
            kept = Kept(context.epoch, context.anchor_s, ids, kept.prefix.tokens, kept.prefix)
            self._kept.put(context.stream_id, kept)
        return kept, logits

    def _show_aside(self, turn: Turn, prefix: "Prefix", reader: "PromptReader") -> "Prefix":
        """The prefix that the queries see: with segments aside a branch, of which nothing is kept."""
        if turn.aside:
            prefix = prefix.branch()
        for group in _passes(turn.aside):
            self._turns.in_time(turn)
            with self._dropped_on_failure(turn):
                self._read(prefix, group, turn, reader)
        return prefix

    def _unencoded(self, turn: Turn, segments: Sequence[Segment]) -> Sequence[Segment]:
        return self._encodings.missing(turn.context.stream_id, segments) if self._encodings else segments

    def _read(
        self,
        prefix: "Prefix",
        group: Sequence[Segment],
        turn: Turn,
        reader: "PromptReader",
        questions: Sequence[Sequence[int]] = (),
    ) -> "torch.Tensor | None":
        """Read segments into `prefix`; the logits of `questions`, where there are some, asked in the same pass."""
        assert self._encodings is not None, "ask before start"
        encoded = self._encodings.of(turn.context.stream_id, group, turn.encoded, reader.encode)
        parts = looks(group, turn.context.anchor_s)
        if questions:
            return reader.extend_and_ask(prefix, parts, encoded, questions)
        reader.extend(prefix, parts, encoded)
        return None

    @contextmanager
    def _dropped_on_failure(self, turn: Turn) -> Iterator[None]:
        """Keep nothing half-written: when the model fails in here, the stream's cache goes with it."""
        try:
            yield
        except ResadaptError:
            raise  # Raised on purpose, between what the model does.
        except BaseException as error:
            stream_id = turn.context.stream_id
            self._kept.drop(stream_id)
            if is_out_of_memory(error):
                self.counters.out_of_memory += 1
                raise MLLMOverloaded(
                    f"{self.settings.use} ran out of memory reading {stream_id}; lower max_cache_tokens or max_streams"
                ) from error
            raise


def _passes(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    group: list[Segment] = []
    for segment in segments:
        if group and sum(one.tokens for one in group) + segment.tokens > MAX_PREFILL_TOKENS:
            yield group
            group = []
        group.append(segment)
    if group:
        yield group
