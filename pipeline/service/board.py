"""The watches that stand now, by stream."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.build import build_watch
from pipeline.config.site import StreamConfig, WatchConfig
from pipeline.core.selectors import selects
from pipeline.types import WatchQuery, Zone


class WatchBoard:
    """The watches that stand now, by stream: larger priority first, then by slug. Paused ones do not stand."""

    def __init__(self) -> None:
        self._queries: dict[str, tuple[WatchQuery, ...]] = {}

    def on(self, stream_id: str) -> Sequence[WatchQuery]:
        return self._queries.get(stream_id, ())

    def replace(self, streams: Mapping[str, StreamConfig], watches: Mapping[str, WatchConfig]) -> None:
        """Replace all watches, each on the streams that it selects; one of a zone on those that have it."""
        ordered = sorted(watches.items(), key=lambda item: (-item[1].priority, item[0]))
        standing = [
            (frozenset(watch.streams), build_watch(slug, watch), watch.zone)
            for slug, watch in ordered
            if not watch.paused
        ]
        self._queries = {
            slug: tuple(
                query if zone is None else replace(query, zone=Zone(zone, stream.zones[zone]))
                for selectors, query, zone in standing
                if selects(selectors, slug, stream.tags) and (zone is None or zone in stream.zones)
            )
            for slug, stream in streams.items()
        }
