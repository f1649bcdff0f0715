"""Profiles: names under which watches are armed together. Which are armed stands in the registry."""

from collections.abc import Mapping

from fastapi import APIRouter
from pydantic import BaseModel

from pipeline.api.auth import Caller
from pipeline.api.desk import Desk
from pipeline.api.entries import AtDesk, Viewer
from pipeline.api.problems import RESPONSES, Problem
from pipeline.api.system import Operator
from pipeline.registry.entry import Change, EntryMissing
from pipeline.service.board import armed_profiles

router = APIRouter(prefix="/v1/profiles", tags=["profiles"], responses=RESPONSES)


class ProfileView(BaseModel):
    """A profile: whether it is armed, and the watches that name it."""

    slug: str
    armed: bool
    watches: list[str]


class Profiles(BaseModel):
    """All profiles, by slug."""

    items: list[ProfileView]


@router.get("", response_model=Profiles, operation_id="list_profiles")
def list_profiles(caller: Viewer, desk: AtDesk) -> Profiles:
    """Those that a watch names, and which are armed."""
    return Profiles(items=list(_views(caller, desk).values()))


@router.post("/{slug}/arm", response_model=ProfileView, operation_id="arm_profile")
def arm(slug: str, caller: Operator, desk: AtDesk) -> ProfileView:
    """From now on the watches of this profile are armed."""
    return _set(slug, caller, desk, armed=True)


@router.post("/{slug}/disarm", response_model=ProfileView, operation_id="disarm_profile")
def disarm(slug: str, caller: Operator, desk: AtDesk) -> ProfileView:
    """From now on they are not, unless another of their profiles is; an open one is cleared."""
    return _set(slug, caller, desk, armed=False)


def _set(slug: str, caller: Caller, desk: Desk, armed: bool) -> ProfileView:
    if caller.tags:
        raise Problem(403, "not allowed", "the key is for some streams only, and a profile concerns all", "tags")
    known = _views(caller, desk)
    if slug not in known:
        few = f"the profiles are {', '.join(list(known)[:10])}" if known else "no watch names any"
        raise EntryMissing(f"there is no profile {slug[:80]!r}; {few}")
    desk.registry.edit([Change("profile", slug, {"armed": armed}, caller.name)], caller.name)
    return _views(caller, desk)[slug]


def _views(caller: Caller, desk: Desk) -> Mapping[str, ProfileView]:
    look = desk.look(caller)
    armed = armed_profiles(desk.reconciler.own_armed, look.snapshot)
    watches: dict[str, list[str]] = {}
    for entry in look.entries("watch"):
        named = entry.spec.get("profiles", ())
        for profile in named if isinstance(named, list | tuple) else ():
            watches.setdefault(str(profile), []).append(entry.slug)
    slugs = sorted({*watches, *(armed if not caller.tags else ())})
    return {slug: ProfileView(slug=slug, armed=slug in armed, watches=watches.get(slug, [])) for slug in slugs}
