"""The first picture of a stream that is not attached yet."""

import asyncio
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from pipeline.api.auth import Caller, allowed
from pipeline.api.entries import AtDesk, Body
from pipeline.api.live import JPEG, encode
from pipeline.api.problems import RESPONSES, Problem
from pipeline.build import build_source
from pipeline.config.entries import UntrustedStreamConfig, parse_untrusted
from pipeline.sources.base import Sampler, Source
from pipeline.types import Frame

router = APIRouter(prefix="/v1/streams", tags=["streams"], responses=RESPONSES)

WAIT_S = 15.0
"""How long a first picture is waited for."""
MOST = 2
"""Streams that are looked at in this way at a time."""
_WIDTH = 960
_NAME = "preview"
_places = asyncio.Semaphore(MOST)


@router.post("/preview.jpg", response_class=Response, responses=JPEG, operation_id="preview_stream")
async def preview(body: Body, caller: Annotated[Caller, Depends(allowed("operator"))], desk: AtDesk) -> Response:
    """Open the stream that the body describes, show its first picture, and close it again."""

    def admitted() -> UntrustedStreamConfig:
        desk.admission.admit("stream", _NAME, body, desk.registry.snapshot())
        return parse_untrusted(_NAME, body, desk.reconciler.raw)

    stream = await asyncio.to_thread(admitted)
    source = build_source(_NAME, stream, desk.clock, 0.0)
    try:
        async with asyncio.timeout(WAIT_S), _places:
            frame = await _first(source, stream.sample_fps)
    except TimeoutError:
        raise Problem(504, "no picture", f"the stream gave no picture in {WAIT_S:g} s") from None
    finally:
        await source.close()
    if frame is None:
        raise Problem(502, "no picture", "the stream ended before it gave a picture")
    jpeg = await asyncio.to_thread(encode, frame, _WIDTH, "")
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


async def _first(source: Source, fps: float) -> Frame | None:
    async with aclosing(source.frames(Sampler(fps))) as frames:
        async for frame in frames:
            return frame
    return None
