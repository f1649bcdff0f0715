"""A watch tried on a recording that is sent: by the MLLM that runs, on nothing that is kept."""

import asyncio
import hashlib
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from allocator_engine.digests import SHORT
from pipeline.api.desk import Desk, merged
from pipeline.api.entries import AtDesk
from pipeline.api.evidence import beside_streams
from pipeline.api.problems import RESPONSES, Problem
from pipeline.api.views import plain
from pipeline.api.what_if import Analyst
from pipeline.config.entries import parse_stream, parse_watch, untrusted
from pipeline.config.site import SiteConfig, StreamConfig, WatchConfig
from pipeline.errors import ResadaptError
from pipeline.lab.backtest import BackTest, back_test
from pipeline.registry.entry import RegistryEntry
from pipeline.service.board import as_served
from pipeline.sources.address import RECORDING_SUFFIXES
from pipeline.types import Json

router = APIRouter(prefix="/v1", tags=["watches"], responses=RESPONSES)

MOST_S = 1800.0
"""How long one trial may take, in wall seconds."""
_NOWHERE = ("0.0.0.0/0", "::/0")
_BYTES = {"schema": {"type": "string", "format": "binary"}}
BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": _BYTES}}}


class TrialEventView(BaseModel):
    """An event that the watch would have sent, at a second of the recording, with a small JPEG (base64)."""

    type: str
    at_s: float
    since_s: float
    rule: str
    picture: str
    value: str
    text: str


class TrialView(BaseModel):
    """The result: seconds of the recording that were tried, vision tokens spent, how many times faster than the camera
    it went, the events, and the scores as pairs of second and score (null: unknown). `ended_early` says why it broke
    off, if it did."""

    seconds: float
    realtime_factor: float | None
    tokens: int
    tokens_per_day: int | None
    opened: int
    events: list[TrialEventView]
    scores: list[tuple[float, float | None]]
    ended_early: str = ""


@router.post(
    "/watches/{slug}/recording", response_model=TrialView, operation_id="try_watch_on_recording", openapi_extra=BODY
)
async def try_on_recording(
    slug: str,
    request: Request,
    caller: Analyst,
    desk: AtDesk,
    name: Annotated[str, Query(min_length=3, max_length=200, description="Name of the file, with its ending.")],
    settings: Annotated[str, Query(max_length=8192, description="A JSON object of settings to try instead.")] = "{}",
) -> TrialView:
    """Try a watch, or other settings of it, on a recording: the body. It is decoded as fast as possible with the
    settings of the first stream that the watch stands on, by the MLLM that the streams ask too, one recording at a
    time. Neither the recording nor its events are kept; schedule, profiles and escalation do not count."""
    view = desk.look(caller)
    entry = view.entry("watch", slug)
    watch = _bare(parse_watch(slug, merged(entry.spec, _settings(settings))))
    like = next(iter(sorted(view.standing(entry))), None)
    own = {} if like is None else spec_as_served(desk, view.entry("stream", like))
    async with sent(request, desk, name, own) as trial:
        site = replace(trial.site, watches={slug: watch})
        played = await back_test(site, trial.names, desk.clock, desk.reconciler.service.runtime.mllm)
    return _view(played)


def spec_as_served(desk: Desk, entry: RegistryEntry) -> Mapping[str, Json]:
    """The spec of a stream for a trial of one of its watches alone: shown whole, where it is."""
    site = desk.reconciler.service.site
    if entry.slug not in site.streams:  # one that cannot run, for what is wrong with it
        return entry.spec
    (served,) = as_served({entry.slug: site.streams[entry.slug]}, site.watches).values()
    return {**entry.spec, "crop": served.crop}


@dataclass(frozen=True, slots=True)
class SentRecording:
    """A recording that was sent, as the only stream of a site without watches; its name by slug, and a digest of what
    is in it."""

    site: SiteConfig
    names: Mapping[str, str]
    digest: str


@asynccontextmanager
async def sent(request: Request, desk: Desk, name: str, own: Mapping[str, Json]) -> AsyncIterator[SentRecording]:
    """The body as a recording of a stream whose spec is `own`, for as long as it is tried. Raises Problem for what is
    no recording or too large, and where another is tried, or this one for too long."""
    suffix = Path(name).suffix.lower()
    if suffix not in RECORDING_SUFFIXES:
        raise Problem(
            422, "not taken", f"{name!r} is no recording; expected {', '.join(sorted(RECORDING_SUFFIXES))}", "name"
        )
    service, raw = desk.reconciler.service, desk.reconciler.raw
    with beside_streams(request), tempfile.TemporaryDirectory(prefix="resadapt-") as scratch:
        file = Path(scratch) / f"recording{suffix}"
        digest = await _receive(request, file, request.app.state.max_recording)
        slug = f"trial-{uuid.uuid4().hex[:12]}"
        site = _site(service.site, {slug: _stream(own, file, raw)}, Path(scratch))
        try:
            async with asyncio.timeout(MOST_S):
                yield SentRecording(site, {slug: name}, digest)
        except TimeoutError:
            raise Problem(
                503, "not available now", f"the recording could not be tried within {MOST_S:g} s; send a shorter one"
            ) from None
        except ResadaptError as error:
            if str(file) not in str(error):
                raise
            raise Problem(422, "not taken", str(error).replace(str(file), name)) from None


_SETTINGS = TypeAdapter(dict[str, JsonValue])
_OF_A_CAMERA = ("url", "sub_url", "live_url", "paused", "realtime", "priority", "tags", "display_name")


def _settings(text: str) -> Mapping[str, Json]:
    try:
        return plain(_SETTINGS.validate_json(text))
    except ValidationError:
        raise Problem(422, "not taken", 'expected a JSON object such as {"open_at": 0.8}', "settings") from None


def _bare(watch: WatchConfig) -> WatchConfig:
    """The watch as it is asked of any stream at any time."""
    return replace(watch, streams=(), paused=False, schedule=None, profiles=(), escalate=None)


async def _receive(request: Request, file: Path, most: int) -> str:
    """The body into a file. Returns a digest of it. Raises Problem 413 above `most` bytes, 422 for nothing, 507 where
    the disk is full."""
    size, digest = 0, hashlib.sha256()
    try:
        with file.open("wb") as out:
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise Problem(
                        413, "too large", f"the recording is larger than {most} bytes, the most that is taken"
                    )
                digest.update(part)
                await asyncio.to_thread(out.write, part)
    except OSError as error:
        raise Problem(507, "no room", f"the recording cannot be kept while it is tried: {error.strerror}") from error
    if not size:
        raise Problem(422, "not taken", "expected a recording as the body; it is empty")
    return digest.hexdigest()[:SHORT]


def _stream(own: Mapping[str, Json], file: Path, raw: Mapping[str, object]) -> StreamConfig:
    """A stream like another one that plays a file, and nothing but this file, whatever is written in it."""
    like = {name: value for name, value in own.items() if name not in _OF_A_CAMERA}
    plain = parse_stream("recording", {**like, "url": str(file), "realtime": False}, raw)
    return untrusted(plain, (f"file:{file.parent}",), _NOWHERE)


def _site(site: SiteConfig, streams: dict[str, StreamConfig], scratch: Path) -> SiteConfig:
    """A site with only these, of which nothing is kept."""
    return replace(
        site, streams=streams, watches={}, sinks={}, gpu_budget=None, store=f"sqlite:///{scratch}/trial.db",
        evidence=replace(site.evidence, enabled=False),
    )  # fmt: skip


def _view(played: BackTest) -> TrialView:
    (tried,), total = played.tried, played.as_json()
    return TrialView(
        seconds=round(sum(played.seconds.values()), 3),
        realtime_factor=total["realtime_factor"],
        tokens=played.tokens,
        tokens_per_day=total["tokens_per_day"],
        opened=tried.opened,
        events=[TrialEventView(**{k: v for k, v in asdict(one).items() if k != "recording"}) for one in tried.events],
        scores=[pair for scores in tried.scores.values() for pair in scores],
        ended_early="; ".join(played.faults.values()),
    )
