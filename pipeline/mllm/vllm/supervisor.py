"""Keeping one engine running: started once, and again whenever it dies or answers no more."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog

from pipeline.clock import Clock
from pipeline.errors import ConfigError, EngineMismatch, MLLMUnavailable
from pipeline.waiting import back_off_s, stop

log = structlog.get_logger()

FIRST_RESTART_S = 1.0
LONGEST_RESTART_S = 60.0
"""Bounds of the wait before an engine that died is started again; doubling in between."""


class EngineGone(MLLMUnavailable):
    """The engine has died, or has hung and was killed. It is started again in the background."""


class Closable(Protocol):
    """An engine: whether it has died, and how to stop it."""

    @property
    def dead(self) -> bool: ...

    def close(self) -> None: ...


E = TypeVar("E", bound=Closable)


@dataclass(frozen=True, slots=True)
class EngineHooks(Generic[E]):
    """The calls that keep an engine alive: `begin` starts one and proves it, `canary` asks one whether it answers at
    all; one in doubt has `patience_s` seconds to answer anybody. When one was lost, `on_death` is called at once, and
    before it is closed `end_asks` ends what is still asked of it."""

    begin: Callable[[], Awaitable[E]]
    canary: Callable[[E], Coroutine[object, None, object]]
    patience_s: float
    on_death: Callable[[], None]
    end_asks: Callable[[], Awaitable[None]]


class EngineSupervisor(Generic[E]):
    """The engine that runs now, if any."""

    def __init__(self, name: str, clock: Clock, hooks: EngineHooks[E]) -> None:
        self._name, self._clock, self.hooks = name, clock, hooks
        self._engine: E | None = None
        self._restart: asyncio.Task[None] | None = None
        self._burial: asyncio.Task[None] | None = None
        self._check: asyncio.Task[None] | None = None
        self._heard, self._heard_s = asyncio.Event(), 0.0
        self._fate = ""  # what is said of the engine that was lost last

    @property
    def doubted(self) -> bool:
        """True while a check runs that the engine answers at all."""
        return self._check is not None

    @property
    def restarting(self) -> bool:
        """True while a lost engine is started again."""
        return self._restart is not None

    async def start(self) -> None:
        """Start the engine, unless one runs. Raises what `begin` raises."""
        if self._engine is None and self._restart is None:
            self._engine = await self.hooks.begin()

    def now(self) -> E:
        """The engine, also while it is doubted. Raises MLLMUnavailable (nothing sent) while there is none."""
        if self._engine is not None and self._engine.dead:
            self.died(self._engine)
        if self._engine is None:
            state = "was closed or not started" if self._restart is None else self._fate
            raise MLLMUnavailable(f"the engine of {self._name} {state}", sent=False)
        return self._engine

    def ended(self, engine: E) -> MLLMUnavailable:
        """Why an ask of this engine was ended that it had not answered yet: the engine was lost, or is being closed."""
        if engine is self._engine:
            return MLLMUnavailable(f"{self._name} was closed before it could answer")
        return EngineGone(f"the engine of {self._name} {self._fate}")

    def answered(self, engine: E) -> None:
        """Hear that this engine has answered somebody."""
        if engine is self._engine:
            self._heard_s = self._clock.monotonic_s()
            self._heard.set()

    def doubt(self, engine: E, asked_s: float) -> None:
        """Report that an ask of `asked_s` (monotonic seconds) was not answered in time. Unless it has
        answered anybody since, see whether it answers at all, and replace one that does not: a process that hangs does
        not die by itself. Until that is known others go on asking it, and any answer clears it of the doubt."""
        if engine is self._engine and self._check is None and self._heard_s <= asked_s:
            log.warning("mllm_engine_doubted", mllm=self._name, patience_s=self.hooks.patience_s)
            self._heard.clear()
            self._check = asyncio.create_task(self._examine(engine))

    async def _examine(self, engine: E) -> None:
        canary = asyncio.create_task(self._send_canary(engine))
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._heard.wait(), self.hooks.patience_s)
        finally:
            await stop([canary])
            self._check = None
        if self._heard.is_set():
            log.info("mllm_engine_answers", mllm=self._name)
        else:
            log.error("mllm_engine_hangs", mllm=self._name, silent_s=self.hooks.patience_s)
            self.died(engine, "answers nobody")

    async def _send_canary(self, engine: E) -> None:
        try:
            await self.hooks.canary(engine)
        except EngineGone:
            self.died(engine)
        except (ConfigError, EngineMismatch, MLLMUnavailable) as error:
            # An answer to somebody else may still clear the engine.
            log.warning("mllm_canary_failed", mllm=self._name, reason=str(error))
        else:
            self.answered(engine)

    def died(self, engine: E, how: str = "has died") -> None:
        """Replace this engine in the background. Said once more of the same one, nothing happens."""
        if engine is self._engine:
            self._engine, self._fate = None, f"{how} and is being started again"
            self.hooks.on_death()
            log.error("mllm_engine_died", mllm=self._name)
            self._burial = asyncio.create_task(self._bury(engine))
            self._restart = asyncio.create_task(self._revive(self._burial))

    async def _bury(self, dead: E) -> None:
        if self._check is not None:
            await stop([self._check])
        await self.hooks.end_asks()
        await asyncio.to_thread(dead.close)

    async def _revive(self, burial: asyncio.Task[None]) -> None:
        await asyncio.shield(burial)
        failures = 0
        while self._engine is None:
            failures += 1
            await self._clock.sleep(back_off_s(failures, FIRST_RESTART_S, LONGEST_RESTART_S))
            try:
                self._engine = await self.hooks.begin()
            except (ConfigError, EngineMismatch, MLLMUnavailable) as error:
                log.error("mllm_engine_not_started", mllm=self._name, failures=failures, reason=str(error))
        self._restart = None
        log.info("mllm_engine_restarted", mllm=self._name, failures=failures - 1)

    async def close(self) -> None:
        """Stop the engine, starting it and doubting it. One that was lost is closed as well."""
        await stop([task for task in (self._check, self._restart) if task is not None])
        self._check = self._restart = None
        if self._burial is not None:
            await self._burial
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await asyncio.to_thread(engine.close)


async def begin_in_thread(begin: Callable[[], E]) -> E:
    """Run `begin` in a thread. A thread cannot be cancelled: when this is, what comes of it is closed."""
    starting = asyncio.ensure_future(asyncio.to_thread(begin))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(ConfigError, EngineMismatch):
            await asyncio.to_thread((await starting).close)
        raise
