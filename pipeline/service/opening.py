"""The start of a service: what is refused at once, and what may be away and is waited for."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from typing import TypeVar

import structlog

from pipeline.build import build_mllm
from pipeline.clock import Clock
from pipeline.config.mllm import MLLMConfig
from pipeline.delivery.history import Keep
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError, MLLMUnavailable, SinkUnavailable, StoreUnavailable
from pipeline.mllm.base import MLLM
from pipeline.redact import scrub
from pipeline.sinks.base import Sink
from pipeline.waiting import back_off_s, first

log = structlog.get_logger()

RETRY_S = (1.0, 30.0)
"""First and longest pause between two tries of what is away at the start."""
CHECK_S = 5.0
"""How long a sink may take to say at the start whether it can be written to."""

_T = TypeVar("_T")


async def patiently(
    what: str, attempt: Callable[[], Awaitable[_T]], clock: Clock, waiting_for: MutableMapping[str, str]
) -> _T:
    """`attempt()`, tried again for as long as the store or the MLLM that it opens is away. `waiting_for` has the reason
    meanwhile. Whatever is wrong rather than away is raised."""
    tries = 0
    while True:
        try:
            opened = await attempt()
        except (StoreUnavailable, MLLMUnavailable) as error:
            tries += 1
            waiting_for[what] = scrub(str(error))
        else:
            if tries:
                log.info(f"{what}_is_there", tries=tries)
            waiting_for.pop(what, None)
            return opened
        pause_s = back_off_s(tries, *RETRY_S)
        log.warning(f"waiting_for_{what}", reason=waiting_for[what], tries=tries, again_in_s=round(pause_s, 1))
        await clock.sleep(pause_s)


async def open_store(url: str, clock: Clock, keep: Keep, holder: str | None = None) -> Store:
    """The store, owned by this process, or with a `holder` shared with others. If nobody waits for it any more, it is
    closed as soon as it is open."""
    alone = holder is None
    make = partial(Store, url, clock, keep=keep, exclusive=alone, holder=holder)
    opening = asyncio.get_running_loop().run_in_executor(None, make)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_store)
        raise


def _close_store(opening: asyncio.Future[Store]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def start_mllm(config: MLLMConfig, clock: Clock) -> MLLM:
    """The MLLM, ready to be asked; closed again if it does not get that far."""
    mllm = build_mllm(config, clock)
    try:
        await mllm.start()
    except BaseException:
        await mllm.close()
        raise
    return mllm


async def check_sinks(sinks: Sequence[Sink], clock: Clock, refuse: bool) -> None:
    """Try all sinks before anything large is loaded. One that is away is logged: its events wait. One that can never
    work is refused with ConfigError, or logged as well: a person who waits has the events in sight, and the store keeps
    them."""
    outcomes: dict[str, ConfigError | SinkUnavailable] = {}

    async def check(sink: Sink) -> None:
        try:
            await sink.check()
        except (ConfigError, SinkUnavailable) as error:
            outcomes[sink.name] = error

    async def check_all() -> None:
        await asyncio.gather(*(check(sink) for sink in sinks))

    await first(check_all(), clock.sleep(CHECK_S))
    for name, error in outcomes.items():
        if refuse and isinstance(error, ConfigError):
            raise ConfigError(f"sinks.{name}: {error}")
        log.warning("sink_unavailable", sink=name, reason=scrub(str(error)))
