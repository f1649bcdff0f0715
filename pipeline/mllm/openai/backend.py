"""A multimodal LLM behind an OpenAI-compatible server: vLLM's, SGLang's or another.

Every question is one chat completion that repeats the whole prompt. The server is expected to keep the prefixes that it
has read (prefix caching): here only a mirror is kept, of which contexts were sent, so that it is known what the next
ask costs. A picture's pixels go once, where the server then knows it by its content id.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import structlog

from allocator_engine.grid import GRIDS
from pipeline.clock import Clock, SystemClock
from pipeline.config.mllm import OpenAIConfig
from pipeline.core.context import Context, Room
from pipeline.errors import ConfigError, MLLMOverloaded, MLLMTimeout, MLLMUnavailable
from pipeline.logs import Seldom
from pipeline.mllm.base import MLLMInfo, check_limit, room_within, sent
from pipeline.mllm.counters import Counters
from pipeline.mllm.kept import Kept, KeptPrefixes
from pipeline.mllm.openai.address import family_of
from pipeline.mllm.openai.asking import Asking, answer_of, prefilled_tokens, prefix_tokens, segments_held
from pipeline.mllm.openai.exchange import broke_off
from pipeline.mllm.openai.limits import Hint, LimitsOfStreams, Size
from pipeline.mllm.openai.probe import Abilities, ServerProbe, check_price
from pipeline.mllm.openai.refusals import CacheMiss, Refused
from pipeline.mllm.openai.replies import Reply
from pipeline.mllm.openai.server import Server
from pipeline.mllm.openai.wire import THINKS, Requests, Wording, question_line
from pipeline.mllm.options import MOST_STEPS, hint
from pipeline.redact import redact_mllm
from pipeline.types import Answer, Answers, Json, Segment, Usage, WatchQuery

log = structlog.get_logger()

MOST_TEXT_TOKENS = 8192
"""Of a prompt, beside twice its pictures': what a server counts beyond that drives nobody's prefix out."""


class OpenAIMLLM:
    """Answers from the model `model` behind `url` (`http://host:port/v1`). Images only: one frame per segment.

    The secrets in `settings` are resolved; `api_key` goes into the Authorization header and nowhere else.

    What the server refuses is not sent again as it was: a stream sends less at once, and by and by more again, within
    its `room`. A question that alone is refused is answered `unknown`.

    Bounds, by `settings`: what was sent is remembered of `max_streams` streams and `max_cache_tokens` prompt tokens,
    the least recently used go first; with `max_queue` asks unfinished, another is refused with MLLMOverloaded; an ask
    that has no answer after `timeout_s` seconds ends in MLLMTimeout; a context of more than `max_prompt_tokens` vision
    tokens, or than the server's own bound, is not sent. `min_tokens_per_segment` is what the Allocator keeps to.
    """

    def __init__(self, url: str, model: str, settings: OpenAIConfig, clock: Clock = SystemClock()) -> None:
        family = family_of(model, settings.family)
        self.info = MLLMInfo(redact_mllm(settings.use), family, GRIDS[family], max_frames_per_segment=1)
        self.settings, self._clock = settings, clock
        self._wording = Wording(model)
        self._kept: KeptPrefixes[None] = KeptPrefixes(settings.max_streams, settings.max_cache_tokens)
        # A hop must stay large enough to be seen: for less than twice this, no frame is shown.
        self._limits, self._seldom = LimitsOfStreams(2 * settings.min_tokens_per_segment), Seldom()
        self._server = Server(
            url,
            model,
            api_key=settings.api_key,
            any_model=settings.any_model,
            timeout_s=settings.timeout_s,
            clock=clock,
            on_loss=self._lose_all,
        )
        self._abilities: Abilities | None = None
        self._unfinished = 0
        self._asking: dict[str, object] = {}
        self.counters = Counters()

    async def start(self) -> None:
        """Find out what the server can do; what it lacks beyond the least is named in one warning.

        Raises ConfigError for a server that does not have the model, gives no log-probabilities, answers a yes or no
        question with neither or enlarges pictures that the Allocator may make, and MLLMUnavailable for one that cannot
        be reached or refuses the key.
        """
        if self._abilities is None:
            await self.meet()

    async def meet(self) -> None:
        """As `start`, and again for a server that has been away: another program may answer there now."""
        await self._server.meet()
        probe = ServerProbe(
            self._server,
            self._wording,
            self.info.grid,
            more=THINKS.get(self.info.family, {}),
            samples=self.settings.samples,
            timeout_s=self.settings.timeout_s,
            clock=self._clock,
        )
        found = await probe.abilities()
        grid = check_price(found.side, self.info.grid, self.settings.min_tokens_per_segment, self._server.where)
        believed = "replies are believed whatever model they name (mllm.any_model)"
        any_model = (believed,) if self.settings.any_model else ()
        notes = (*found.notes, *any_model)
        self.info = replace(self.info, grid=grid, notes=notes, needs_pixels=not found.uuids)
        self._wording = replace(self._wording, uuids=found.uuids)
        if found.missing:
            log.warning("mllm_server_lacks", server=self._server.where, lacks=list(found.missing))
        if found.notes:
            log.warning("mllm_server_manners", server=self._server.where, notes=list(found.notes))
        self._abilities = found

    @property
    def where(self) -> str:
        """Scheme, host and port of the server."""
        return self._server.where

    @property
    def started(self) -> bool:
        """True once it is known what the server can do."""
        return self._abilities is not None

    @property
    def retried(self) -> int:
        """Requests sent again because the server was busy."""
        return self._server.retried

    @property
    def doubted(self) -> bool:
        """True if a connection was opened or lost since the model was last seen behind it."""
        return self._server.doubted

    async def confirm(self) -> None:
        """Make sure, if in doubt, that the model still answers. Raises MLLMUnavailable if it does not."""
        await self._server.confirm()

    def counts(self) -> Mapping[str, int]:
        return replace(self.counters, retried=self.retried).with_kept(self._kept)

    def pending(self, context: Context) -> int:
        return sum(segment.tokens for segment in context.segments[self._kept.segments(context) :])

    def room(self, context: Context) -> Room:
        room = room_within(context, self._longest_prompt, self._kept.room(context))
        limits = self._limits.of(context.stream_id)
        if limits is None:
            return room
        tokens = min(room.tokens, limits.tokens.most or room.tokens)
        too_long = not limits.allows(_size(context.segments))
        return Room(tokens, limits.pictures.most or room.segments, too_long)

    async def ask(
        self,
        context: Context,
        queries: Sequence[WatchQuery],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> Answers:
        assert self._abilities is not None, "ask before start"
        lines = [question_line(query.asked, hint(query)) for query in queries]
        if not lines:
            return Answers()
        dialect = self._abilities.dialect
        behind = [MOST_STEPS if query.options else 0 for query in queries]
        ways = [[dialect.scored(sample, more) for sample in range(dialect.draws)] for more in behind]
        results, usage = await self._converse(context, lines, ways, limit, aside)
        answers = [self._answer(query, replies) for query, replies in zip(queries, results, strict=True)]
        return Answers(tuple(answers), usage)

    async def say(
        self, context: Context, questions: Sequence[str], most: int = 64, schema: Mapping[str, Json] | None = None
    ) -> list[str]:
        assert self._abilities is not None, "say before start"
        if schema is not None and not self._abilities.schemas:
            raise ConfigError(f"{self._server.where} follows no JSON schema; ask without one, or use another server")
        lines = [question_line(question) for question in questions]
        if not lines:
            return []
        way = [self._abilities.dialect.spoken(most, schema)]
        results, _ = await self._converse(context, lines, [way] * len(lines))
        for (result,) in results:
            if isinstance(result, Refused):
                raise result
        return [result.text for (result,) in results if isinstance(result, Reply)]

    def forget(self, stream_id: str) -> None:
        self._asking.pop(stream_id, None)  # an ask under way must not bring it back
        self._kept.drop(stream_id)
        self._limits.forget(stream_id)

    async def close(self) -> None:
        await self._server.close()
        self._forget_all()

    def _session(self, stream_id: str) -> Mapping[str, str]:
        """The header by which a router keeps a stream where its prefix is: a hash, which names no stream."""
        name = self.settings.session_header
        return {name: hashlib.blake2b(stream_id.encode(), digest_size=12).hexdigest()} if name else {}

    def _forget_all(self) -> None:
        self._asking.clear()
        self._kept.clear()

    def _lose_all(self) -> None:
        self._forget_all()
        self._limits.anew()

    def _answer(self, query: WatchQuery, results: Sequence[Reply | Refused]) -> Answer:
        assert self._abilities is not None
        for result in results:
            if isinstance(result, Refused):
                self._warn("mllm_question_refused", watch=query.id, reason=str(result))
        answer = answer_of(query, results, self._abilities.dialect)
        if answer is None:
            raise MLLMUnavailable(f"{self._server.where} answered without log-probabilities of its first token")
        return answer

    def _warn(self, trouble: str, **more: Json) -> None:
        """Log a trouble that may last: one line a minute, with the times it was met since."""
        if times := self._seldom.times(trouble, self._clock.monotonic_s()):
            log.warning(trouble, server=self._server.where, times=times, **more)

    async def _converse(
        self,
        context: Context,
        lines: Sequence[str],
        ways: Sequence[Sequence[Mapping[str, Json]]],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> tuple[list[list[Reply | Refused]], Usage]:
        self._check_pictures(context, aside)
        if self._unfinished >= self.settings.max_queue:
            self.counters.refused += 1
            raise MLLMOverloaded(f"{self.info.name} has {self._unfinished} asks unfinished, which is max_queue", False)
        self._unfinished += 1
        self._asking[context.stream_id] = turn = object()
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await self._talk(context, lines, ways, limit, tuple(aside), turn)
        except (TimeoutError, MLLMTimeout) as error:
            self.counters.timed_out += 1
            if isinstance(error, MLLMTimeout):
                raise
            raise MLLMTimeout(
                f"{self.info.name} has no answer after timeout_s = {self.settings.timeout_s:g} seconds"
            ) from error
        finally:
            self._unfinished -= 1
            if self._asking.get(context.stream_id) is turn:
                del self._asking[context.stream_id]

    async def _talk(
        self,
        context: Context,
        lines: Sequence[str],
        ways: Sequence[Sequence[Mapping[str, Json]]],
        limit: int | None,
        aside: tuple[Segment, ...],
        turn: object,
    ) -> tuple[list[list[Reply | Refused]], Usage]:
        began_s = self._clock.monotonic_s()
        await self._server.confirm()
        ready_s = self._clock.monotonic_s()
        requests = Requests(self._wording, context.segments + aside, context.anchor_s)
        size = _size(context.segments + aside)
        deadline_s, headers = began_s + self.settings.timeout_s, self._session(context.stream_id)
        asking = Asking(self._server, requests, lines, ways, size.pictures, deadline_s, headers)
        with self._learning(context.stream_id, size):
            first, encoded, cached = await self._first(asking, context, limit, _tokens(aside), turn)
        if 0 < first.prompt_tokens < size.tokens:
            self._warn("mllm_reads_less_than_sent", sent_tokens=size.tokens, prompt_tokens=first.prompt_tokens)
        answered_s = self._clock.monotonic_s()
        with sent():
            if self._asking.get(context.stream_id) is turn:
                believed = min(prefix_tokens(first, lines[asking.opener]), 2 * size.tokens + MOST_TEXT_TOKENS)
                self._keep(context, max(0, believed - _tokens(aside)))
            rest = await asking.rest()
            await self._server.confirm()
        self.counters.resent += asking.resent
        usage = Usage(
            encoded_tokens=encoded,
            prefilled_tokens=prefilled_tokens(first, rest, lines[asking.opener], cached),
            cached_tokens=cached,
            seconds=self._clock.monotonic_s() - began_s,
            queued_s=ready_s - began_s,
            first_answer_s=answered_s - ready_s,
            answer_tokens=sum(reply.answer_tokens for reply in (first, *rest)),
        )
        return asking.results(), usage

    @contextmanager
    def _learning(self, stream_id: str, size: Size) -> Iterator[None]:
        """Learn from how a prompt of this size fares how much the stream may send at once."""
        try:
            yield
        except MLLMUnavailable as error:
            hint, certain = Hint(), False
            if isinstance(error, Refused):
                hint, certain = error.hint, error.of_prompt
            if not (certain or broke_off(error) or (isinstance(error, Refused) and error.sent)):
                raise
            if limits := self._limits.refuse(stream_id, size, self._clock.monotonic_s(), hint, certain):
                self.counters.too_large += 1
                pictures, tokens = limits.pictures.most, limits.tokens.most
                self._warn("mllm_takes_less", stream=stream_id, most_pictures=pictures, most_tokens=tokens)
            raise
        self._limits.take(stream_id, size, self._clock.monotonic_s())

    async def _first(
        self, asking: Asking, context: Context, limit: int | None, aside_tokens: int, turn: object
    ) -> tuple[Reply, int, int]:
        """The first reply, the vision tokens that it had encoded, and the prompt tokens that were cached before."""
        assert self._abilities is not None
        found = self._kept.find(context)
        encoded = self.pending(context) + aside_tokens
        check_limit(encoded, limit, context.stream_id)
        try:
            reply = await asking.first(len(found.content_ids) if found else 0)
        except CacheMiss:
            if self._server.doubted:
                # Over a new connection it is a new server, which has read nothing; else an old one short of memory.
                self._forget_all()
                await self._server.confirm()
                found, encoded = None, context.tokens + aside_tokens
                check_limit(encoded, limit, context.stream_id)
                self._asking[context.stream_id] = turn
            self.counters.resent += 1
            reply = await asking.first(0)
        if not self._abilities.cached_counts:
            return reply, encoded, min(found.tokens, reply.prompt_tokens) if found else 0
        cached = reply.cached_tokens or 0  # servers that count may leave out a zero
        return reply, encoded + (self._evicted(context, found, cached) if found else 0), cached

    def _evicted(self, context: Context, found: Kept[None], cached: int) -> int:
        """Vision tokens that were read again because the server had not kept them as it should."""
        held, known = segments_held(context, found, cached), len(found.content_ids)
        if held < known:
            self.counters.evicted += 1
            stream_id, believed = context.stream_id, found.tokens
            self._warn("mllm_prefix_evicted", stream=stream_id, believed_tokens=believed, cached_tokens=cached)
        return _tokens(context.segments[held:known])

    @property
    def _longest_prompt(self) -> int:
        return min(self.settings.max_prompt_tokens, self._server.longest_prompt or self.settings.max_prompt_tokens)

    def _keep(self, context: Context, tokens: int) -> None:
        ids = tuple(segment.content_id for segment in context.segments)
        self._kept.put(context.stream_id, Kept(context.epoch, context.anchor_s, ids, tokens, None))

    def _check_pictures(self, context: Context, aside: Sequence[Segment]) -> None:
        segments, most = (*context.segments, *aside), self._longest_prompt
        limits = self._limits.of(context.stream_id)
        if aside and limits and not limits.allows(_size(segments)):
            raise MLLMUnavailable(
                f"{self._server.where} has refused less than the second look at {context.stream_id} would send",
                sent=False,
            )
        if (tokens := _tokens(segments)) > most:
            raise MLLMUnavailable(
                f"{tokens} vision tokens would be sent to {self._server.where}, whose prompts may have {most} tokens"
                " (mllm.max_prompt_tokens, or the server's own bound); lower context_max_tokens",
                sent=False,
            )
        if any(len(segment.pts_s) > 1 for segment in segments):
            raise ConfigError(
                f"{self.info.name} takes single pictures only, and got a segment of two frames; set"
                " mllm.frames_per_segment: 1"
            )


def _tokens(segments: Sequence[Segment]) -> int:
    return sum(segment.tokens for segment in segments)


def _size(segments: Sequence[Segment]) -> Size:
    return Size(len(segments), _tokens(segments))
