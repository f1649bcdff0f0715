"""Watches of streams that nobody looks at any more: an open one must not stay open for ever."""

import asyncio
from collections.abc import Container, Mapping

import structlog

from pipeline.clock import Clock
from pipeline.core.judge import retire, standing
from pipeline.core.outcome import Decision
from pipeline.core.state import StreamState
from pipeline.core.vitals import SERVICE
from pipeline.delivery.store import Store, StoredStream
from pipeline.errors import StreamTaken
from pipeline.loop import Committer
from pipeline.service.logged import log_watch_events

log = structlog.get_logger()

CLEARED: Mapping[str, str] = {"detached": "stream removed", "paused": "stream paused"}
"""Reasons for which a stream ends that clear its open watches, and what their events say."""


async def clear_removed(
    store: Store, outbox: Committer, clock: Clock, kept: Container[str], paused: Container[str] = ()
) -> None:
    """Clear the open watches of every stream in the store that is not `kept`, each with an event. One that another
    process still holds is left to it."""
    for slug, seen in await asyncio.to_thread(store.streams):
        if slug == SERVICE or (slug in kept and slug not in paused) or not _has_open(slug, seen):
            continue
        try:
            await asyncio.to_thread(store.take, slug)
        except StreamTaken as error:
            log.info("stream_not_cleared", stream=slug, reason=str(error))
            continue
        stored = await asyncio.to_thread(store.load, slug)
        if stored:
            await _clear(slug, stored, outbox, clock, CLEARED["paused" if slug in kept else "detached"])
        await asyncio.to_thread(store.let_go, slug)


async def clear_stopped(store: Store, outbox: Committer, clock: Clock, slug: str, reason: str) -> None:
    """Clear what a stream that was cut, or never ran, has left open in the store."""
    stored = await asyncio.to_thread(store.load, slug)
    if stored and reason in CLEARED:
        await _clear(slug, stored, outbox, clock, CLEARED[reason])


def _has_open(slug: str, stored: StoredStream) -> bool:
    state = _state_of(slug, stored)
    return state is not None and (any(standing(state.watches).values()) or bool(state.health.on))


def _state_of(slug: str, stored: StoredStream) -> StreamState | None:
    try:
        return StreamState.from_json(stored.state)
    except ValueError as error:
        log.error("state_not_read", stream=slug, reason=str(error))
        return None


async def _clear(slug: str, stored: StoredStream, outbox: Committer, clock: Clock, reason: str) -> None:
    state = _state_of(slug, stored)
    if state is None:
        return
    after, events = retire(state.lineage, slug, state.watches, (), stored.resume_s, clock.now(), reason)
    state, ends = state.keeping(after).well(slug, clock.now(), stored.resume_s, reason)
    events += ends
    if events:
        await outbox.commit(Decision(slug, state.to_json(), tuple(events), stored.resume_s))
        log_watch_events(events)
