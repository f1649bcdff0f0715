"""The multimodal LLM through vLLM: an engine in processes of its own, which batches all streams and questions.

The engine keeps what it has read of each context in blocks, finds it again by token ids and the names of pictures, and
shares it between questions. Which contexts it should still have is mirrored here, so that what an `ask` will cost is
known before it is sent.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from pipeline.clock import Clock, SystemClock
from pipeline.config.mllm import VllmConfig
from pipeline.core.context import Context, Room
from pipeline.errors import ConfigError, EngineMismatch, MLLMOverloaded, MLLMTimeout, MLLMUnavailable
from pipeline.mllm.base import MLLMInfo, check_length, check_limit, room_within, sent
from pipeline.mllm.card import Card, fetch, read_card
from pipeline.mllm.counters import Counters
from pipeline.mllm.kept import Kept, KeptPrefixes
from pipeline.mllm.options import OptionWalk, open_steps
from pipeline.mllm.vllm.asking import Reading, VllmReply, Work, refusals, usage
from pipeline.mllm.vllm.settings import SamplingOptions, Settings, advice, prepare_environment
from pipeline.mllm.vllm.supervisor import EngineGone, EngineHooks, EngineSupervisor, begin_in_thread
from pipeline.types import Answers, Json, Segment, Usage, WatchQuery
from pipeline.waiting import stop

if TYPE_CHECKING:
    from pipeline.mllm.vllm.engine import VllmEngine

log = structlog.get_logger()

MIRRORED_SHARE = 0.8
"""Part of the engine's cache in which contexts should stay; questions and what is shown aside take the rest."""

CANARY_S = 300.0
"""Longest wait for the first answers of an engine, which may have to compile."""

CANARY_TOLERANCE = 0.02
"""How far the scores of the same question may lie apart that are computed in different batches."""


class VllmMLLM:
    """Answers from a local or Hub checkpoint of a supported family (see `pipeline.mllm.card`), frozen, through vLLM.

    `dtype` is vLLM's name or "auto" (what the checkpoint says on a GPU, float32 on the CPU). `kv_cache_gib` (GiB) is
    the size of the engine's cache; without it the engine takes `gpu_memory` (0 to 1) of the GPU, or 2 GiB on a CPU. In
    at most `picture_cache_gib` (GiB) of host memory it keeps pictures as they were sent: each travels once, unless it
    falls out there. Bounds: a prompt with its answer has at most `max_prompt_tokens`; kept prefixes are counted on for
    at most `max_streams` streams, the least recently used are not any more; with `max_queue` asks unfinished, another
    is refused with MLLMOverloaded; an ask without an answer after `timeout_s` seconds is aborted and ends in
    MLLMTimeout.

    An engine that dies is started again in the background, and so is one that hangs: after an ask that timed out it has
    another `timeout_s` to answer anybody anything, and is asked on meanwhile. What was asked of an engine that is lost
    ends in EngineGone; until it is back asks end in MLLMUnavailable with nothing sent.
    Starting sets environment variables (see `pipeline.mllm.vllm.settings`) and spawns processes: a script that does so
    needs the usual `if __name__ == "__main__":`.
    """

    def __init__(self, checkpoint: str | Path, settings: VllmConfig, clock: Clock = SystemClock()) -> None:
        self._checkpoint, self.settings, self._clock = str(checkpoint), settings, clock
        self._kept: KeptPrefixes[None] = KeptPrefixes(settings.max_streams, settings.max_prompt_tokens)
        hooks = EngineHooks(self._begin, self._canary, settings.timeout_s, self._on_death, self._end_asks)
        self.supervisor: EngineSupervisor[VllmEngine] = EngineSupervisor(settings.use, clock, hooks)
        self._unfinished: dict[asyncio.Task[list[VllmReply]], str] = {}
        self._forgotten: set[str] = set()
        self._reading: Reading | None = None
        self.counters = Counters()

    @property
    def info(self) -> MLLMInfo:
        """Known without the weights: reads the checkpoint's JSON files, and raises ConfigError as `start` does."""
        card = self._card
        return MLLMInfo(self.settings.use, card.family, card.grid, card.meaningful, needs_pixels=True)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt, with its answer."""
        return min(self.settings.max_prompt_tokens, self._card.longest_prompt)

    @property
    def kept(self) -> KeptPrefixes[None]:
        """The prefixes that the engine should have, and what their bounds did."""
        return self._kept

    @property
    def unfinished(self) -> int:
        """Asks that have no answer yet."""
        return len(self._unfinished)

    async def start(self) -> None:
        """Start the engine, which takes as long as its weights and its compilation do, and prove it.

        Raises ConfigError for a checkpoint that is missing or of an unsupported family, for a package vllm that is not
        installed, and for values that vLLM refuses; EngineMismatch if the engine does not start, if it does not see
        the prompt that was meant, or if a kept prefix is not answered as a fresh one.
        """
        await self.supervisor.start()

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
        reading = self._ready()
        if not queries:
            return Answers()
        work = reading.first(context, queries, aside)
        replies, cost = await self._do(work, limit)
        walks = [OptionWalk(reading.spelled(query.options)) if query.options else None for query in queries]
        for walk, reply in zip(walks, replies, strict=True):
            if walk:
                walk.feed((), _probabilities(reply))
        cost += await self._follow(reading, work, walks)
        read = zip(queries, replies, walks, strict=True)
        return Answers(tuple(reading.read(query, reply.shares, walk) for query, reply, walk in read), cost)

    async def say(
        self, context: Context, questions: Sequence[str], most: int = 64, schema: Mapping[str, Json] | None = None
    ) -> list[str]:
        reading = self._ready()
        if not questions:
            return []
        replies, _ = await self._do(reading.work(context, questions, how=SamplingOptions(most, schema=schema)), None)
        return [reply.words for reply in replies]

    async def _follow(self, reading: Reading, first: Work, walks: Sequence[OptionWalk | None]) -> Usage:
        """Ask what comes behind tokens that may begin several values. What is shown aside is not kept, and would be
        sent again for it: then it is left at what is known."""
        cost = Usage()
        while not first.aside and (steps := open_steps(walks)):
            with sent():
                replies, more = await self._do(reading.further(first, steps), 0)
            for (_, walk, path), reply in zip(steps, replies, strict=True):
                walk.feed(path, _probabilities(reply))
            cost += more
        for walk in filter(None, walks):
            walk.settle()
        return cost

    def forget(self, stream_id: str) -> None:
        self._kept.drop(stream_id)
        if stream_id in self._unfinished.values():
            self._forgotten.add(stream_id)

    async def close(self) -> None:
        await self._end_asks()
        await self.supervisor.close()
        self._kept.clear()

    @cached_property
    def _card(self) -> Card:
        return read_card(self._checkpoint)

    def _ready(self) -> Reading:
        """The part that writes prompts and reads answers. Raises MLLMUnavailable without an engine, or with a full
        queue."""
        self.supervisor.now()
        if self.unfinished >= self.settings.max_queue:
            self.counters.refused += 1
            raise MLLMOverloaded(
                f"{self.settings.use} has {self.settings.max_queue} asks unfinished, which is max_queue", sent=False
            )
        assert self._reading is not None
        return self._reading

    async def _do(self, work: Work, limit: int | None) -> tuple[list[VllmReply], Usage]:
        engine, began_s, stream_id = self.supervisor.now(), self._clock.monotonic_s(), work.context.stream_id
        self._forgotten.discard(stream_id)
        found = self._kept.find(work.context)
        known = len(found.content_ids) if found else 0
        check_limit(work.fresh_tokens(known), limit, stream_id)
        check_length(len(work.prompt.ids), work.more_tokens, self.longest_prompt, stream_id)
        replies = await self._finished(engine, work, began_s)
        believed = found.tokens // engine.block_tokens * engine.block_tokens if found else 0
        if (cached := replies[0].cached_tokens) < believed:
            self.counters.evicted += 1
            log.warning("mllm_prefix_evicted", stream=stream_id, believed_tokens=believed, cached_tokens=cached)
            known = sum(end <= cached for end in work.prompt.ends[:known])
        self._keep(work)
        return replies, usage(work, known, replies, self._clock.monotonic_s() - began_s)

    async def _finished(self, engine: "VllmEngine", work: Work, began_s: float) -> list[VllmReply]:
        """The replies, in time. When this fails or is cancelled, nothing of it goes on in the engine."""
        task = asyncio.create_task(self._replies(engine, work))
        self._unfinished[task] = work.context.stream_id
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await task
        except TimeoutError as error:
            self.counters.timed_out += 1
            self.supervisor.doubt(engine, began_s)
            raise MLLMTimeout(
                f"{self.settings.use} has no answer after timeout_s = {self.settings.timeout_s:g} seconds"
            ) from error
        except EngineGone:
            self.supervisor.died(engine)
            raise
        except asyncio.CancelledError as error:
            if (asking := asyncio.current_task()) and asking.cancelling():
                raise
            raise self.supervisor.ended(engine) from error
        finally:
            del self._unfinished[task]

    async def _replies(self, engine: "VllmEngine", work: Work) -> list[VllmReply]:
        replies = await self._tried(engine, work)
        if any(reply.lost for reply in replies):
            # vLLM now knows which pictures its processes lack, and sends those.
            self.counters.resent += 1
            with sent():
                replies = await self._tried(engine, work)
        if any(reply.lost for reply in replies):
            raise MLLMUnavailable(f"vLLM has lost pictures of {work.context.stream_id} twice")
        return replies

    async def _tried(self, engine: "VllmEngine", work: Work) -> list[VllmReply]:
        heard = partial(self.supervisor.answered, engine)
        with refusals(work):
            return await engine.reply(await engine.read(work.prompt), work.questions, work.how, heard)

    def _keep(self, work: Work) -> None:
        """Count on the context's prefix from now on, unless the stream was forgotten meanwhile."""
        context = work.context
        if context.stream_id not in self._forgotten:
            ids = tuple(segment.content_id for segment in context.segments)
            self._kept.put(context.stream_id, Kept(context.epoch, context.anchor_s, ids, work.kept_tokens, None))

    async def _canary(self, engine: "VllmEngine") -> None:
        assert self._reading is not None
        await self._replies(engine, self._reading.canary(self.info.grid))

    async def _end_asks(self) -> None:
        await stop(list(self._unfinished))

    def _on_death(self) -> None:
        self.counters.died += 1
        self._kept.clear()

    async def _begin(self) -> "VllmEngine":
        """A started and proven engine."""
        reading = self._reading = await asyncio.to_thread(Reading, read_card(self._checkpoint))
        engine = await begin_in_thread(self.open_engine)
        try:
            async with asyncio.timeout(CANARY_S):
                await self._prove(engine, reading)
        except (TimeoutError, MLLMUnavailable) as error:
            await asyncio.to_thread(engine.close)
            known = advice(self.info.family, engine.on_cpu)
            raise EngineMismatch(f"vLLM started on {self._checkpoint} but does not answer: {error}{known}") from error
        except BaseException:
            await asyncio.to_thread(engine.close)
            raise
        self._kept = KeptPrefixes(self.settings.max_streams, int(MIRRORED_SHARE * engine.cache_tokens))
        return engine

    async def _prove(self, engine: "VllmEngine", reading: Reading) -> None:
        """Raise EngineMismatch unless a gray picture is answered alike from a fresh and from a kept prefix."""
        canary = reading.canary(self.info.grid)
        fresh, kept = await self._replies(engine, canary), await self._replies(engine, canary)
        for one, other in zip(fresh, kept, strict=True):
            before, after = reading.answer("canary", one.shares), reading.answer("canary", other.shares)
            off = max(abs(before.score - after.score), abs(before.mass - after.mass))
            if off > CANARY_TOLERANCE:
                raise EngineMismatch(
                    f"vLLM answers {self._checkpoint} from a kept prefix otherwise than from a fresh one: scores"
                    f" {before.score:.3f} and {after.score:.3f}; use a version of vllm that the package names"
                )

    def open_engine(self) -> "VllmEngine":
        """The engine of the settings, started in the calling thread. Raises as `start`, but for its proof."""
        prepare_environment()
        try:
            from pipeline.mllm.vllm.engine import open_engine
        except ModuleNotFoundError as error:
            if error.name != "vllm":
                raise
            raise ConfigError("the package vllm is not installed; pip install 'resadapt-stream[vllm]'") from error
        return open_engine(
            Settings(str(_weights(self._checkpoint)), self.info.grid, self.longest_prompt, self.settings)
        )


def _probabilities(reply: VllmReply) -> dict[int, float]:
    return {token: math.exp(share) for token, share in reply.shares.items()}


def _weights(checkpoint: str) -> Path:
    folder = fetch(checkpoint)
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(f"{folder} holds no *.safetensors; expected the weights of the checkpoint there")
    return folder
