"""Hops of many streams in one engine call: whoever asks within a few milliseconds shares it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocator_engine.encode import HopView, batch
from allocator_engine.errors import EngineFailed
from allocator_engine.runtime import LIMITS, Engine
from pipeline.clock import Clock
from pipeline.waiting import first


@dataclass(frozen=True, slots=True)
class Batching:
    """Bounds of a shared call: seconds that the first hop waits for others, and the most hops of one call."""

    wait_s: float = 0.002
    most: int = LIMITS["batch"]


OnEngineCall = Callable[[int, float], None]
"""Hears of every engine call that was answered: how many hops it took, and its seconds."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """An engine's output for one hop: `mean` float32 `[frames]` of the policy, and from now on `memory` float32
    `[112, 64]` and `readings` float32 `[queries, 64]`."""

    mean: NDArray[np.float32]
    memory: NDArray[np.float32]
    readings: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Ask:
    view: HopView
    since_s: float
    reply: asyncio.Future[Proposal]


class Batcher:
    """Collects asks and runs them together, in a thread. A task exists only while somebody waits."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        rules: Batching = Batching(),
        on_call: OnEngineCall = lambda hops, seconds: None,
    ) -> None:
        self._engine, self._clock, self._rules, self._on_call = engine, clock, rules, on_call
        self._waiting: list[_Ask] = []
        self._full = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Asks that no call has taken yet."""
        return len(self._waiting)

    async def ask(self, view: HopView) -> Proposal:
        """The engine's proposal for one hop of at least one frame. Raises EngineFailed."""
        loop = asyncio.get_running_loop()
        one = _Ask(view, self._clock.monotonic_s(), loop.create_future())
        self._waiting.append(one)
        if self._running is None or self._running.done():
            self._full = asyncio.Event()
            self._running = loop.create_task(self._run())
        if len(self._waiting) >= self._rules.most:
            self._full.set()
        return await one.reply

    async def close(self) -> None:
        """Wait for the call under way, so that no thread computes on behind the process's back."""
        if self._running:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        while self._waiting:
            left_s = self._waiting[0].since_s + self._rules.wait_s - self._clock.monotonic_s()
            if left_s > 0 and len(self._waiting) < self._rules.most:
                self._full.clear()
                await first(self._clock.sleep(left_s), self._full.wait())
            taken, self._waiting = self._waiting, []
            wanted = [one for one in taken if not one.reply.done()]  # whoever was cancelled wants nothing
            for group in groups([len(one.view.thumbnails) for one in wanted], self._rules.most):
                await self._answer([wanted[index] for index in group])

    async def _answer(self, asks: Sequence[_Ask]) -> None:
        """Answer every ask, with a proposal or an error. If a call of several fails each is tried alone, so that one
        stream's trouble stays its own."""
        began_s = self._clock.monotonic_s()
        call = asyncio.ensure_future(asyncio.to_thread(propose, self._engine, [one.view for one in asks]))
        await asyncio.wait([call])
        error = call.exception()
        if error is None:
            self._on_call(len(asks), self._clock.monotonic_s() - began_s)
        if isinstance(error, EngineFailed) and len(asks) > 1:
            for one in asks:
                await self._answer([one])
            return
        for index, one in enumerate(asks):
            if one.reply.done():
                continue
            if error:
                one.reply.set_exception(error)
            else:
                one.reply.set_result(call.result()[index])


def propose(engine: Engine, views: Sequence[HopView]) -> list[Proposal]:
    """One engine call for hops of several streams."""
    outputs = engine.run(batch(views))
    means, memories, readings = outputs["mean"], outputs["next_memory"], outputs["next_readings"]
    return [
        Proposal(
            means[index, : len(view.thumbnails)].copy(),
            memories[index].copy(),
            readings[index, : len(view.queries)].copy(),
        )
        for index, view in enumerate(views)
    ]


def groups(frames: Sequence[int], most: int) -> list[list[int]]:
    """Positions of hops that share a call, in the order they came: at most `most`, and of frame counts within a power
    of two, so that padding never doubles the work. `frames` are their numbers of frames."""
    open_groups: dict[int, list[int]] = {}
    closed: list[list[int]] = []
    for index, count in enumerate(frames):
        size = max(count - 1, 0).bit_length()
        group = open_groups.setdefault(size, [])
        group.append(index)
        if len(group) == most:
            closed.append(open_groups.pop(size))
    return [*closed, *open_groups.values()]
