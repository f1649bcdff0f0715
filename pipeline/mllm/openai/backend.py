"""A multimodal LLM behind an OpenAI-compatible server: vLLM's, SGLang's or another that shows the probabilities of its
answers' first tokens.

Every question is one chat completion that repeats the whole prompt. The server is expected to keep the prefixes that it
has read (prefix caching): here only a mirror is kept, of which contexts were sent, so that it is known what the next
ask costs. A picture's pixels go once, where the server then knows it by its content id.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from allocator_engine.grid import GRIDS
from pipeline.clock import Clock, SystemClock
from pipeline.core.context import Context, Room
from pipeline.errors import ConfigError, MLLMOverloaded, MLLMTimeout, MLLMUnavailable
from pipeline.mllm.base import MLLMInfo, check_limit, room_within, sent
from pipeline.mllm.counters import Counters
from pipeline.mllm.kept import Kept, KeptPrefixes
from pipeline.mllm.openai.asking import Asking, prefilled_tokens, prefix_tokens, segments_held
from pipeline.mllm.openai.probe import Abilities, Probe, check_price
from pipeline.mllm.openai.server import CacheMiss, Server
from pipeline.mllm.openai.wire import SCORED, Reply, Requests, Wording, question_line, spoken
from pipeline.mllm.prompt import read_answer
from pipeline.types import Answer, Answers, Json, Segment, Usage, WatchQuery

log = structlog.get_logger()

_FAMILY_NAMES = (
    (re.compile(r"qwen[-_ ]?2[._]5[-_ ]?vl", re.IGNORECASE), "qwen2_5_vl"),
    (re.compile(r"qwen[-_ ]?3[-_ ]?vl", re.IGNORECASE), "qwen3_vl"),
    (re.compile(r"qwen[-_ ]?3[._]5", re.IGNORECASE), "qwen3_5"),
)


class OpenAIMLLM:
    """Answers from the model `model` behind `url` (`http://host:port/v1`). Images only: one frame per segment.

    `family` is needed where the model's name does not tell it; `api_key` goes into the Authorization header and nowhere
    else. Bounds: what was sent is remembered of `max_streams` streams and `max_cache_tokens` prompt tokens together,
    the least recently used go first; with `max_queue` asks unfinished, another is refused with MLLMOverloaded; an ask
    that has no answer after `timeout_s` seconds ends in MLLMTimeout; a context of more than `max_prompt_tokens` vision
    tokens, or than the server's own bound, is not sent. `min_tokens_per_segment` is what the Allocator keeps to.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        name: str,
        family: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_queue: int = 64,
        max_streams: int = 64,
        max_cache_tokens: int = 131_072,
        max_prompt_tokens: int = 32_768,
        min_tokens_per_segment: int = 1,
        clock: Clock = SystemClock(),
    ) -> None:
        family = _family(model, family)
        self.info = MLLMInfo(name, family, GRIDS[family], max_frames_per_segment=1)
        self._wording = Wording(model, family)
        self._timeout_s, self._max_queue, self._clock = timeout_s, max_queue, clock
        self._max_prompt_tokens, self._min_tokens_per_segment = max_prompt_tokens, min_tokens_per_segment
        self._kept: KeptPrefixes[None] = KeptPrefixes(max_streams, max_cache_tokens)
        self._server = Server(url, model, api_key=api_key, timeout_s=timeout_s, clock=clock, on_loss=self._forget_all)
        self._abilities: Abilities | None = None
        self._unfinished = 0
        self._asking: dict[str, object] = {}
        self.counters = Counters()

    async def start(self) -> None:
        """Find out what the server can do; what it lacks beyond the least is named in one warning.

        Raises ConfigError for a server that does not have the model, gives no log-probabilities or enlarges pictures
        that the Allocator may make, and MLLMUnavailable for one that cannot be reached or refuses the key.
        """
        if self._abilities is not None:
            return
        await self._server.meet()
        probe = Probe(self._server, self._wording, self.info.grid, timeout_s=self._timeout_s, clock=self._clock)
        found = await probe.abilities()
        grid = check_price(found.side, self.info.grid, self._min_tokens_per_segment, self._server.where)
        self.info = replace(self.info, grid=grid)
        self._wording = replace(self._wording, uuids=found.uuids)
        if found.missing:
            log.warning("mllm_server_lacks", server=self._server.where, lacks=list(found.missing))
        self._abilities = found

    @property
    def retried(self) -> int:
        """Requests sent again because the server was busy."""
        return self._server.retried

    def counts(self) -> Mapping[str, int]:
        return replace(self.counters, retried=self.retried).with_kept(self._kept)

    def pending(self, context: Context) -> int:
        return sum(segment.tokens for segment in context.segments[self._kept.segments(context) :])

    def room(self, context: Context) -> Room:
        room = room_within(context, self._longest_prompt, self._kept.room(context))
        return replace(room, segments=self._server.most_pictures or room.segments)

    async def ask(
        self,
        context: Context,
        queries: Sequence[WatchQuery],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> Answers:
        lines = [question_line(query.question) for query in queries]
        if not lines:
            return Answers()
        replies, usage = await self._converse(context, lines, SCORED, limit, aside)
        answers = [self._answer(query.id, reply) for query, reply in zip(queries, replies, strict=True)]
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
        replies, _ = await self._converse(context, lines, spoken(most, schema))
        return [reply.text for reply in replies]

    def forget(self, stream_id: str) -> None:
        self._asking.pop(stream_id, None)  # an ask under way must not bring it back
        self._kept.drop(stream_id)

    async def close(self) -> None:
        await self._server.close()
        self._forget_all()

    def _forget_all(self) -> None:
        self._asking.clear()
        self._kept.clear()

    def _answer(self, watch_id: str, reply: Reply) -> Answer:
        shares = reply.log_shares()
        if shares is None:
            raise MLLMUnavailable(f"{self._server.where} answered without log-probabilities of its first token")
        return read_answer(watch_id, *shares)

    async def _converse(
        self,
        context: Context,
        lines: Sequence[str],
        how: Mapping[str, Json],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> tuple[list[Reply], Usage]:
        assert self._abilities is not None, "ask before start"
        self._check_pictures((*context.segments, *aside))
        if self._unfinished >= self._max_queue:
            self.counters.refused += 1
            raise MLLMOverloaded(f"{self.info.name} has {self._unfinished} asks unfinished, which is max_queue", False)
        self._unfinished += 1
        self._asking[context.stream_id] = turn = object()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._talk(context, lines, how, limit, tuple(aside), turn)
        except (TimeoutError, MLLMTimeout) as error:
            self.counters.timed_out += 1
            if isinstance(error, MLLMTimeout):
                raise
            raise MLLMTimeout(
                f"{self.info.name} has no answer after timeout_s = {self._timeout_s:g} seconds"
            ) from error
        finally:
            self._unfinished -= 1
            if self._asking.get(context.stream_id) is turn:
                del self._asking[context.stream_id]

    async def _talk(
        self,
        context: Context,
        lines: Sequence[str],
        how: Mapping[str, Json],
        limit: int | None,
        aside: tuple[Segment, ...],
        turn: object,
    ) -> tuple[list[Reply], Usage]:
        began_s = self._clock.monotonic_s()
        await self._server.confirm()
        ready_s = self._clock.monotonic_s()
        requests = Requests(self._wording, context.segments + aside, context.anchor_s, how)
        pictures = len(context.segments) + len(aside)
        asking = Asking(self._server, requests, lines, pictures, began_s + self._timeout_s)
        first, encoded, cached = await self._first(asking, context, limit, _tokens(aside), turn)
        answered_s = self._clock.monotonic_s()
        with sent():
            if self._asking.get(context.stream_id) is turn:
                self._keep(context, max(0, prefix_tokens(first, lines[0]) - _tokens(aside)))
            rest = await asking.rest()
            await self._server.confirm()
        self.counters.resent += asking.resent
        usage = Usage(
            encoded_tokens=encoded,
            prefilled_tokens=prefilled_tokens(first, rest, lines[0], cached),
            cached_tokens=cached,
            seconds=self._clock.monotonic_s() - began_s,
            queued_s=ready_s - began_s,
            first_answer_s=answered_s - ready_s,
        )
        return [first, *rest], usage

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
            log.warning("mllm_prefix_evicted", stream=stream_id, believed_tokens=believed, cached_tokens=cached)
        return _tokens(context.segments[held:known])

    @property
    def _longest_prompt(self) -> int:
        return min(self._max_prompt_tokens, self._server.longest_prompt or self._max_prompt_tokens)

    def _keep(self, context: Context, tokens: int) -> None:
        ids = tuple(segment.content_id for segment in context.segments)
        self._kept.put(context.stream_id, Kept(context.epoch, context.anchor_s, ids, tokens, None))

    def _check_pictures(self, segments: Sequence[Segment]) -> None:
        most = self._longest_prompt
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


def _family(model: str, given: str | None) -> str:
    """The family given, or else told by the model's name. Raises ConfigError if there is none, or an unknown one."""
    known = ", ".join(GRIDS)
    if given is not None:
        if given not in GRIDS:
            raise ConfigError(f"mllm.family is {given!r}; expected one of {known}")
        return given
    for pattern, family in _FAMILY_NAMES:
        if pattern.search(model):
            return family
    raise ConfigError(f"the name {model!r} does not tell the model's family; set mllm.family to one of {known}")
