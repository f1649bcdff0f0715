"""Looking at a stream: probe it, one picture, moving pictures. Of frames that were sampled anyway."""

import asyncio
import io
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any
from weakref import ref

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict, JsonValue

from allocator_engine.resize import Picture
from pipeline.api.auth import Caller, allowed
from pipeline.api.desk import Desk
from pipeline.api.entries import AtDesk, Body, Viewer
from pipeline.api.far import FarNodes, NodeQuery
from pipeline.api.problems import RESPONSES, Problem
from pipeline.api.sse import listening
from pipeline.config.values import resolve_url
from pipeline.service.attachment import Attachment
from pipeline.service.share import PicturePlace
from pipeline.sources.policy import AddressPolicy
from pipeline.sources.probe import probe
from pipeline.types import Frame

router = APIRouter(prefix="/v1/streams", tags=["streams"], responses=RESPONSES)

WAIT_S = 5.0
"""How long a picture is waited for."""
MOST_PICTURES = 256
"""JPEGs kept, of streams and sizes that were looked at last."""
_QUALITY = 80
Operator = Annotated[Caller, Depends(allowed("operator"))]
Width = Annotated[int, Query(ge=16, le=3840, description="Widest the picture may be, in px.")]
JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "a picture"}
}
MJPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"multipart/x-mixed-replace": {"schema": {"type": "string"}}}, "description": "pictures"}
}


class ProbeView(BaseModel):
    """The properties of a stream, as `resadapt probe` finds them."""

    model_config = ConfigDict(extra="allow")
    url: str
    live: bool
    codec: str
    width: int
    height: int
    advice: list[str] = []


class JpegCache:
    """JPEGs of the newest frames, each made once whoever looks."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, int, bool], tuple[ref[Picture], asyncio.Future[bytes]]] = OrderedDict()

    async def jpeg(self, stream: str, frame: Frame, width: int, text: str) -> bytes:
        """The picture of a frame, at most `width` px wide, with a line of text if there is one."""
        key = stream, width, bool(text)
        known = self._made.pop(key, None)
        if known is None or known[0]() is not frame.picture:
            known = ref(frame.picture), asyncio.ensure_future(asyncio.to_thread(encode, frame, width, text))
        self._made[key] = known
        while len(self._made) > MOST_PICTURES:
            self._made.popitem(last=False)
        return await asyncio.shield(known[1])


@router.post("/{slug}/probe", response_model=ProbeView, operation_id="probe_stream")
async def probe_stream(slug: str, request: Request, caller: Operator, desk: AtDesk) -> object:
    """Open it once more, look for some seconds, and say what it is and what to do about it: in a fleet on the node that
    runs it."""
    where = await asyncio.to_thread(_far_place, slug, caller, desk)
    if where is not None:
        nodes: FarNodes = request.app.state.far_nodes
        return await nodes.probe(where, slug)
    return await run_in_threadpool(_probed_here, slug, desk)


def _far_place(slug: str, caller: Caller, desk: Desk) -> PicturePlace | None:
    """The place of the pictures of a stream that another node runs. Blocks."""
    desk.look(caller).entry("stream", slug)
    return desk.reconciler.service.pictures_of(slug)


def _probed_here(slug: str, desk: Desk) -> dict[str, JsonValue]:
    stream = desk.reconciler.service.site.streams.get(slug)
    if stream is None:
        raise Problem(503, "not available now", f"the stream {slug!r} is not applied yet", headers={"Retry-After": "1"})
    return _probed(stream.url, desk, stream.address_policy())


@router.post("/probe", response_model=ProbeView, operation_id="probe_url")
def probe_url(body: Body, caller: Operator, desk: AtDesk) -> dict[str, JsonValue]:
    """The same for a stream that is not attached: the body is the spec it would have."""
    desk.admission.admit("stream", "probe", body, desk.registry.snapshot())
    return _probed(str(body["url"]), desk, desk.admission.policy)


@router.get("/{slug}/snapshot.jpg", response_class=Response, responses=JPEG, operation_id="snapshot")
async def snapshot(
    slug: str, request: Request, caller: Viewer, desk: AtDesk, width: Width = 1280, overlay: bool = False
) -> Response:
    """The next frame that is sampled; with `overlay` its scale, tokens and scores are written on it."""
    attachment = await asyncio.to_thread(_attachment, slug, caller, desk)
    if isinstance(attachment, PicturePlace):
        nodes: FarNodes = request.app.state.far_nodes
        return await nodes.get(attachment, f"/v1/streams/{slug}/snapshot.jpg", {"width": width, "overlay": overlay})
    try:
        async with asyncio.timeout(WAIT_S):
            frame = await attachment.tap.next()
    except TimeoutError:
        raise _no_picture(slug, attachment) from None
    pictures: JpegCache = request.app.state.pictures
    jpeg = await pictures.jpeg(slug, frame, width, _overlay(attachment) if overlay else "")
    headers = {"Cache-Control": "no-store", "X-Captured-At": frame.captured_at.isoformat()}
    return Response(jpeg, media_type="image/jpeg", headers=headers)


@router.get("/{slug}/live.mjpeg", response_class=StreamingResponse, responses=MJPEG, operation_id="live")
async def live(
    slug: str, request: Request, caller: Viewer, desk: AtDesk, width: Width = 640, overlay: bool = False
) -> StreamingResponse:
    """Frames as they are sampled, until the stream is gone or the client is."""
    attachment = await asyncio.to_thread(_attachment, slug, caller, desk)
    place = listening(request)
    pictures: JpegCache = request.app.state.pictures

    async def parts(attachment: Attachment) -> AsyncIterator[bytes]:
        async for frame in _frames(slug, desk):
            jpeg = await pictures.jpeg(slug, frame, width, _overlay(attachment) if overlay else "")
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"

    async def placed(found: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        with place:
            async for some in found:
                yield some

    query = {"width": width, "overlay": overlay}
    found = (
        _far_parts(slug, desk, request.app.state.far_nodes, query)
        if isinstance(attachment, PicturePlace)
        else parts(attachment)
    )
    kind = "multipart/x-mixed-replace; boundary=frame"
    return StreamingResponse(placed(found), media_type=kind, headers={"Cache-Control": "no-store"})


async def _frames(slug: str, desk: Desk) -> AsyncIterator[Frame]:
    """Frames of a stream for as long as it is attached, whatever attachment it has; an end after long silence."""
    while attachment := desk.reconciler.service.attachments.get(slug):
        try:
            async with asyncio.timeout(WAIT_S):
                frame = await attachment.tap.next()
        except TimeoutError:
            if attachment.phase in ("ended", "lost"):
                return
            continue
        yield frame


async def _far_parts(slug: str, desk: Desk, nodes: FarNodes, query: NodeQuery) -> AsyncIterator[bytes]:
    """Moving pictures of a stream from the node that runs it, whichever that is; an end after long silence."""
    service, clock = desk.reconciler.service, desk.clock
    until_s = clock.monotonic_s() + 2 * WAIT_S
    while clock.monotonic_s() < until_s and (where := await asyncio.to_thread(service.pictures_of, slug)):
        async for some in nodes.moving(where, slug, query):
            yield some
            until_s = clock.monotonic_s() + 2 * WAIT_S
        await clock.sleep(0.5)  # it is handed over


def _attachment(slug: str, caller: Caller, desk: Desk) -> Attachment | PicturePlace:
    """The attachment of a stream that runs here, or the place of its pictures. Blocks."""
    desk.look(caller).entry("stream", slug)
    service = desk.reconciler.service
    attachment = service.attachments.get(slug) or service.pictures_of(slug)
    if attachment is None:
        raise Problem(503, "not available now", f"the stream {slug!r} does not run now", headers={"Retry-After": "2"})
    return attachment


def _no_picture(slug: str, attachment: Attachment) -> Problem:
    why = f": {attachment.trouble}" if attachment.trouble else ""
    detail = f"the stream {slug!r} gave no picture in {WAIT_S:g} s; it is {attachment.phase}{why}"
    return Problem(503, "not available now", detail, headers={"Retry-After": "5"})


def _overlay(attachment: Attachment) -> str:
    """One line: step, tokens of the last hops, and the scores."""
    run = attachment.run
    scores = " ".join(f"{one.watch_id}={one.score:.2f}" for one in run.answers[:6])
    return f"{run.counts.spent}/{run.counts.granted} tokens {run.ladder.name} {scores}"


def encode(frame: Frame, width: int, text: str) -> bytes:
    """A frame as JPEG, at most `width` px wide, with a line of text on it if there is one."""
    native_height, native_width = frame.size
    scale = min(1.0, width / native_width)
    size = max(round(native_height * scale), 1), max(round(native_width * scale), 1)
    picture = Image.fromarray(frame.picture.render(*size))
    if text:
        where = (6, max(size[0] - 18, 0))
        ImageDraw.Draw(picture).text(where, text, fill="white", stroke_width=2, stroke_fill="black")
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=_QUALITY)
    return jpeg.getvalue()


def _probed(url: str, desk: Desk, policy: AddressPolicy) -> dict[str, JsonValue]:
    if url.startswith("synthetic:"):
        raise Problem(422, "not accepted", "a synthetic stream is generated here; there is nothing to probe", "url")
    found = asdict(probe(resolve_url(url), clock=desk.clock, read_s=3.0))
    return {**found, "advice": list(found["advice"]), "hwaccel": list(found["hwaccel"])}
