"""A trial of other settings of a watch: its kept answers judged by its rules as they are and as they might be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pipeline.build import build_watch
from pipeline.config.entries import parse_watch
from pipeline.config.site import WatchConfig
from pipeline.delivery.history import History
from pipeline.errors import ConfigError
from pipeline.lab.kept import KeptSeries, ReadySeries, WouldBeEvent, read_kept
from pipeline.types import Json, WatchQuery

MOST_EVENTS = 500
"""Most events that are listed of each stream; all are counted."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The result for one watch on one stream: the numbers of kept hops and of known answers, the events by its rules as
    they are, and as they might be."""

    watch: str
    stream: str
    hops: int
    known: int
    before: tuple[WouldBeEvent, ...]
    after: tuple[WouldBeEvent, ...]

    def as_json(self) -> dict[str, Json]:
        """Counts, and the events as they might be."""
        return {
            "watch": self.watch,
            "stream": self.stream,
            "hops": self.hops,
            "known": self.known,
            "events_before": len(self.before),
            "events": len(self.after),
            "opened_before": sum(one.kind == "watch.opened" for one in self.before),
            "opened": sum(one.kind == "watch.opened" for one in self.after),
            "found": [one.as_json() for one in self.after[:MOST_EVENTS]],
        }


def otherwise(slug: str, spec: Mapping[str, Json], patch: Mapping[str, Json]) -> tuple[WatchQuery, WatchQuery]:
    """A watch as it is, and as `patch` (null takes a setting back to its default) would have it. Raises ConfigError for
    what kept answers cannot say."""
    now = parse_watch(slug, spec)
    merged = {name: value for name, value in {**spec, **patch}.items() if value is not None}
    then = parse_watch(slug, merged)
    for name in ("question", "count", "choice"):
        if getattr(now, name) != getattr(then, name):
            raise ConfigError(
                f"{name} is another than the answers were given to; try it on recordings:"
                " resadapt watch test QUESTION --on FILE"
            )
    return _armed(slug, now), _armed(slug, then)


def _armed(slug: str, config: WatchConfig) -> WatchQuery:
    """The query as if its profiles were armed: when they were is not kept."""
    return replace(build_watch(slug, config), armed=True)


def what_if(
    history: History,
    pairs: Sequence[tuple[WatchQuery, WatchQuery]],
    now: datetime,
    since_s: float,
    streams: Sequence[str] | None = None,
) -> list[WhatIf]:
    """Judge the kept answers of the last `since_s` seconds again, for watches as they are and as they might be. Raises
    ConfigError where nothing is kept of them."""
    ids = [query.id for query, _ in pairs]
    kept = read_kept(history.answers_since(now - timedelta(seconds=since_s), streams), ids)
    found = [
        _both(stream, series[query.id], query, other)
        for stream, series in sorted(kept.items())
        for query, other in pairs
        if query.id in series
    ]
    if not found:
        raise ConfigError(f"no answers of {', '.join(ids)} are kept of the last {since_s:g} s; see `keep` of the site")
    return found


def _both(stream: str, series: KeptSeries, query: WatchQuery, other: WatchQuery) -> WhatIf:
    ready = ReadySeries(series)
    before, after = (tuple(ready.rejudge(one)) for one in (query, other))
    return WhatIf(query.id, stream, len(series), series.known, before, after)
