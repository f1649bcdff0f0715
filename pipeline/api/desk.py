"""The parts that the routes work on: the registry, the running service, and the rules of admission."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fastapi import Request

from pipeline.api.admission import Admission, allow_entry, sees, zones_of
from pipeline.api.auth import Caller
from pipeline.api.problems import Problem
from pipeline.api.views import VIEWS, EntryView, entry_fields, sink_fields
from pipeline.clock import Clock
from pipeline.core.selectors import selects
from pipeline.registry.desired import shown_spec
from pipeline.registry.entry import Change, EntryMissing, Expected, Kind, RegistryEntry, RevisionConflict, Spec
from pipeline.registry.registry import Registry, Snapshot
from pipeline.service.reconciler import Reconciler
from pipeline.service.status import StreamStatus, WatchStanding
from pipeline.types import Json

_NOT_ASKED_YET = WatchStanding(False)
_TRIES = 5
"""How often an edit that names no revision is made again when somebody was faster."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Edits and shows entries for callers. Its methods block and are called from threads."""

    reconciler: Reconciler
    admission: Admission
    clock: Clock

    @property
    def registry(self) -> Registry:
        """Raises StoreUnavailable while the service starts."""
        return self.reconciler.registry

    def entry(self, caller: Caller, kind: Kind, slug: str, snapshot: Snapshot) -> RegistryEntry:
        """An entry that is for the caller. Raises EntryMissing for one that is not, as if it were not there."""
        entry = snapshot.entries.get((kind, slug))
        if entry is None or not sees(caller, entry, snapshot):
            known = [one.slug for one in snapshot.of(kind).values() if sees(caller, one, snapshot)]
            few = f"there are {', '.join(known[:10])}" if known else "there is none"
            raise EntryMissing(f"there is no {kind} {slug[:80]!r}; {few}")
        return entry

    def put(self, caller: Caller, kind: Kind, slug: str, spec: Spec, expected: Expected) -> tuple[RegistryEntry, bool]:
        """Make an entry what `spec` says; whether it is new."""
        snapshot = self.registry.snapshot()
        present = snapshot.entries.get((kind, slug))
        allow_entry(caller, present, kind, spec, snapshot)
        if present is not None:
            spec = _with_shown_secrets(present.spec, spec)
        self.admission.admit(kind, slug, spec, snapshot)
        owner = present.owner if present and present.file is None else caller.name
        (entry,) = self.registry.edit([Change(kind, slug, spec, owner, expected)], caller.name)
        assert entry is not None
        return entry, present is None

    def patch(self, caller: Caller, kind: Kind, slug: str, patch: Spec, expected: Expected) -> RegistryEntry:
        """Merge a patch (RFC 7396) into an entry."""
        for attempt in range(_TRIES):
            snapshot = self.registry.snapshot()
            present = self.entry(caller, kind, slug, snapshot)
            if expected not in ("any", present.revision):
                raise RevisionConflict(
                    f"the {kind} {slug!r} is at revision {present.revision} now, and this change was made for"
                    f" {expected}; read it again and repeat what is still wanted"
                )
            spec = merged(present.spec, patch)
            allow_entry(caller, present, kind, spec, snapshot)
            self.admission.admit(kind, slug, spec, snapshot)
            change = Change(kind, slug, spec, present.owner if not present.file else caller.name, present.revision)
            try:
                (entry,) = self.registry.edit([change], caller.name)
            except RevisionConflict:
                if expected != "any" or attempt == _TRIES - 1:
                    raise
                continue
            assert entry is not None
            return entry
        raise AssertionError("the last try raises or returns")

    def remove(self, caller: Caller, kind: Kind, slug: str, expected: Expected) -> None:
        """Remove an entry. Raises EntryMissing."""
        snapshot = self.registry.snapshot()
        present = self.entry(caller, kind, slug, snapshot)
        allow_entry(caller, present, kind, None, snapshot)
        self.registry.edit([Change(kind, slug, None, caller.name, expected)], caller.name)

    def look(self, caller: Caller) -> "DeskView":
        """The entries of the registry and the state of what runs, at one moment."""
        return DeskView(self, caller, self.registry.snapshot())

    def visible_streams(self, caller: Caller) -> frozenset[str] | None:
        """The slugs of the streams that are for a caller; None for all, those that are gone included."""
        if not caller.tags:
            return None
        streams = self.registry.snapshot().of("stream").values()
        return frozenset(entry.slug for entry in streams if caller.sees(entry.tags))


class DeskView:
    """The registry at one moment, and how what runs stood then, for one caller."""

    def __init__(self, desk: Desk, caller: Caller, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._desk = desk
        self._caller = caller
        self._service = desk.reconciler.service
        self._statuses: dict[str, StreamStatus] = {}
        self._entries: dict[Kind, list[RegistryEntry]] = {}

    def entries(self, kind: Kind) -> list[RegistryEntry]:
        """The entries of a kind that are for the caller, by slug."""
        if kind not in self._entries:
            all_of_kind = self.snapshot.of(kind).values()
            self._entries[kind] = [entry for entry in all_of_kind if sees(self._caller, entry, self.snapshot)]
        return self._entries[kind]

    def entry(self, kind: Kind, slug: str) -> RegistryEntry:
        """One of them. Raises EntryMissing."""
        return self._desk.entry(self._caller, kind, slug, self.snapshot)

    def view(self, entry: RegistryEntry) -> EntryView:
        """An entry as it is wanted and as it stands."""
        more: dict[str, Any] = {}
        fault = self._fault(entry)
        if entry.kind == "stream":
            more["status"] = self.status(entry)
        elif entry.kind == "watch":
            more["streams"], more["fault"] = self.standing(entry), fault or self._zone_fault(entry)
        else:
            more |= sink_fields(self._service.sink_counts.get(entry.slug), fault)
        return VIEWS[entry.kind](**entry_fields(entry) | {"spec": self.spec(entry.kind, entry.spec)}, **more)

    def spec(self, kind: str, spec: Spec) -> dict[str, Any]:
        """A spec as the caller may see it: the path of a webhook may be a secret, which operators alone can give."""
        return shown_spec("sink", spec) if kind == "sink" and not self._caller.may("operator") else dict(spec)

    def status(self, entry: RegistryEntry) -> StreamStatus:
        """The status of a stream."""
        found = self._statuses.get(entry.slug)
        if found is None:
            found = self._service.stream_status(entry.slug, self._fault(entry))
            self._statuses[entry.slug] = found
        return found

    def _fault(self, entry: RegistryEntry) -> str | None:
        return self._desk.reconciler.faults.get((entry.kind, entry.slug))

    def _zone_fault(self, entry: RegistryEntry) -> str | None:
        """Why a watch about a zone is asked nowhere, if that is so."""
        watch = self._service.site.watches.get(entry.slug)
        if watch is None or watch.zone is None or any(watch.zone in zones for _, _, zones, _ in self._places):
            return None
        return f"no stream has a zone {watch.zone!r}; draw it under `zones` of the stream that it is about"

    def standing(self, entry: RegistryEntry) -> dict[str, WatchStanding]:
        """A watch on each of its streams that the caller sees."""
        watch = self._service.site.watches.get(entry.slug)
        if watch is None or watch.paused:
            return {}
        selectors = frozenset(watch.streams)
        return {
            slug: watches.get(entry.slug, _NOT_ASKED_YET)
            for slug, tags, zones, watches in self._places
            if selects(selectors, slug, tags, watch.zone, zones)
        }

    @cached_property
    def _places(self) -> list[tuple[str, frozenset[str], frozenset[str], Mapping[str, WatchStanding]]]:
        """The streams that watches may stand on: slug, tags and zones of each, and the status of its watches."""
        streams = self.entries("stream")
        return [(one.slug, one.tags, zones_of(one), self.status(one).watches) for one in streams]


def merged(spec: Mapping[str, Json], patch: Mapping[str, Json]) -> dict[str, Json]:
    """A JSON merge patch (RFC 7396): null removes, mappings are merged, all else replaces."""
    found = dict(spec)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping):
            below = found.get(key)
            found[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            found[key] = value
    return found


def _with_shown_secrets(present: Spec, spec: Spec) -> Spec:
    """A spec that was read, edited and sent back: what was hidden when it was read stays as it is."""
    return {key: present[key] if key in present and value == present[key] else value for key, value in spec.items()}


async def json_object(request: Request) -> dict[str, Json]:
    """A dependency: the body, a JSON object. Raises Problem for anything else."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/merge-patch+json"):
        raise Problem(415, "not JSON", f"Content-Type is {kind[:80]!r}; expected application/json", "Content-Type")
    try:
        body = json.loads(await request.body(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Problem(400, "not understood", "the body is not JSON; expected one object", "body") from None
    if not isinstance(body, dict):
        raise Problem(422, "not accepted", f"the body is a {type(body).__name__}; expected one object", "body")
    return body


def _refuse(name: str) -> None:
    raise ValueError(name)


def expected_revision(request: Request) -> Expected:
    """A dependency: what If-Match and If-None-Match ask for. Raises Problem for what is no revision."""
    if request.headers.get("if-none-match") == "*":
        return "absent"
    text = request.headers.get("if-match")
    if text is None or text == "*":
        return "any"
    digits = text.removeprefix("W/").strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise Problem(
            400, "not understood", f'If-Match is {text[:80]!r}; expected the ETag of an entry, such as "3"', "If-Match"
        )
    return int(digits)
