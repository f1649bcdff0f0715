"""Tuning a watch beside its service, or without one: on the store alone."""

from collections.abc import Mapping
from typing import Any

from pipeline.api.desk import merged
from pipeline.api.tune import owned, tune_view
from pipeline.api.wordings import KeptWordings
from pipeline.clock import Clock
from pipeline.config.entries import parse_watch
from pipeline.errors import ConfigError
from pipeline.lab.tested import RESULT, better_wordings, keep_result, results_of
from pipeline.lab.tuning import asked_since, tune_watch
from pipeline.registry.entry import Change, EntryOwned
from pipeline.service.beside import BY, StoreBeside


def tune_beside(beside: StoreBeside, slug: str, since_s: float, apply: bool, clock: Clock) -> dict[str, Any]:
    """The answer of the API's route, and, with `apply`, the watch changed in the registry of the store."""
    watch, registry = beside.watch(slug), beside.registry
    entry = registry.snapshot().entries.get(("watch", slug))
    if apply and (entry is None or entry.file is not None):
        raise EntryOwned(owned(slug, entry.file if entry and entry.file else "the site file"))
    edits = registry.edits(kind="watch", slug=slug)
    found = tune_watch(beside.history, beside.labels, slug, watch, clock.now(), since_s, asked_since(edits))
    revision = None
    if apply and found.changes:
        assert entry is not None
        spec = merged(entry.spec, found.changes)
        parse_watch(slug, spec)
        (after,) = registry.edit([Change("watch", slug, spec, entry.owner, entry.revision)], BY)
        if after is None:
            raise ConfigError(f"there is no watch {slug!r} any more")
        revision = after.revision
    tested = better_wordings(results_of(beside.wording_tests, slug, watch), watch)
    return tune_view(found, revision, tested).model_dump(mode="json")


def wordings_beside(beside: StoreBeside, slug: str) -> dict[str, Any]:
    """The results kept of tests of a watch's wordings, as the API's route gives them."""
    watch = beside.watch(slug)
    kept = results_of(beside.wording_tests, slug, watch)
    return KeptWordings(items=list(kept), better=list(better_wordings(kept, watch))).model_dump(mode="json")


def keep_beside(beside: StoreBeside, slug: str, result: Mapping[str, Any]) -> None:
    """Keep the result of such a test."""
    beside.watch(slug)
    keep_result(beside.wording_tests, slug, RESULT.validate_python(result), BY)
