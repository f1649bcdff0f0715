"""Several servers of one model: each stream keeps to one, so that its prefix stays in that server's cache."""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from pipeline.clock import Clock, SystemClock
from pipeline.core.context import Context, Room
from pipeline.core.rendezvous import ranked
from pipeline.errors import ConfigError, MLLMOverloaded, MLLMTimeout, MLLMUnavailable
from pipeline.mllm.base import MLLMInfo
from pipeline.mllm.openai.backend import OpenAIMLLM
from pipeline.mllm.openai.exchange import unreachable
from pipeline.mllm.openai.refusals import Refused
from pipeline.types import Answers, Json, Segment, WatchQuery
from pipeline.waiting import back_off_s, stop

log = structlog.get_logger()

FAILURES = 2
"""Asks in a row without an answer after which a server counts as gone. One that takes no connection is gone at once."""
AGAIN_S = (1.0, 30.0)
"""First and longest pause before a server that is gone is tried again."""
LEAST_WEIGHT = 1 / 16
"""Of a server that has too much: it keeps a few streams, by which it is seen to have room again."""
PRESSED_S = 30.0
"""A server that has too much loses half of its weight at most so often, since streams that go take their load along."""
EASED_S = 120.0
"""After so long without too much, and again after as long, it gets back what it lost last."""
_STEPS = 4  # in which the least weight becomes a whole one


@dataclass(slots=True)
class _Place:
    """A server, its share of the streams (1: a full one), and its asks in a row without an answer."""

    mllm: OpenAIMLLM
    weight: float = 1.0
    pressed_at_s: float = float("-inf")
    failures: int = 0
    reviving: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def is_there(self) -> bool:
        return self.reviving is None


class RoutedMLLM:
    """Answers from several servers of one model. Which one is asked about a stream is decided by rendezvous hashing of
    its id, so that it is the same one after a restart, and from any machine.

    A server that is gone is left for the next in each of its streams' order, and tried again until it is back; one
    that says that it has too much (429, 503) keeps half as many streams. What another server has not read is `pending`
    there: the budget pays for it, and a context that it cannot pay for is re-anchored.
    """

    def __init__(self, mllms: Sequence[OpenAIMLLM], clock: Clock = SystemClock()) -> None:
        self._places = {mllm.where: _Place(mllm) for mllm in mllms}
        if len(self._places) < len(mllms):
            doubled = [where for where, count in Counter(mllm.where for mllm in mllms).items() if count > 1]
            raise ConfigError(f"mllm.servers and mllm.use name {', '.join(doubled)} twice; expected each server once")
        self._clock = clock
        self._at: dict[str, str] = {}
        self._moved = 0
        self.info: MLLMInfo = mllms[0].info

    async def start(self) -> None:
        """Find out what each server can do. One that is away is tried again later; raises MLLMUnavailable if all are,
        and ConfigError as each server does."""
        places = [place for place in self._places.values() if place.is_there]
        outcomes = await asyncio.gather(*(place.mllm.start() for place in places), return_exceptions=True)
        away = []
        for place, outcome in zip(places, outcomes, strict=True):
            if isinstance(outcome, MLLMUnavailable):
                away.append((place, outcome))
            elif outcome is not None:
                raise outcome
        if len(away) == len(places):
            raise away[0][1]
        there = [place.mllm.info for place in places if place not in [one for one, _ in away]]
        least = max(info.grid.min_pixels for info in there)
        notes = tuple(dict.fromkeys(note for info in there for note in info.notes))
        self.info = replace(
            there[0],
            grid=replace(there[0].grid, min_pixels=least),
            notes=(f"{len(self._places)} servers", *notes),
            needs_pixels=any(info.needs_pixels for info in there),
        )
        for place, error in away:
            self._leave(place, error)

    def pending(self, context: Context) -> int:
        return self._place(context.stream_id).mllm.pending(context)

    def room(self, context: Context) -> Room:
        return self._place(context.stream_id).mllm.room(context)

    async def ask(
        self,
        context: Context,
        queries: Sequence[WatchQuery],
        limit: int | None = None,
        aside: Sequence[Segment] = (),
    ) -> Answers:
        place = self._place(context.stream_id)
        retried = place.mllm.retried
        try:
            answers = await place.mllm.ask(context, queries, limit, aside)
        except MLLMUnavailable as error:
            await self._doubt(place, error)
            raise
        self._trust(place, retried)
        return answers

    async def say(
        self, context: Context, questions: Sequence[str], most: int = 64, schema: Mapping[str, Json] | None = None
    ) -> list[str]:
        place = self._place(context.stream_id)
        retried = place.mllm.retried
        try:
            said = await place.mllm.say(context, questions, most, schema)
        except MLLMUnavailable as error:
            await self._doubt(place, error)
            raise
        self._trust(place, retried)
        return said

    def forget(self, stream_id: str) -> None:
        self._at.pop(stream_id, None)
        for place in self._places.values():
            place.mllm.forget(stream_id)

    async def close(self) -> None:
        await stop([place.reviving for place in self._places.values() if place.reviving])
        for place in self._places.values():
            await place.mllm.close()

    def counts(self) -> Mapping[str, int]:
        """The troubles of all servers together."""
        counts: Counter[str] = Counter()
        for place in self._places.values():
            counts.update(place.mllm.counts())
        return {**counts, "moved": self._moved}

    def where(self, stream_id: str) -> str:
        """The server (scheme, host and port) that is asked about a stream now."""
        return self._place(stream_id).mllm.where

    def _place(self, stream_id: str) -> _Place:
        """The server of a stream. What the one before has kept of it is forgotten there, for others to use."""
        weights = {where: self._weight(place) for where, place in self._places.items() if place.is_there}
        before = self._at.get(stream_id)
        if not weights:  # to move would cost as much when they are back
            weights = {where: 1.0 for where, place in self._places.items() if place.mllm.started}
            weights = {before: 1.0} if before else weights
        where = ranked(stream_id, weights)[0]
        if before is not None and before != where:
            self._moved += 1
            self._places[before].mllm.forget(stream_id)
        self._at[stream_id] = where
        return self._places[where]

    def _weight(self, place: _Place) -> float:
        """The weight now: what was lost comes back in steps of double, so that a step moves few streams."""
        idle_s = min(self._clock.monotonic_s() - place.pressed_at_s, _STEPS * EASED_S)
        return min(1.0, math.ldexp(place.weight, int(idle_s / EASED_S)))

    def _trust(self, place: _Place, retried: int) -> None:
        """It has answered; if it said meanwhile that it was busy, it has too much."""
        place.failures = 0
        if place.mllm.retried > retried:
            self._press(place)

    async def _doubt(self, place: _Place, error: MLLMUnavailable) -> None:
        """Judge by an error whether its server is gone or has too much. One that refuses a prompt is neither."""
        if isinstance(error, MLLMOverloaded):
            self._press(place)
            return
        if not unreachable(error) and place.mllm.doubted:
            try:
                await place.mllm.confirm()
            except MLLMUnavailable as found:
                error = found
        of_server = isinstance(error, MLLMTimeout) or (isinstance(error, Refused) and not error.of_prompt)
        if not (unreachable(error) or of_server or place.mllm.doubted):
            return
        place.failures += 1
        if unreachable(error) or place.mllm.doubted or place.failures >= FAILURES:
            self._leave(place, error)

    def _press(self, place: _Place) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - place.pressed_at_s < PRESSED_S or len(self._places) < 2:
            return
        place.weight = max(LEAST_WEIGHT, self._weight(place) / 2)
        place.pressed_at_s = now_s
        log.warning("mllm_server_has_too_much", server=place.mllm.where, weight=place.weight)

    def _leave(self, place: _Place, error: Exception) -> None:
        if place.is_there:
            log.warning("mllm_server_gone", server=place.mllm.where, reason=str(error))
            place.reviving = asyncio.create_task(self._revive(place), name=f"revive {place.mllm.where}")

    async def _revive(self, place: _Place) -> None:
        """Try a server until it answers as the others do."""
        tries = 0
        while True:
            tries += 1
            await self._clock.sleep(back_off_s(tries, *AGAIN_S))
            try:
                await place.mllm.meet()
            except MLLMUnavailable:
                continue
            except ConfigError as error:
                log.warning("mllm_server_differs", server=place.mllm.where, reason=str(error))
                continue
            if place.mllm.info.grid.min_pixels <= self.info.grid.min_pixels:
                break
            log.warning("mllm_server_differs", server=place.mllm.where, reason="it enlarges pictures the others do not")
        place.failures, place.reviving = 0, None
        log.info("mllm_server_is_there", server=place.mllm.where, tries=tries)
