"""The two doors to events, evidence and labels: a service's API, or its store beside it. What they give is the same."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from pipeline.cli.remote import Remote, path_of, remote
from pipeline.clock import SystemClock, as_utc
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config.site import StreamConfig, WatchConfig

Beside = Annotated[
    Path | None, typer.Option("--config", "-c", help="Read the store of this site file, without the API.")
]
BesideStore = Annotated[str | None, typer.Option("--store", help="Read this store, without the API.")]
BesideFolder = Annotated[
    str | None, typer.Option("--evidence", help="Where its evidence lies, if not beside the store or as the file says.")
]

LOOK_TIMEOUT_S = 180.0
"""How long a service may ask its MLLM about snapshots: it stops by itself before that."""

MOST_STREAMS = 10_000
"""Most streams whose zones and masks are asked for."""
MOST_WATCHES = 1000
"""Most watches that are asked for, which decide together what of a stream is shown."""

TUNING_S = 300.0
"""Longest wait for a search, in seconds."""


class Door(Protocol):
    """The operations that commands need, with results as JSON in the API's shapes."""

    as_json: bool

    def evidence(self, event_id: str) -> Any: ...  # noqa: ANN401 - JSON
    def file(self, event_id: str, name: str) -> bytes: ...
    def explain(self, event_id: str) -> Any: ...  # noqa: ANN401 - JSON
    def page(self, event_id: str) -> str: ...
    def moment(self, watch: str, stream: str | None, at: str) -> Any: ...  # noqa: ANN401 - JSON
    def moment_page(self, watch: str, stream: str | None, at: str) -> str: ...
    def replay(self, event_id: str, mllm: str | None) -> Any: ...  # noqa: ANN401 - JSON
    def search(self, wanted: dict[str, Any]) -> Any: ...  # noqa: ANN401 - JSON
    def look(self, wanted: dict[str, Any], mllm: str | None) -> Any: ...  # noqa: ANN401 - JSON
    def hold(self, event_id: str, held: bool) -> Any: ...  # noqa: ANN401 - JSON
    def mark(self, event_id: str, kind: str | None, note: str) -> Any: ...  # noqa: ANN401 - JSON
    def missed(self, body: dict[str, str]) -> Any: ...  # noqa: ANN401 - JSON
    def labels(self, wanted: dict[str, Any], limit: int) -> list[dict[str, Any]]: ...
    def export(self, wanted: dict[str, Any]) -> str: ...
    def withdraw(self, number: int) -> None: ...
    def tune(self, slug: str, since_s: float, apply: bool) -> Any: ...  # noqa: ANN401 - JSON
    def wanted(self, slug: str) -> "tuple[WatchConfig, Mapping[str, StreamConfig]]":
        """A watch, and the streams as they are served."""
        ...

    def tested(self, slug: str) -> Any: ...  # noqa: ANN401 - JSON
    def keep_test(self, slug: str, result: dict[str, Any]) -> None: ...


@contextmanager
def door(
    config: Path | None, store: str | None, folder: str | None, url: str | None, key: str | None, as_json: bool
) -> Iterator[Door]:
    """The door that the options name. Raises ConfigError where they name two."""
    if not (config or store or folder):
        yield ApiDoor(remote(url, key, as_json))
        return
    if url or key:
        raise ConfigError(
            "--url and --key name a service, --config, --store and --evidence a store; expected one of both"
        )
    from pipeline.service.beside import StoreBeside, site_beside

    beside = StoreBeside(site_beside(config, store, folder), config, SystemClock())
    try:
        yield StoreDoor(beside, as_json)
    finally:
        beside.close()


class ApiDoor:
    """By the API of a service."""

    def __init__(self, service: Remote) -> None:
        self.as_json = service.as_json
        self._service = service

    def evidence(self, event_id: str) -> Any:  # noqa: ANN401 - JSON
        return self._service.get(path_of("events", event_id, "/evidence"))

    def file(self, event_id: str, name: str) -> bytes:
        data = self._service.get(path_of("events", event_id, f"/{name}"))
        assert isinstance(data, bytes)
        return data

    def explain(self, event_id: str) -> Any:  # noqa: ANN401 - JSON
        return self._service.get(path_of("events", event_id, "/explain"))

    def page(self, event_id: str) -> str:
        return self.file(event_id, "explain.html").decode()

    def moment(self, watch: str, stream: str | None, at: str) -> Any:  # noqa: ANN401 - JSON
        return self._service.get(path_of("watches", watch, "/explain"), stream=stream, at=at)

    def moment_page(self, watch: str, stream: str | None, at: str) -> str:
        data = self._service.get(path_of("watches", watch, "/explain.html"), stream=stream, at=at)
        assert isinstance(data, bytes)
        return data.decode()

    def replay(self, event_id: str, mllm: str | None) -> Any:  # noqa: ANN401 - JSON
        if mllm:
            raise ConfigError("--mllm: a service asks its own; expected it with --config or --store alone")
        return self._service.send("POST", path_of("events", event_id, "/replay"))

    def search(self, wanted: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        return self._service.get("/v1/search", **wanted)

    def look(self, wanted: dict[str, Any], mllm: str | None) -> Any:  # noqa: ANN401 - JSON
        if mllm:
            raise ConfigError("--mllm: a service asks its own; expected it with --config or --store alone")
        given = {name: value for name, value in wanted.items() if value is not None}
        return self._service.send("POST", "/v1/search", given, timeout_s=LOOK_TIMEOUT_S)

    def hold(self, event_id: str, held: bool) -> Any:  # noqa: ANN401 - JSON
        return self._service.send("PUT" if held else "DELETE", path_of("events", event_id, "/hold"))

    def mark(self, event_id: str, kind: str | None, note: str) -> Any:  # noqa: ANN401 - JSON
        return self._service.send("PUT", path_of("events", event_id, "/label"), {"label": kind, "note": note})

    def missed(self, body: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
        return self._service.send("POST", "/v1/labels", body)

    def labels(self, wanted: dict[str, Any], limit: int) -> list[dict[str, Any]]:
        return self._service.all("/v1/labels", limit, **wanted)

    def export(self, wanted: dict[str, Any]) -> str:
        data = self._service.get("/v1/labels.csv", **wanted)
        assert isinstance(data, bytes)
        return data.decode()

    def withdraw(self, number: int) -> None:
        self._service.send("DELETE", path_of("labels", str(number)))

    def tune(self, slug: str, since_s: float, apply: bool) -> Any:  # noqa: ANN401 - JSON
        wanted = {"since_s": since_s, "apply": apply}
        return self._service.send("POST", path_of("watches", slug, "/tune"), wanted, timeout_s=TUNING_S)

    def tested(self, slug: str) -> Any:  # noqa: ANN401 - JSON
        return self._service.get(path_of("watches", slug, "/wordings"))

    def keep_test(self, slug: str, result: dict[str, Any]) -> None:
        self._service.send("POST", path_of("watches", slug, "/wordings/results"), result)

    def wanted(self, slug: str) -> "tuple[WatchConfig, Mapping[str, StreamConfig]]":
        from pipeline.config.entries import parse_stream, parse_watch
        from pipeline.service.board import as_served

        watch = parse_watch(slug, self._service.get(path_of("watches", slug))["spec"])
        specs = {one["slug"]: one["spec"] for one in self._service.all("/v1/watches", MOST_WATCHES)}
        watches = {name: parse_watch(name, spec) for name, spec in specs.items()}
        streams = {one["slug"]: one["spec"] for one in self._service.all("/v1/streams", MOST_STREAMS)}
        # Where a camera is may be hidden, and is not wanted.
        bare = {
            name: {key: value for key, value in spec.items() if not key.endswith("url")}
            for name, spec in streams.items()
        }
        found = {name: parse_stream(name, spec | {"url": "synthetic:"}, {}) for name, spec in bare.items()}
        return watch, as_served(found, watches)


class StoreDoor:
    """By the store of a service, which may be running."""

    def __init__(self, beside: Any, as_json: bool) -> None:  # noqa: ANN401 - a StoreBeside, which loads late
        self.as_json = as_json
        self._beside = beside

    def evidence(self, event_id: str) -> Any:  # noqa: ANN401 - JSON
        from pipeline.api.evidence import evidence_view

        self._beside.event(event_id)
        return evidence_view(self._beside.shelf.of(event_id)).model_dump(mode="json")

    def file(self, event_id: str, name: str) -> bytes:
        shelf, kept = self._beside.shelf, self._beside.shelf.of(event_id)
        if name.startswith("segments/"):
            number = int(name.removeprefix("segments/").removesuffix(".png"))
            data = shelf.segment(kept, number)
        else:
            data = shelf.file(kept, name.partition(".")[0])
        assert isinstance(data, bytes)
        return data

    def explain(self, event_id: str) -> Any:  # noqa: ANN401 - JSON
        from pipeline.api.evidence import explanation_view

        return explanation_view(*self._beside.explained(event_id)).model_dump(mode="json")

    def page(self, event_id: str) -> str:
        from pipeline.evidence.page import page

        explanation, kept = self._beside.explained(event_id)
        return page(explanation, self._beside.shelf, kept)

    def moment(self, watch: str, stream: str | None, at: str) -> Any:  # noqa: ANN401 - JSON
        from pipeline.api.evidence import explanation_view

        return explanation_view(self._beside.moment(watch, stream, at)[0]).model_dump(mode="json")

    def moment_page(self, watch: str, stream: str | None, at: str) -> str:
        from pipeline.evidence.page import page

        explanation, kept = self._beside.moment(watch, stream, at)
        return page(explanation, self._beside.shelf, kept)

    def replay(self, event_id: str, mllm: str | None) -> Any:  # noqa: ANN401 - JSON
        return _plain(asdict(self._beside.replayed(event_id, mllm)))

    def search(self, wanted: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        from pipeline.api.search import search_view

        return search_view(self._beside.found(_terms(wanted))).model_dump(mode="json")

    def look(self, wanted: dict[str, Any], mllm: str | None) -> Any:  # noqa: ANN401 - JSON
        from pipeline.api.search import search_view
        from pipeline.evidence.looking import LookRules

        rules = LookRules(wanted["at_most"], wanted["tokens"])
        return search_view(self._beside.looked_at(_terms(wanted), rules, mllm)).model_dump(mode="json")

    def hold(self, event_id: str, held: bool) -> Any:  # noqa: ANN401 - JSON
        self.evidence(event_id)
        self._beside.shelf.manifests.hold(event_id, "local" if held else None)
        return self.evidence(event_id)

    def mark(self, event_id: str, kind: str | None, note: str) -> Any:  # noqa: ANN401 - JSON
        from pipeline.api.views import event_view

        self._beside.labels.mark(self._beside.event(event_id).event, kind, note, "local")
        return event_view(self._beside.event(event_id)).model_dump(mode="json")

    def missed(self, body: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
        from pipeline.api.labels import label_view

        start, end = (_time(body[name], name) for name in ("start", "end"))
        label = self._beside.labels.missed(body["stream"], body["watch"], start, end, body["note"], "local")
        return label_view(label).model_dump(mode="json")

    def labels(self, wanted: dict[str, Any], limit: int) -> list[dict[str, Any]]:
        from pipeline.api.labels import label_view

        found = self._beside.labels.find(_filter(wanted), limit)
        return [label_view(one).model_dump(mode="json") for one in found]

    def export(self, wanted: dict[str, Any]) -> str:
        from pipeline.api.labels import MOST_EXPORTED, export_of

        found = self._beside.labels.find(_filter(wanted), MOST_EXPORTED)[::-1]
        return export_of(self._beside.history, found)

    def withdraw(self, number: int) -> None:
        if self._beside.labels.one(number) is None:
            raise ConfigError(f"there is no label {number}")
        self._beside.labels.withdraw(number, "local")

    def tune(self, slug: str, since_s: float, apply: bool) -> Any:  # noqa: ANN401 - JSON
        from pipeline.cli.tune_beside import tune_beside

        return tune_beside(self._beside, slug, since_s, apply, SystemClock())

    def tested(self, slug: str) -> Any:  # noqa: ANN401 - JSON
        from pipeline.cli.tune_beside import wordings_beside

        return wordings_beside(self._beside, slug)

    def keep_test(self, slug: str, result: dict[str, Any]) -> None:
        from pipeline.cli.tune_beside import keep_beside

        keep_beside(self._beside, slug, result)

    def wanted(self, slug: str) -> "tuple[WatchConfig, Mapping[str, StreamConfig]]":
        from pipeline.service.board import as_served

        return self._beside.watch(slug), as_served(self._beside.streams, self._beside.watches)


def _terms(wanted: dict[str, Any]) -> Any:  # noqa: ANN401 - SearchTerms, which load late
    from pipeline.evidence.search import terms_of

    stream = wanted["stream"]
    return terms_of(
        wanted["text"], SystemClock().now(), wanted["since"], wanted["until"],
        frozenset({stream}) if stream else None, wanted["watch"], wanted["limit"],
    )  # fmt: skip


def _filter(wanted: dict[str, Any]) -> Any:  # noqa: ANN401 - a LabelFilter, which loads late
    from pipeline.delivery.labels import LabelFilter

    stream = wanted.get("stream")
    return LabelFilter(
        frozenset({stream}) if stream else None, wanted.get("watch"), wanted.get("kind"), wanted.get("event"),
        bool(wanted.get("withdrawn")),
    )  # fmt: skip


def _time(text: str, name: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{name}: {text[:80]!r} is no time; expected ISO 8601 such as 2026-11-29T12:00:00Z") from None
    return as_utc(time)


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    return json.loads(json.dumps(value, default=str))
