"""The desired state: the registry's entries over a process's own site, as one site. Entries that cannot be read are
left out, with the reason."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.config.entries import parse_sink, parse_untrusted, parse_watch
from pipeline.config.site import SiteConfig
from pipeline.errors import ConfigError
from pipeline.redact import redact_url, scrub
from pipeline.registry.entry import FILE_OWNER, Change, Kind, RegistryEntry, Spec
from pipeline.registry.registry import Snapshot
from pipeline.types import Json

_T = TypeVar("_T")

COMMAND_LINE = "local"
"""Owner of the watches that a command line names."""

SECTIONS: dict[Kind, str] = {"stream": "streams", "watch": "watches", "sink": "sinks"}
"""The keys of a site file under which entries stand."""


@dataclass(frozen=True, slots=True)
class Desired:
    """A site to run, and why some entries are not in it, by kind and slug."""

    site: SiteConfig
    faults: Mapping[tuple[str, str], str] = field(default_factory=dict)


class Composer:
    """Turns snapshots of a registry into sites, reading again only what changed.

    `site` is what the process was started with, `raw` the same as plain mappings, `path` the file of it if there is
    one, else the command line said it. What the file says is taken from there: the registry shows it without its
    credentials. The watches of a command line are added as anybody's, who may edit them from then on.
    """

    def __init__(self, site: SiteConfig, raw: Mapping[str, object], path: Path | None) -> None:
        self.site = site
        self.raw = raw
        self.path = path
        self._streams = _Reader("stream", site.streams, lambda slug, spec: parse_untrusted(slug, spec, raw))
        self._watches = _Reader("watch", site.watches, parse_watch)
        self._sinks = _Reader("sink", site.sinks, parse_sink)

    @property
    def owner(self) -> str:
        """Owner of what the site file says."""
        return FILE_OWNER + str(self.path or "the command line")

    def changes(self, snapshot: Snapshot) -> list[Change]:
        """The changes that bring the registry to a site file; entries of other files are removed."""
        said = {(kind, slug): spec for kind, slug, spec in self._said()}
        gone = [entry for key, entry in snapshot.entries.items() if entry.file is not None and key not in said]
        return [Change(entry.kind, entry.slug, None, self.owner) for entry in gone] + [
            Change(kind, slug, spec, COMMAND_LINE if self.path is None and kind == "watch" else self.owner)
            for (kind, slug), spec in said.items()
        ]

    def compose(self, snapshot: Snapshot) -> Desired:
        """The site that a snapshot asks for."""
        faults: dict[tuple[str, str], str] = {}
        streams = self._streams.read(snapshot, self.owner, faults)
        watches = self._watches.read(snapshot, self.owner, faults)
        own_sinks = {} if "sinks" in self.raw else self.site.sinks  # nobody wrote those: they are not in the registry
        sinks = {**own_sinks, **self._sinks.read(snapshot, self.owner, faults)}
        return Desired(replace(self.site, streams=streams, watches=watches, sinks=sinks), faults)

    def _said(self) -> Iterator[tuple[Kind, str, Spec]]:
        for kind, section in SECTIONS.items():
            entries = self.raw.get(section)
            for slug, own in entries.items() if isinstance(entries, Mapping) else ():
                spec = {"url": own} if isinstance(own, str) else own
                yield kind, slug, shown_spec(kind, spec)


class _Reader(Generic[_T]):
    """Reads the entries of a kind: those of the site file from there, the others by `parse`, each revision once."""

    def __init__(self, kind: Kind, in_file: Mapping[str, _T], parse: Callable[[str, Spec], _T]) -> None:
        self._kind = kind
        self._in_file = in_file
        self._parse = parse
        self._read: dict[str, tuple[int, _T | None, str]] = {}

    def read(self, snapshot: Snapshot, owner: str, faults: dict[tuple[str, str], str]) -> dict[str, _T]:
        """The entries of a snapshot, by slug; why others cannot be read goes into `faults`."""
        read, found = self._read, dict[str, _T]()
        self._read = {}
        for slug, entry in snapshot.of(self._kind).items():
            if entry.owner == owner and slug in self._in_file:
                found[slug] = self._in_file[slug]
                continue
            known = read.get(slug)
            self._read[slug] = known if known and known[0] == entry.revision else self._parsed(entry)
            _, config, fault = self._read[slug]
            if config is None:
                faults[self._kind, slug] = fault
            else:
                found[slug] = config
        return found

    def _parsed(self, entry: RegistryEntry) -> tuple[int, _T | None, str]:
        if entry.file is not None:
            return entry.revision, None, f"it is written in {entry.file}, which says so no longer"
        try:
            return entry.revision, self._parse(entry.slug, entry.spec), ""
        except ConfigError as error:
            return entry.revision, None, scrub(str(error))


def shown_spec(kind: Kind, spec: Mapping[str, object]) -> dict[str, Json]:
    """A spec as it may be stored and shown: without what may be a credential. The path of a webhook may be one."""
    shown = {key: _shown(key, value) for key, value in spec.items()}
    url = shown.get("url")
    if kind == "sink" and isinstance(url, str) and url.removeprefix("webhook:").startswith(("http://", "https://")):
        shown["url"] = "/".join([*url.split("/")[:3], "***"])
    return shown


_SECRET_KEYS = frozenset({"secret", "password", "username", "api_key", "token", "passphrase"})


def _shown(key: str, value: object) -> Json:
    if isinstance(value, Mapping):
        return {str(name): _shown(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(key, inner) for inner in value]
    if isinstance(value, str):
        if key in _SECRET_KEYS:
            return value if re.fullmatch(r"\$\{[^}]+\}", value) else "***"
        return redact_url(value) if key == "url" else value
    assert value is None or isinstance(value, bool | int | float), f"{key} holds a {type(value).__name__}"
    return value
