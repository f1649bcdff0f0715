"""Server-sent events: items as text, a sign of life between them, an end that the client understands."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from fastapi import Request
from fastapi.responses import StreamingResponse

from pipeline.api.hub import Hub, Lagging, N
from pipeline.api.problems import Problem

ALIVE_S = 15.0
"""Longest silence on a stream, after which a comment shows that it is alive."""


def stream(
    hub: Hub[N], after_seq: int | None, show: Callable[[N], str | None], place: AbstractContextManager[None]
) -> StreamingResponse:
    """The items of a hub; `show` gives the JSON of one, None for those that are not for this client."""

    async def lines() -> AsyncIterator[str]:
        with place:
            async for text in _lines(hub, after_seq, show):
                yield text

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)


async def _lines(hub: Hub[N], after_seq: int | None, show: Callable[[N], str | None]) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    items = hub.listen(after_seq)
    coming = asyncio.ensure_future(anext(items))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=ALIVE_S)
            if not done:
                yield ": alive\n\n"
                continue
            item = coming.result()
            coming = asyncio.ensure_future(anext(items))
            if (text := show(item)) is not None:
                yield f"id: {item.seq}\ndata: {text}\n\n"
    except StopAsyncIteration:
        yield "event: end\ndata: the service stops\n\n"
    except Lagging:
        yield "event: lagging\ndata: read faster, and come back with Last-Event-ID\n\n"
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await items.aclose()


def listening(request: Request) -> AbstractContextManager[None]:
    """The place of one listener more, taken while it is entered. Raises Problem when there are too many."""
    state = request.app.state
    if state.listeners >= state.max_listeners:
        raise Problem(
            503,
            "not available now",
            f"{state.max_listeners} listen already, the most there may be (api.max_listeners)",
            headers={"Retry-After": "5"},
        )

    @contextmanager
    def place() -> Iterator[None]:
        state.listeners += 1
        try:
            yield
        finally:
            state.listeners -= 1

    return place()


def last_event_id(request: Request, given: int | None) -> int | None:
    """Behind which item to begin: Last-Event-ID, else the query's. Raises Problem for what is no number."""
    text = request.headers.get("last-event-id")
    if text is None:
        return given
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Problem(400, "not understood", f"Last-Event-ID is {text[:80]!r}; expected a number", "Last-Event-ID")
    return int(text)
