"""The Allocator: an engine sees thumbnails, its memory of the stream and the questions, and proposes every scale."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from allocator_engine.encode import (
    FIRST_HOPS,
    HopView,
    elapsed_s,
    empty_memory,
    grant_level,
    native_tokens,
    no_queries,
    nothing_read,
    scales,
    thumbnails,
)
from allocator_engine.errors import EngineFailed
from allocator_engine.fit import Allocation, FitRules, fit
from allocator_engine.query import Embed, load_encoder
from allocator_engine.runtime import AUTO, LIMITS, Engine, LoadedEngine, load
from allocator_engine.spec import GRANT_RANGE, QUERY_FEATURES, STREAM
from pipeline.allocators.batcher import Batcher, Batching, OnEngineCall
from pipeline.clock import Clock, SystemClock
from pipeline.errors import AllocationFailed, EngineMismatch
from pipeline.types import Frame, Hop, WatchQuery

Floats = NDArray[np.float32]

AMPLE = 2.0 ** GRANT_RANGE[1]
"""A grant of so many times a hop's native tokens is ample. An engine knows no difference above it: it would go on
saving as if tokens were short, and miss what only native size shows, with most of the budget left."""

MAX_QUESTIONS = 4096
"""Embeddings that are kept, of all streams together; the one unused for longest goes first."""

log = structlog.get_logger()


@dataclass(slots=True)
class _StreamMemory:
    """The engine's memory of a stream, and what each of the last hop's questions has read of it."""

    memory: Floats = field(default_factory=empty_memory)
    readings: dict[str, Floats] = field(default_factory=dict)
    last_s: float | None = None
    shown: int = 0

    def read_by(self, questions: Sequence[str]) -> Floats:
        """Float32 `[questions, 64]`; a new question has read nothing."""
        read = nothing_read(len(questions))
        for place, question in enumerate(questions):
            read[place] = self.readings.get(question, 0.0)
        return read


class LearnedAllocator:
    """Scales proposed by an engine, for all streams in shared calls.

    Of a hop's questions the first 256 are heard (they come in order of priority). A hop of more than 16 frames is shown
    in parts. After a failure the stream's memory starts anew, since it may be what the engine failed on.

    The engine spends on what changes. What a stream begins with has to be known first, so that its first hops are shown
    as large as their grants allow; so are those after a new question came.

    A hop whose grant is at least `ample` times its native tokens is shown at native size, whatever the engine proposes:
    saving buys nothing there. What is below that stays for the hops that matter. Infinity: the engine's word alone.
    """

    name = "learned"

    def __init__(
        self,
        engine: Engine,
        rules: FitRules,
        embed: Embed,
        clock: Clock = SystemClock(),
        batching: Batching = Batching(),
        on_call: OnEngineCall = lambda hops, seconds: None,
        ample: float = AMPLE,
    ) -> None:
        if engine.spec != STREAM:
            raise EngineMismatch("the engine has another spec than this version's; export its checkpoint again")
        self._rules = rules
        self._ample = ample
        self.batcher = Batcher(engine, clock, batching, on_call)
        self._questions = _Questions(embed)
        self._pasts: dict[str, _StreamMemory] = {}

    async def allocate(self, hop: Hop, queries: Sequence[WatchQuery], grant: int) -> Allocation:
        sizes = [frame.size for frame in hop.frames]
        native = native_tokens(sizes, self._rules)
        try:
            proposed = await self._propose(hop, queries, grant_level(grant, native))
        except EngineFailed as error:
            self.forget(hop.stream_id)
            raise AllocationFailed(str(error)) from error
        past = self._pasts.get(hop.stream_id, _StreamMemory())
        if past.shown < FIRST_HOPS or grant >= self._ample * native:
            proposed = [1.0] * len(sizes)
        allocation = fit(sizes, proposed, grant, self._rules)
        past.shown += bool(allocation.segments)
        return allocation

    def forget(self, stream_id: str) -> None:
        self._pasts.pop(stream_id, None)

    async def close(self) -> None:
        await self.batcher.close()

    async def _propose(self, hop: Hop, queries: Sequence[WatchQuery], level: float) -> list[float]:
        """A scale for every frame of the hop."""
        questions = list(dict.fromkeys(query.question for query in queries))[: LIMITS["queries"]]
        vectors = await self._questions.vectors(questions)
        # A stream that is forgotten meanwhile keeps nothing of this hop: it then has another past, or none.
        past = self._pasts.setdefault(hop.stream_id, _StreamMemory())
        if any(question not in past.readings for question in questions):
            past.shown = 0
        proposed: list[float] = []
        for begin in range(0, len(hop.frames), LIMITS["frames"]):
            frames = hop.frames[begin : begin + LIMITS["frames"]]
            seen = await asyncio.to_thread(_look, frames)
            times_s = [frame.pts_s for frame in frames]
            readings = past.read_by(questions)
            view = HopView(seen, elapsed_s(times_s, past.last_s), vectors, level, past.memory, readings)
            proposal = await self.batcher.ask(view)
            past.memory, past.last_s = proposal.memory, times_s[-1]
            past.readings = dict(zip(questions, proposal.readings, strict=True))
            proposed += scales(proposal.mean).tolist()
        return proposed


class _Questions:
    """Embeddings of questions, each made once."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._kept: OrderedDict[str, Floats] = OrderedDict()

    async def vectors(self, questions: Sequence[str]) -> Floats:
        """Float32 `[questions, 128]` of distinct questions. Raises EngineFailed if the encoder's answer is no use."""
        new = [question for question in questions if question not in self._kept]
        known = {question: self._kept[question] for question in questions if question in self._kept}
        if new:
            known |= zip(new, await asyncio.to_thread(self._made, new), strict=True)
        for question in questions:
            self._kept[question] = known[question]
            self._kept.move_to_end(question)
        while len(self._kept) > MAX_QUESTIONS:
            self._kept.popitem(last=False)
        return np.stack([known[question] for question in questions]) if questions else no_queries()

    def _made(self, questions: list[str]) -> Floats:
        made = np.asarray(self._embed(questions), np.float32)
        if made.shape != (len(questions), QUERY_FEATURES) or not np.isfinite(made).all():
            raise EngineFailed(
                f"the query encoder gave {list(made.shape)} for {len(questions)} questions;"
                f" expected finite [{len(questions)}, {QUERY_FEATURES}]"
            )
        return made


def open_learned(engine: Path, rules: FitRules, clock: Clock, backend: str = AUTO) -> LearnedAllocator:
    """The allocator of an engine's folder or manifest. Raises as `open_engine`."""
    loaded, embed = open_engine(engine, backend)
    return LearnedAllocator(loaded, rules, embed, clock)


def open_engine(engine: Path, backend: str = AUTO) -> tuple[LoadedEngine, Embed]:
    """An engine by its folder or manifest, and its query encoder, which is called in a thread.

    Raises EngineMissing if there is no such engine, EngineMismatch if it does not fit this version or this machine.
    """
    loaded, embed = load(engine, backend), load_encoder(engine)
    log.info("engine_loaded", backend=loaded.backend)
    if loaded.passed_over:
        log.debug("engine_backends_passed_over", why=list(loaded.passed_over))
    return loaded, embed


def _look(frames: Sequence[Frame]) -> NDArray[np.uint8]:
    return thumbnails([frame.picture for frame in frames])
