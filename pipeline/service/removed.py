"""Watches of streams that were removed while no process ran: an open one must not stay open for ever."""

import asyncio
from collections.abc import Container

import structlog

from pipeline.clock import Clock
from pipeline.core.judge import retire
from pipeline.core.outcome import Decision
from pipeline.core.state import StreamState
from pipeline.delivery.store import Store
from pipeline.loop import Committer
from pipeline.service.logged import log_watch_events

log = structlog.get_logger()


async def clear_removed(store: Store, outbox: Committer, clock: Clock, kept: Container[str]) -> None:
    """Clear the open watches of every stream in the store that is not `kept`, each with an event."""
    for slug, stored in await asyncio.to_thread(store.streams):
        if slug in kept:
            continue
        try:
            state = StreamState.from_json(stored.state)
        except ValueError as error:
            log.error("state_not_read", stream=slug, reason=str(error))
            continue
        after, events = retire(state.lineage, slug, state.watches, (), stored.resume_s, clock.now(), "stream removed")
        if events:
            await outbox.commit(Decision(slug, state.keeping(after).to_json(), tuple(events), stored.resume_s))
            log_watch_events(events)
