"""Shapes of the API's replies, with names of their own, independent of the inner types."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, JsonValue, TypeAdapter

from pipeline.config.sinks import SinkConfig
from pipeline.config.site import StreamConfig, WatchConfig
from pipeline.delivery.history import StoredAnswers, StoredEvent
from pipeline.delivery.relay import SinkCounts
from pipeline.registry.entry import Edit, Kind, RegistryEntry, Spec
from pipeline.service.status import StreamStatus, WatchStanding

T = TypeVar("T")
Schema = dict[str, Any]
"""A JSON Schema, as OpenAPI takes it."""


class Page(BaseModel, Generic[T]):
    """A part of a list; `next` is the cursor of the part behind it, absent at the end."""

    items: list[T]
    next: str | None = None


class EntryView(BaseModel):
    """One entry of the registry. `spec` is what was said of it, without credentials; `owner` who may change it: a
    `file:`, or whoever."""

    slug: str
    revision: int
    owner: str
    created_at: datetime
    updated_at: datetime
    spec: dict[str, JsonValue]


class StreamView(EntryView):
    """A stream as it is wanted, and as it stands."""

    status: StreamStatus


class EditedStreamView(StreamView):
    """A stream that was added or changed; `warnings` name what does not fit any more with all streams, and what to
    change. It is taken all the same."""

    warnings: list[str] = []


class WatchView(EntryView):
    """A watch as it is wanted, and how it stands on each of its streams; `fault` says why it is not asked."""

    streams: dict[str, WatchStanding]
    fault: str | None = None


class SinkView(EntryView):
    """A sink as it is wanted, and what waits for it; `filtered` events are not for it, `held_back` beyond its rate
    limit; `last_error` is why the newest try failed, or it is not there."""

    pending: int = 0
    published: int = 0
    filtered: int = 0
    held_back: int = 0
    failures: int = 0
    last_error: str | None = None


class EventView(BaseModel):
    """An event that was decided, and what a person has said of it."""

    seq: int
    id: str
    type: str
    stream: str
    watch: str | None
    time: datetime
    data: dict[str, JsonValue]
    label: str | None = None


class AnswersView(BaseModel):
    """Questions and answers of one hop: see `HopRecord.as_json`."""

    seq: int
    stream: str
    time: datetime
    record: dict[str, JsonValue]


class EditView(BaseModel):
    """One edit of an entry: its author, its time, and the entry before and after."""

    seq: int
    kind: str
    slug: str
    revision: int
    at: datetime
    actor: str
    before: dict[str, JsonValue] | None
    after: dict[str, JsonValue] | None


VIEWS: dict[Kind, type[EntryView]] = {"stream": StreamView, "watch": WatchView, "sink": SinkView}
EDITED: dict[Kind, type[EntryView]] = {**VIEWS, "stream": EditedStreamView}
"""Of entries that were added or changed."""
_CONFIGS: dict[Kind, TypeAdapter[Any]] = {
    "stream": TypeAdapter(StreamConfig),
    "watch": TypeAdapter(WatchConfig),
    "sink": TypeAdapter(SinkConfig),
}


def entry_fields(entry: RegistryEntry) -> dict[str, Any]:
    """The fields that all views of entries share."""
    return {
        "slug": entry.slug,
        "revision": entry.revision,
        "owner": entry.owner,
        "created_at": entry.created_at,
        "updated_at": entry.updated_at,
        "spec": dict(entry.spec),
    }


def sink_fields(counts: SinkCounts | None, fault: str | None) -> dict[str, Any]:
    """The fields that a SinkView adds to its entry."""
    if counts is None:
        return {"last_error": fault}
    shown = ("pending", "published", "filtered", "held_back", "failures", "last_error")
    return {name: getattr(counts, name) for name in shown}


def event_view(stored: StoredEvent) -> EventView:
    """An event as it is shown."""
    event = stored.event
    return EventView(
        seq=stored.seq,
        id=event.id,
        type=event.type,
        stream=event.stream_id,
        watch=event.watch_id,
        time=event.time,
        data=plain(event.data),
        label=stored.label,
    )


def answers_view(stored: StoredAnswers) -> AnswersView:
    """The answers of a hop as they are shown."""
    return AnswersView(seq=stored.seq, stream=stored.stream_id, time=stored.time, record=plain(stored.record))


def edit_view(edit: Edit, shown: Callable[[str, Spec], Spec] = lambda _kind, spec: spec) -> EditView:
    """An edit as it is shown, its specs as `shown` gives them."""
    before, after = (None if spec is None else plain(shown(edit.kind, spec)) for spec in (edit.before, edit.after))
    return EditView(
        seq=edit.seq,
        kind=edit.kind,
        slug=edit.slug,
        revision=edit.revision,
        at=edit.at,
        actor=edit.actor,
        before=before,
        after=after,
    )


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as JSON libraries know it."""
    return dict(value)


def spec_schema(kind: Kind, partial: bool = False, slug: bool = False) -> Schema:
    """The JSON Schema of a spec; `partial` for a merge patch, in which nothing is required and null removes, `slug` for
    one that may name itself."""
    schema = _inlined(_CONFIGS[kind].json_schema(mode="validation"))
    for one in schema.get("oneOf") or schema.get("anyOf") or [schema]:  # what comes in kinds has a schema for each
        properties = one["properties"]
        for name in ("allow_addresses", "deny_addresses"):  # the site's to say, under `api`
            properties.pop(name, None)
        if partial:
            one.pop("required", None)
            one["properties"] = {name: {"anyOf": [value, {"type": "null"}]} for name, value in properties.items()}
        if slug:
            properties["slug"] = {"type": ["string", "null"], "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"}
    return schema


def _inlined(schema: Schema) -> Schema:
    """A schema without references: each stands where it is used."""
    definitions = schema.pop("$defs", {})

    def resolve(value: Any) -> Any:  # noqa: ANN401 - a JSON Schema nests anything
        if isinstance(value, dict):
            if "$ref" in value:
                return resolve(definitions[value["$ref"].rpartition("/")[2]])
            return {key: resolve(inner) for key, inner in value.items() if key != "discriminator"}
        return [resolve(inner) for inner in value] if isinstance(value, list) else value

    found = resolve(schema)
    assert isinstance(found, dict)
    return found
