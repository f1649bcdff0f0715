"""A store beside a service, or without one: its events, evidence and labels, without the API."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from pipeline.build import build_watch
from pipeline.clock import Clock
from pipeline.config.mllm import MLLMConfig
from pipeline.config.site import SiteConfig, StreamConfig, WatchConfig, load_site, parse_site, read_yaml
from pipeline.config.values import resolve_url
from pipeline.core.selectors import selects
from pipeline.delivery.database import parse_store
from pipeline.delivery.history import StoredEvent
from pipeline.delivery.labels import LabelBook
from pipeline.delivery.store import Store
from pipeline.delivery.wording_tests import WordingTestBook
from pipeline.errors import ConfigError
from pipeline.evidence.explain import Explanation, explain_event
from pipeline.evidence.hashes import model_of
from pipeline.evidence.looking import LookRules, SearchResult, by_looking, by_words
from pipeline.evidence.past import moment_of, parse_moment
from pipeline.evidence.replay import Replay, replay
from pipeline.evidence.search import DisplayNames, EventSearch, SearchTerms
from pipeline.evidence.shelf import KeptEvidence, Shelf
from pipeline.registry.desired import Composer
from pipeline.registry.registry import Registry
from pipeline.service.evidence import files_of
from pipeline.service.opening import start_mllm

BY = "local"
"""Who says what is said on this machine."""


def site_beside(config: Path | None, store: str | None, folder: str | None) -> SiteConfig:
    """The site of a file, or of a store alone, with the folder of its evidence. Raises ConfigError."""
    site = load_site(config) if config else parse_site({})
    if store:
        site = replace(site, store=store)
    if folder:
        site = replace(site, evidence=replace(site.evidence, dir=folder))
    site.evidence.check(site.store)
    url = parse_store(resolve_url(site.store, whole_path=True))
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        raise ConfigError(
            f"there is no store {url.database}; expected what `resadapt serve` or `resadapt run --store` wrote"
        )
    return site


def names_of(site: SiteConfig) -> DisplayNames:
    """The names by which people call the streams and watches of a site."""
    return DisplayNames(
        {slug: one.display_name for slug, one in site.streams.items()},
        {slug: one.display_name for slug, one in site.watches.items()},
    )


class StoreBeside:
    """A store that is read, and may be labelled, while a service runs on it or none does. Close it."""

    def __init__(self, site: SiteConfig, config: Path | None, clock: Clock) -> None:
        self.site = site
        self._config = config
        self._clock = clock
        self._store = Store(resolve_url(site.store, whole_path=True), clock)
        self.history = self._store.history
        self.registry = Registry(self._store.database, clock)
        self.shelf = Shelf(self._store.database, files_of(site))
        self.labels = LabelBook(self._store.database, clock)
        self.wording_tests = WordingTestBook(self._store.database, clock)

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def event(self, event_id: str) -> StoredEvent:
        """An event. Raises ConfigError where there is none."""
        found = self._store.history.event(event_id) if "\0" not in event_id else None
        if found is None:
            raise ConfigError(f"there is no event {event_id[:80]!r}, or it is kept no longer")
        return found

    def explained(self, event_id: str) -> tuple[Explanation, KeptEvidence | None]:
        """Why an event was sent, and its evidence if some is kept."""
        stored = self.event(event_id)
        kept = self.shelf.find(event_id)
        missing = "" if kept else "No evidence of it is kept: it was written without, or has gone by age or room."
        return explain_event(stored.event, kept.bundle if kept else None, stored.label, missing), kept

    def watch(self, slug: str) -> WatchConfig:
        """A watch of the site file or the registry. Raises ConfigError where there is none."""
        watch = self._wanted.watches.get(slug)
        if watch is None:
            known = ", ".join(sorted(self._wanted.watches)[:10]) or "none"
            raise ConfigError(f"there is no watch {slug[:80]!r}; there are {known}")
        return watch

    @property
    def streams(self) -> Mapping[str, StreamConfig]:
        """The streams of the site file and the registry."""
        return self._wanted.streams

    @property
    def watches(self) -> Mapping[str, WatchConfig]:
        """The watches of both."""
        return self._wanted.watches

    def moment(self, slug: str, stream: str | None, at: str) -> tuple[Explanation, KeptEvidence | None]:
        """Why a watch fired, or did not, at a moment."""
        watch = self.watch(slug)
        streams = self._wanted.streams
        standing = [
            name
            for name, one in streams.items()
            if selects(frozenset(watch.streams), name, one.tags, watch.zone, one.zones)
        ]
        if not stream and len(standing) != 1:
            few = ", ".join(sorted(standing)[:10]) or "none"
            raise ConfigError(f"--stream: the watch {slug} stands on {few}; name one")
        query = build_watch(slug, watch)
        return moment_of(self._store.history, self.shelf, query, stream or standing[0], parse_moment(at))

    def replayed(self, event_id: str, use: str | None = None) -> Replay:
        """Ask the site's MLLM again, or the one that `use` names, which is started for it."""
        self.event(event_id)
        kept = self.shelf.of(event_id)
        return asyncio.run(self._replay(kept, parse_site({"mllm": use}).mllm if use else self.site.mllm))

    def found(self, terms: SearchTerms) -> SearchResult:
        """The events that have words of a text."""
        return by_words(self._search, terms)

    def looked_at(self, terms: SearchTerms, rules: LookRules, use: str | None = None) -> SearchResult:
        """The events whose snapshots show it, by the site's MLLM or the one that `use` names, which is started for
        it."""
        return asyncio.run(self._look(terms, rules, parse_site({"mllm": use}).mllm if use else self.site.mllm))

    async def _look(self, terms: SearchTerms, rules: LookRules, config: MLLMConfig) -> SearchResult:
        mllm = await start_mllm(config, self._clock)
        try:
            return await by_looking(self._search, self.shelf, terms, rules, mllm, self._clock)
        finally:
            await mllm.close()

    @property
    def _search(self) -> EventSearch:
        return EventSearch(self._store.history, self.labels, self.shelf.manifests, names_of(self._wanted))

    async def _replay(self, kept: KeptEvidence, config: MLLMConfig) -> Replay:
        mllm = await start_mllm(config, self._clock)
        try:
            return await replay(self.shelf, kept, mllm, lambda: model_of(config, mllm.info))
        finally:
            await mllm.close()

    @cached_property
    def _wanted(self) -> SiteConfig:
        """The site of the site file and the registry's entries together."""
        raw = read_yaml(self._config) if self._config else {}
        path = self._config.resolve() if self._config else None
        found = Composer(self.site, raw, path).compose(self.registry.snapshot()).site
        return replace(
            found, streams={**self.site.streams, **found.streams}, watches={**self.site.watches, **found.watches}
        )
