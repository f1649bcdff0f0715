"""Any MLLM of the product as training asks it: many allocations of one episode, graded by their answers.

Pictures, prompts and scores are those of serving, so what an allocation is worth here is what it is worth there. One
thing differs: a context never restarts within an episode, and its time text counts from the episode's first frame even
where that is not shown, so that a question means the same under every allocation.
"""

import asyncio
import hashlib
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from itertools import count
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from allocator_engine.fit import Allocation, FitRules, SegmentSize, fit
from allocator_engine.resize import Pixels
from allocator_engine.train.reward import grade
from allocator_engine.train.rollout import ClipHop, Episode, GradedQuestion, RewardKind
from pipeline.clock import Clock
from pipeline.core.context import Context, ContextRules
from pipeline.errors import MLLMUnavailable
from pipeline.lab.background import Background
from pipeline.lab.natives import NativeAnswers
from pipeline.lab.patience import patiently
from pipeline.mllm.base import MLLM
from pipeline.types import Answer, Segment, WatchQuery
from pipeline.waiting import stop

T = TypeVar("T")
Floats = NDArray[np.float64]

AT_ONCE = 8
"""Allocations of an episode that are asked about at the same time."""

MOST_WORDS = 32
"""Longest answer in words, in tokens."""

_ENDLESS = ContextRules(max_s=1e9, keep_s=1e8, max_tokens=2**40)
_EVERYTHING = 2**62  # a grant that pays for every frame at native size


class MLLMAnswerer:
    """An Answerer, and a Reference for recordings, over the contract `MLLM`, which has to be started.

    Yes and no are rewarded by the probability of the right one, words by how right they are; `reward_kind` is what
    that comes to for the questions at hand. `identity` names the model's weights, under which `natives` keeps its
    answers to native pictures. Raises ConnectionError when the MLLM cannot answer.
    """

    def __init__(
        self,
        mllm: MLLM,
        identity: str,
        rules: FitRules,
        natives: NativeAnswers,
        background: Background,
        clock: Clock,
        reward_kind: RewardKind = "mixed",
    ) -> None:
        self.reward_kind: RewardKind = reward_kind
        self._mllm, self._identity, self._rules = mllm, identity, rules
        self._natives, self._background, self._clock = natives, background, clock
        self._numbers = count()

    def rewards(self, episode: Episode, variants: Sequence[Sequence[Allocation]]) -> Floats:
        """See Answerer."""
        return self._answered(self._rewards(episode, variants))

    def native(self, hops: Sequence[ClipHop], questions: Sequence[str]) -> Floats:
        """See Reference. What was answered once, in an earlier run too, is not asked again."""
        return self._answered(self._native(hops, questions))

    def _answered(self, work: Coroutine[object, object, T]) -> T:
        try:
            return self._background.run(work)
        except MLLMUnavailable as error:
            raise ConnectionError(str(error)) from error

    async def _rewards(self, episode: Episode, variants: Sequence[Sequence[Allocation]]) -> Floats:
        room, pictures = asyncio.Semaphore(AT_ONCE), _RenderedSegments(episode.hops)

        async def grades(variant: Sequence[Allocation]) -> list[float]:
            async with room:
                return await self._grades(episode, variant, pictures)

        tasks = [asyncio.create_task(grades(variant)) for variant in variants]
        try:
            return np.array(await asyncio.gather(*tasks)).reshape(len(variants), len(episode.probes))
        finally:
            await stop(tasks)

    async def _grades(
        self, episode: Episode, variant: Sequence[Allocation], pictures: "_RenderedSegments"
    ) -> list[float]:
        """The grade of each probe; 0 if nothing had been shown."""
        grades = [0.0] * len(episode.probes)
        context = self._empty(episode.hops)
        try:
            for hop, allocation in enumerate(variant):
                context = await _shown(context, pictures, hop, allocation)
                asked = [i for i, probe in enumerate(episode.probes) if probe.asked_hop == hop]
                if asked and context.segments:
                    found = await self._graded(context, [episode.probes[i] for i in asked])
                    for i, right in zip(asked, found, strict=True):
                        grades[i] = right
        finally:
            self._mllm.forget(context.stream_id)
        return grades

    async def _graded(self, context: Context, probes: Sequence[GradedQuestion]) -> list[float]:
        scored = [probe for probe in probes if probe.form == "yes_no"]
        spoken = [probe for probe in probes if probe.form != "yes_no"]
        answers = iter(await self._asked(context, [probe.text for probe in scored]))
        texts = [probe.text for probe in spoken]
        said = iter(await patiently(lambda: self._mllm.say(context, texts, MOST_WORDS), self._clock) if texts else ())
        return [
            _probability(next(answers), grade("yes_no", probe.truth, "yes") == 1)
            if probe.form == "yes_no"
            else grade(probe.form, probe.truth, next(said))
            for probe in probes
        ]

    async def _native(self, hops: Sequence[ClipHop], questions: Sequence[str]) -> Floats:
        scores = np.full((len(questions), len(hops)), np.nan)
        context, pictures = self._empty(hops), _RenderedSegments(hops)
        try:
            for index, hop in enumerate(hops):
                whole = fit(hop.sizes, [1.0] * len(hop.pictures), _EVERYTHING, self._rules)
                context = await _shown(context, pictures, index, whole)
                keys = [self._key(context, question) for question in questions]
                new = {key: question for key, question in zip(keys, questions, strict=True) if key not in self._natives}
                if new and context.segments:
                    self._natives.keep(zip(new, await self._asked(context, list(new.values())), strict=True))
                scores[:, index] = [self._natives.score(key) for key in keys]
        finally:
            self._mllm.forget(context.stream_id)
        return scores

    async def _asked(self, context: Context, questions: Sequence[str]) -> Sequence[Answer]:
        queries = [WatchQuery(str(number), question) for number, question in enumerate(questions)]
        if not queries:
            return ()
        return (await patiently(lambda: self._mllm.ask(context, queries), self._clock)).answers

    def _empty(self, hops: Sequence[ClipHop]) -> Context:
        first_s = next((pts_s for hop in hops for pts_s in hop.pts_s), 0.0)
        return Context(f"training-{next(self._numbers)}", _ENDLESS, anchor_s=first_s, max_s=_ENDLESS.max_s)

    def _key(self, context: Context, question: str) -> str:
        parts = [self._identity, question, *(segment.content_id for segment in context.segments)]
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


class _RenderedSegments:
    """The segments of an episode: each is rendered once, whichever allocations show it at that size."""

    def __init__(self, hops: Sequence[ClipHop]) -> None:
        self._hops = hops
        self._made: dict[tuple[int, SegmentSize], Segment] = {}

    def segment(self, index: int, size: SegmentSize) -> Segment:
        """The frames of the hop of this number, at the size of the allocation."""
        if (index, size) not in self._made:
            hop = self._hops[index]
            pixels = np.stack([hop.pictures[i].render(size.height, size.width) for i in size.frames])
            pts_s = tuple(hop.pts_s[i] for i in size.frames)
            self._made[index, size] = Segment(pts_s, pixels, size.tokens, _content_id(pts_s, pixels))
        return self._made[index, size]


async def _shown(context: Context, pictures: _RenderedSegments, hop: int, allocation: Allocation) -> Context:
    """The context with a hop's segments behind it. Its anchor stays, which `Context.append` would move."""
    segments = [await asyncio.to_thread(pictures.segment, hop, size) for size in allocation.segments]
    return replace(context, segments=(*context.segments, *segments))


def _content_id(pts_s: tuple[float, ...], pixels: Pixels) -> str:
    """The same in every allocation, so that a server which knows pictures by it is sent each once."""
    digest = hashlib.blake2b(f"{pts_s}\0{pixels.shape}\0".encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return digest.hexdigest()


def _probability(answer: Answer, yes: bool) -> float:
    return answer.mass * (answer.score if yes else 1.0 - answer.score)
