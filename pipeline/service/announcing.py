"""The watches that stand, for sinks that keep a state for each: named for people, open as the store has them."""

from collections.abc import Sequence

from pipeline.config.site import SiteConfig
from pipeline.core.gate import SinkFilter, TagsOf
from pipeline.core.judge import standing
from pipeline.core.selectors import selects
from pipeline.core.state import StreamState
from pipeline.delivery.store import Store, StoredStream
from pipeline.sinks.base import AnnouncedWatch


def standing_watches(site: SiteConfig, store: Store) -> list[AnnouncedWatch]:
    """Every watch on every stream of a site. Blocks; raises StoreUnavailable."""
    stored = dict(store.streams())
    found = []
    for slug, stream in site.streams.items():
        is_open = _open_watches(stored.get(slug))
        for watch, config in site.watches.items():
            if not config.paused and selects(frozenset(config.streams), slug, stream.tags):
                names = stream.display_name or slug, config.display_name or config.question
                found.append(AnnouncedWatch(slug, watch, *names, is_open.get(watch, False)))
    return found


def for_sink(watches: Sequence[AnnouncedWatch], wanted: SinkFilter, tags_of: TagsOf) -> list[AnnouncedWatch]:
    """Those of which a sink gets the events."""
    return [watch for watch in watches if wanted.covers(watch.stream, watch.watch, tags_of)]


def _open_watches(stored: StoredStream | None) -> dict[str, bool]:
    try:
        return {} if stored is None else dict(standing(StreamState.from_json(stored.state).watches))
    except ValueError:
        return {}  # the stream itself refuses such a state, and says so when it starts
