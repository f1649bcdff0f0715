"""The watches that stand now, by stream."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from pipeline.build import build_watch
from pipeline.config.site import StreamConfig, WatchConfig
from pipeline.core.cropping import crop_of, with_crop
from pipeline.core.selectors import selects
from pipeline.registry.registry import Snapshot
from pipeline.types import WatchQuery, Zone


class WatchBoard:
    """The watches that stand now, by stream: larger priority first, then by slug. Paused ones do not stand."""

    def __init__(self) -> None:
        self._queries: dict[str, tuple[WatchQuery, ...]] = {}

    def on(self, stream_id: str) -> Sequence[WatchQuery]:
        return self._queries.get(stream_id, ())

    def replace(
        self, streams: Mapping[str, StreamConfig], watches: Mapping[str, WatchConfig], armed: Collection[str] = ()
    ) -> None:
        """Replace all watches, each on the streams that it selects; one of a zone on those that have it. Those that
        name profiles are armed while one of these is among `armed`. All of a stream have the crop that serves them, if
        it is to have one."""
        ordered = sorted(watches.items(), key=lambda item: (-item[1].priority, item[0]))
        standing = [
            (frozenset(watch.streams), with_arms(build_watch(slug, watch), armed), watch.zone)
            for slug, watch in ordered
            if not watch.paused
        ]
        self._queries = {}
        for slug, stream in streams.items():
            queries = tuple(
                query if zone is None else replace(query, zone=Zone(zone, stream.zones[zone]))
                for selectors, query, zone in standing
                if selects(selectors, slug, stream.tags, zone, stream.zones)
            )
            self._queries[slug] = with_crop(queries) if stream.crop == "zones" else queries


def as_served(streams: Mapping[str, StreamConfig], watches: Mapping[str, WatchConfig]) -> dict[str, StreamConfig]:
    """The streams for a trial of one of their watches alone: shown whole where all of them together have no crop."""
    board = WatchBoard()
    board.replace(streams, watches)
    return {
        slug: stream if crop_of(board.on(slug)) else replace(stream, crop="none") for slug, stream in streams.items()
    }


def with_arms(query: WatchQuery, armed: Collection[str]) -> WatchQuery:
    """The query, armed or not by its profiles."""
    profiles = query.rules.profiles
    return query if not profiles or set(profiles) & set(armed) else replace(query, armed=False)


def armed_profiles(own: Collection[str], snapshot: Snapshot) -> tuple[str, ...]:
    """The profiles that are armed: those of the site file, unless somebody has said otherwise since."""
    said = {slug: entry.spec.get("armed") is True for slug, entry in snapshot.of("profile").items()}
    return tuple(sorted({slug for slug in own if said.get(slug, True)} | {slug for slug, on in said.items() if on}))
