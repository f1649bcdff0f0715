"""A site file laid over the registry: what would change, and then only that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from pipeline.api.admission import allow_entry
from pipeline.api.auth import Caller, allowed
from pipeline.api.desk import Desk
from pipeline.api.entries import AtDesk, Body
from pipeline.api.problems import RESPONSES, Problem
from pipeline.config.site import parse_site
from pipeline.registry.desired import SECTIONS
from pipeline.registry.entry import Change, EntryOwned, Kind, RegistryEntry
from pipeline.registry.registry import Snapshot
from pipeline.service.exchange import EXCHANGED, RESTARTING, changed_parts
from pipeline.types import Json

router = APIRouter(prefix="/v1", tags=["apply"], responses=RESPONSES)
Operator = Annotated[Caller, Depends(allowed("operator"))]
DryRun = Annotated[bool, Query(description="Only say what would change.")]


class Step(BaseModel):
    """The change of one entry: what is done to it, and the fields that differ."""

    kind: Kind
    slug: str
    action: Literal["add", "change", "remove", "leave"]
    fields: list[str] = []


class Plan(BaseModel):
    """The changes that applying a site file makes. `restarts` are parts for which the process has to be restarted,
    `process` parts that only its own site file changes; neither is touched here."""

    steps: list[Step]
    restarts: list[str] = []
    process: list[str] = []
    applied: bool = False


@dataclass(frozen=True, slots=True)
class _Asked:
    """The entries of a body."""

    specs: dict[tuple[Kind, str], Mapping[str, Json]]


@router.post("/apply", response_model=Plan, operation_id="apply")
def apply(
    body: Body,
    caller: Operator,
    desk: AtDesk,
    dry_run: DryRun = False,
    prune: Annotated[bool, Query(description="Also remove what the body does not say and no site file owns.")] = False,
) -> Plan:
    """Make streams, watches and sinks those of the body (a site file as JSON), all or none."""
    snapshot = desk.registry.snapshot()
    asked = _entries(body)
    changes = _changes(asked, snapshot, caller, prune)
    _admit(asked, changes, snapshot, caller, desk)
    restarts, process = _parts(body, desk)
    plan = Plan(steps=steps_of(changes, snapshot), restarts=restarts, process=process)
    if dry_run:
        return plan
    desk.registry.edit(changes, caller.name)
    return plan.model_copy(update={"applied": True})


@router.post("/reload", response_model=Plan, operation_id="reload")
async def reload(caller: Operator, desk: AtDesk, dry_run: DryRun = False) -> Plan:
    """Read the service's own site file again, as SIGHUP does."""
    reconciler = desk.reconciler
    if reconciler.path is None:
        raise Problem(409, "no site file", "the service was started without a site file; there is nothing to reload")
    if caller.tags:
        raise Problem(403, "not allowed", "the key is for some streams only, and a site file concerns all", "tags")
    changes, snapshot, restarts = await reconciler.preview()
    plan = Plan(steps=steps_of(changes, snapshot), restarts=restarts)
    if dry_run:
        return plan
    await reconciler.reload()
    return plan.model_copy(update={"applied": True})


def steps_of(changes: Sequence[Change], snapshot: Snapshot) -> list[Step]:
    """The steps that changes mean for the entries of a snapshot."""
    return [_step(change, snapshot.entries.get((change.kind, change.slug))) for change in changes]


def _step(change: Change, present: RegistryEntry | None) -> Step:
    if change.spec is None:
        return Step(kind=change.kind, slug=change.slug, action="remove")
    if present is None:
        return Step(kind=change.kind, slug=change.slug, action="add", fields=sorted(change.spec))
    names = sorted(set(present.spec) | set(change.spec))
    differing = [name for name in names if _plain(present.spec.get(name)) != _plain(change.spec.get(name))]
    return Step(kind=change.kind, slug=change.slug, action="change" if differing else "leave", fields=differing)


def _entries(body: Mapping[str, Json]) -> _Asked:
    specs: dict[tuple[Kind, str], Mapping[str, Json]] = {}
    for kind, section in SECTIONS.items():
        entries = body.get(section)
        if entries is None:
            continue
        if not isinstance(entries, Mapping):
            raise Problem(422, "not accepted", f"{section}: expected a mapping of slugs", section)
        for slug, said in entries.items():
            spec = {"url": said} if kind == "sink" and isinstance(said, str) else said
            if not isinstance(spec, Mapping):
                raise Problem(
                    422, "not accepted", f"{section}.{slug[:80]}: expected a mapping", f"{section}.{slug[:80]}"
                )
            specs[kind, slug] = spec
    return _Asked(specs)


def _changes(asked: _Asked, snapshot: Snapshot, caller: Caller, prune: bool) -> list[Change]:
    changes = []
    for (kind, slug), spec in asked.specs.items():
        present = snapshot.entries.get((kind, slug))
        if present and present.file is not None:
            if _plain(present.spec) != _plain(spec):
                raise EntryOwned(f"the {kind} {slug!r} is written in {present.file}; change it there, then reload")
            continue
        owner = present.owner if present else caller.name
        changes.append(Change(kind, slug, spec, owner, present.revision if present else "absent"))
    if prune:
        kept = {key for key, one in snapshot.entries.items() if one.kind not in SECTIONS or one.file is not None}
        gone = [one for key, one in snapshot.entries.items() if key not in asked.specs and key not in kept]
        changes += [Change(one.kind, one.slug, None, caller.name, one.revision) for one in gone]
    return changes


def _admit(asked: _Asked, changes: Sequence[Change], snapshot: Snapshot, caller: Caller, desk: Desk) -> None:
    """Judge every change in the light of all of them. Raises Problem naming where it is."""
    now, entries = desk.clock.now(), dict(snapshot.entries)
    for change in changes:
        if change.spec is None:
            entries.pop((change.kind, change.slug), None)
        else:
            key = change.kind, change.slug
            entries[key] = RegistryEntry(change.kind, change.slug, 0, change.owner, change.spec, now, now)
    after = Snapshot(snapshot.generation, entries)
    for change in changes:
        try:
            allow_entry(caller, snapshot.entries.get((change.kind, change.slug)), change.kind, change.spec, after)
            if change.spec is not None:
                desk.admission.admit(change.kind, change.slug, change.spec, after)
        except Problem as problem:
            for fault in problem.body.errors:
                fault.field = f"{SECTIONS[change.kind]}.{change.slug}.{fault.field}"
            raise


def _parts(body: Mapping[str, Json], desk: Desk) -> tuple[list[str], list[str]]:
    """The parts of the process that the body says otherwise than they run: for a restart, and for its own file."""
    said = {key: value for key, value in body.items() if key not in SECTIONS.values()}
    site, running = parse_site(said), desk.reconciler.service.site
    named = [name for name in (*RESTARTING, *EXCHANGED) if name.partition(".")[0] in said]
    changed = changed_parts(running, site, named)
    return [name for name in changed if name in RESTARTING], [name for name in changed if name not in RESTARTING]


def _plain(value: object) -> object:
    """For comparison: tuples and lists are the same."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
