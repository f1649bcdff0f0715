"""Many streams at a glance: their newest pictures and how they stand, in one answer."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter

from pipeline.api.desk import Desk
from pipeline.api.entries import AtDesk, Viewer
from pipeline.api.far import FarNodes, FarTiles
from pipeline.api.live import encode
from pipeline.api.problems import RESPONSES, Problem
from pipeline.api.tile_form import tile_form
from pipeline.clock import Clock
from pipeline.service.attachment import Attachment
from pipeline.service.service import Service
from pipeline.service.status import StreamStatus
from pipeline.types import Json
from pipeline.waiting import stop

router = APIRouter(prefix="/v1", tags=["streams"], responses=RESPONSES)

MOST_TILES = 256
"""Most streams of one answer."""
FORGET_S = 8.0
"""How long after nobody asked any more a stream's pictures are still made."""
FIRST_S = 0.9
"""How long an answer waits for first pictures."""
SILENT_S = 2.0
_ENCODERS = 2
_EVERY_S = {320: 1.0, 960: 0.2}
"""Widths in px, and how often at most a picture of that width is made."""
_NAMED = re.compile(r"([a-z0-9][a-z0-9_-]{0,62})(?::([0-9]{1,15}))?")
_STATUS = TypeAdapter(StreamStatus)
FORM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"multipart/form-data": {"schema": {"type": "string", "format": "binary"}}},
        "description": "`status`, JSON by stream, and a `tile` for each new picture: a JPEG called STREAM.NUMBER",
    }
}


@dataclass(slots=True)
class _TilePlace:
    """The newest picture of a stream at a width, its number here and at the node that has made it, and when it was last
    asked for."""

    asked_s: float
    task: asyncio.Task[None] | None = None
    number: int = 0
    far_number: int = 0
    jpeg: bytes = b""
    captured_at: datetime | None = None
    filled: asyncio.Event = field(default_factory=asyncio.Event)


class Gallery:
    """The newest pictures of the streams that somebody looks at: each made once, in a thread, at most so often, and not
    at all once nobody has asked for FORGET_S. Of frames that were sampled anyway; those of streams that run on other
    nodes come from there. `first_s` is how long an answer waits for first pictures."""

    def __init__(
        self,
        clock: Clock,
        attachments: Callable[[], Mapping[str, Attachment]],
        far: FarTiles,
        first_s: float = FIRST_S,
    ) -> None:
        self.first_s = first_s
        self._clock = clock
        self._attachments = attachments
        self._far = far
        self._shelves: dict[tuple[str, int], _TilePlace] = {}
        self._encoding = asyncio.Semaphore(_ENCODERS)

    @property
    def looked_at(self) -> int:
        """Number of pairs of stream and width for which pictures are made."""
        return len(self._shelves)

    def shelf(self, stream: str, width: int) -> _TilePlace:
        """The place of a stream's pictures, which are made from now on."""
        key, now_s = (stream, width), self._clock.monotonic_s()
        shelf = self._shelves.setdefault(key, _TilePlace(now_s))
        shelf.asked_s = now_s
        if shelf.task is None:
            shelf.task = asyncio.create_task(self._fill(key, shelf), name=f"tiles {stream}")
        return shelf

    async def close(self) -> None:
        """Make no more pictures."""
        await stop([shelf.task for shelf in self._shelves.values() if shelf.task])
        await self._far.close()

    async def _fill(self, key: tuple[str, int], shelf: _TilePlace) -> None:
        stream, width = key
        try:
            while self._clock.monotonic_s() - shelf.asked_s < FORGET_S:
                attachment = self._attachments().get(stream)
                filled = (
                    await self._fill_from(attachment, width, shelf)
                    if attachment is not None
                    else await self._fill_from_afar(stream, width, shelf)
                )
                if filled:
                    shelf.number += 1
                    shelf.filled.set()
                await self._clock.sleep(_EVERY_S[width])
        finally:
            self._shelves.pop(key, None)

    async def _fill_from(self, attachment: Attachment, width: int, shelf: _TilePlace) -> bool:
        """Take the next frame of a stream; False if there is none for long."""
        if attachment.phase == "ended":
            return False
        try:
            async with asyncio.timeout(SILENT_S):
                frame = await attachment.tap.next()
        except TimeoutError:
            return False
        async with self._encoding:
            shelf.jpeg = await asyncio.to_thread(encode, frame, width, "")
        shelf.captured_at = frame.captured_at
        return True

    async def _fill_from_afar(self, stream: str, width: int, shelf: _TilePlace) -> bool:
        """The same for a stream that runs on another node."""
        tile = await self._far.next(stream, width, shelf.far_number, SILENT_S)
        if tile is None:
            return False
        shelf.jpeg, shelf.far_number, shelf.captured_at = tile.jpeg, tile.number, tile.captured_at
        return True


def gallery_of(service: Service, clock: Clock, nodes: FarNodes, first_s: float = FIRST_S) -> Gallery:
    """The gallery of the streams of a service, and of those that other nodes run."""
    return Gallery(clock, lambda: service.attachments, FarTiles(clock, nodes, service.pictures_of), first_s)


@router.get("/tiles", response_class=Response, responses=FORM, operation_id="tiles")
async def tiles(
    request: Request,
    caller: Viewer,
    desk: AtDesk,
    streams: Annotated[
        str, Query(max_length=20_000, description="Slugs with the number of the picture that is known: gate:12,yard")
    ],
    width: Annotated[Literal["320", "960"], Query(description="Of the pictures, in px.")] = "320",
) -> Response:
    """The status of streams, with the newest picture of each that has a newer one than the request names. A stream that
    does not exist, or that the caller may not see, is null."""
    known = _named(streams)
    shown = await asyncio.to_thread(_statuses, list(known), caller, desk)
    gallery: Gallery = request.app.state.gallery
    shelves = {slug: gallery.shelf(slug, int(width)) for slug, status in shown.items() if status is not None}
    up = {slug for slug, status in shown.items() if status is not None and status.state == "up"}
    await _first(shelves, up, gallery.first_s)
    body: dict[str, Json] = {
        slug: None if status is None else _STATUS.dump_python(status, mode="json") | _captured(shelves[slug])
        for slug, status in shown.items()
    }
    new = {slug: one for slug, one in shelves.items() if one.number and one.number != known[slug]}
    return tile_form(body, {f"{slug}.{one.number}": one.jpeg for slug, one in new.items()})


async def _first(shelves: Mapping[str, _TilePlace], up: set[str], wait_s: float) -> None:
    waiting = [asyncio.create_task(shelf.filled.wait()) for slug, shelf in shelves.items() if slug in up]
    if not waiting:
        return
    await asyncio.wait(waiting, timeout=wait_s)
    for one in waiting:
        one.cancel()


def _captured(shelf: _TilePlace) -> dict[str, Json]:
    return {"captured_at": shelf.captured_at.isoformat() if shelf.captured_at else None}


def _named(streams: str) -> dict[str, int]:
    known: dict[str, int] = {}
    for text in filter(None, streams.split(",")):
        match = _NAMED.fullmatch(text)
        if match is None:
            raise Problem(422, "not accepted", f"{text[:80]!r} is no SLUG or SLUG:NUMBER", "streams")
        known[match[1]] = int(match[2] or 0)
    if len(known) > MOST_TILES:
        raise Problem(422, "not accepted", f"{len(known)} streams; expected at most {MOST_TILES}", "streams")
    return known


def _statuses(slugs: list[str], caller: Viewer, desk: Desk) -> dict[str, StreamStatus | None]:
    look = desk.look(caller)
    entries = {entry.slug: entry for entry in look.entries("stream")}
    return {slug: look.status(entries[slug]) if slug in entries else None for slug in slugs}
