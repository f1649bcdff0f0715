"""Cameras that the service finds on its network."""

import asyncio
from dataclasses import asdict
from ipaddress import ip_address
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from pipeline.api.auth import Caller, allowed
from pipeline.api.entries import AtDesk
from pipeline.api.problems import RESPONSES, Problem
from pipeline.service.cameras import LISTEN_RANGE_S, MOST_HOSTS, Search, find_cameras
from pipeline.sources.discovery import LISTEN_S

router = APIRouter(prefix="/v1", tags=["streams"], responses=RESPONSES)
Operator = Annotated[Caller, Depends(allowed("operator"))]


class DiscoverBody(BaseModel):
    """The scope of a search for cameras: `hosts`, or the whole network if none are named; `password` is a reference."""

    model_config = ConfigDict(extra="forbid")
    hosts: Annotated[list[Annotated[str, Field(min_length=1, max_length=300)]], Field(max_length=MOST_HOSTS)] = []
    user: Annotated[str | None, Field(max_length=200)] = None
    password: Annotated[str | None, Field(max_length=300)] = None
    seconds: Annotated[float, Field(ge=LISTEN_RANGE_S[0], le=LISTEN_RANGE_S[1])] = LISTEN_S


class CameraStreamView(BaseModel):
    """A stream of a camera; `role` is main for the largest picture, sub for the next. The URL has no login."""

    name: str
    role: str
    codec: str
    width: int
    height: int
    fps: int
    url: str


class FoundCameraView(BaseModel):
    """A camera that answered; `trouble` is what kept it, or some of its streams, from being read."""

    name: str
    address: str
    manufacturer: str
    model: str
    firmware: str
    serial: str
    streams: list[CameraStreamView]
    trouble: str


class CamerasFound(BaseModel):
    """The cameras that answered, by address."""

    items: list[FoundCameraView]


@router.post("/discover", response_model=CamerasFound, operation_id="discover")
async def discover(body: DiscoverBody, caller: Operator, desk: AtDesk) -> CamerasFound:
    """Look for ONVIF cameras on the service's network. A login goes, as digests, to every camera that answers."""
    if caller.tags:
        raise Problem(403, "not allowed", "the key is for some streams only, and a search concerns all", "tags")
    search = Search(tuple(body.hosts), body.user, body.password, body.seconds)
    await asyncio.to_thread(desk.admission.admit_search, body.hosts, body.password)
    policy = desk.admission.policy

    def permits(host: str) -> bool:
        return bool(policy.permitted([ip_address(host)], None))

    cameras = await find_cameras(search, desk.clock, permits)
    return CamerasFound(items=[FoundCameraView(**asdict(camera)) for camera in cameras])
