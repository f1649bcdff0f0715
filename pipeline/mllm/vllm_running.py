"""Keeping one engine running: started once, and again whenever it dies."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import structlog

from pipeline.backoff import back_off_s
from pipeline.clock import Clock
from pipeline.errors import ConfigError, EngineMismatch, MLLMUnavailable

log = structlog.get_logger()

FIRST_RESTART_S = 1.0
LONGEST_RESTART_S = 60.0
"""Bounds of the wait before an engine that died is started again; doubling in between."""


class EngineGone(MLLMUnavailable):
    """The engine's processes have died. It is started again in the background."""


class Closable(Protocol):
    """An engine: whether it has died, and how to stop it."""

    @property
    def dead(self) -> bool: ...

    def close(self) -> None: ...


E = TypeVar("E", bound=Closable)


class Running(Generic[E]):
    """The engine that runs now, if any. `begin` starts one and proves it; `on_death` is called when one has died."""

    def __init__(
        self, name: str, clock: Clock, begin: Callable[[], Awaitable[E]], on_death: Callable[[], None]
    ) -> None:
        self._name, self._clock, self._begin, self._on_death = name, clock, begin, on_death
        self._engine: E | None = None
        self._restart: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the engine, unless one runs. Raises what `begin` raises."""
        if self._engine is None and self._restart is None:
            self._engine = await self._begin()

    def now(self) -> E:
        """The engine. Raises MLLMUnavailable (nothing sent) while there is none."""
        if self._engine is not None and self._engine.dead:
            self.died(self._engine)
        if self._engine is None:
            state = "was closed or not started" if self._restart is None else "has died and is being started again"
            raise MLLMUnavailable(f"the engine of {self._name} {state}", sent=False)
        return self._engine

    def died(self, engine: E) -> None:
        """Replace this engine in the background. Said once more of the same one, nothing happens."""
        if engine is self._engine:
            self._engine = None
            self._on_death()
            log.error("mllm_engine_died", mllm=self._name)
            self._restart = asyncio.create_task(self._revive(engine))

    async def _revive(self, dead: E) -> None:
        await asyncio.to_thread(dead.close)
        failures = 0
        while self._engine is None:
            failures += 1
            await self._clock.sleep(back_off_s(failures, FIRST_RESTART_S, LONGEST_RESTART_S))
            try:
                self._engine = await self._begin()
            except (ConfigError, EngineMismatch, MLLMUnavailable) as error:
                log.error("mllm_engine_not_started", mllm=self._name, failures=failures, reason=str(error))
        self._restart = None
        log.info("mllm_engine_restarted", mllm=self._name, failures=failures - 1)

    async def close(self) -> None:
        """Stop the engine and starting it."""
        if self._restart is not None:
            self._restart.cancel()
            with suppress(asyncio.CancelledError):
                await self._restart
            self._restart = None
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await asyncio.to_thread(engine.close)


async def begin_in_thread(begin: Callable[[], E]) -> E:
    """What `begin` starts, in a thread. A thread cannot be cancelled: when this is, what comes of it is closed."""
    starting = asyncio.ensure_future(asyncio.to_thread(begin))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(ConfigError, EngineMismatch):
            await asyncio.to_thread((await starting).close)
        raise
