"""Tuning of a watch from a store: its labels, the events that they are about, and its kept answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from pipeline.build import build_watch
from pipeline.config.site import WatchConfig
from pipeline.delivery.history import EventFilter, History
from pipeline.delivery.labels import KINDS, Label, LabelBook, LabelFilter, LabelKind
from pipeline.errors import ConfigError
from pipeline.lab.kept import KeptSeries, read_kept
from pipeline.lab.truths import MOST_EVENTS, Reviewed, marks_of, reviewed, with_answers
from pipeline.lab.tune import SLACK_S, Tuning, tune
from pipeline.lab.tune_search import ReviewedSeries
from pipeline.registry.entry import Edit
from pipeline.types import Json, WatchQuery

MOST_LABELS = 5000
"""Most labels that are used, the newest."""
LEAD_S = 600.0
"""Seconds before the first label from which answers are judged, so that the watch stands as it would."""
MEANING = ("question", "zone", "count", "choice")
"""Settings of a watch that make its answers answers to something else."""


@dataclass(frozen=True, slots=True)
class WatchTuning:
    """The result for a watch: the labels by kind, how many of the times at which it should be open have no answers
    kept, the streams, seconds taken for looked at, kept hops, and the search."""

    watch: str
    labels: Mapping[LabelKind, int]
    without_answers: int
    streams: tuple[str, ...]
    reviewed_s: float
    hops: int
    tuning: Tuning

    @property
    def changes(self) -> dict[str, Json]:
        """The settings that the proposal changes, as a patch of the watch."""
        proposed = self.tuning.proposed
        return proposed.changes(self.tuning.now) if proposed else {}

    def as_json(self) -> dict[str, Json]:
        """For people and programs."""
        return {
            "watch": self.watch,
            "labels": {str(kind): count for kind, count in self.labels.items()},
            "without_answers": self.without_answers,
            "streams": list(self.streams),
            "reviewed_s": round(self.reviewed_s, 3),
            "hops": self.hops,
            **self.tuning.as_json(),
        }


def tune_watch(
    history: History,
    labels: LabelBook,
    slug: str,
    watch: WatchConfig,
    now: datetime,
    since_s: float,
    asked_since: datetime | None = None,
    streams: frozenset[str] | None = None,
) -> WatchTuning:
    """Search for better settings of a watch by its labels and the answers kept of the last `since_s` seconds, none from
    before it was asked what it is asked now. Raises ConfigError where there is nothing to search with."""
    if watch.choice:
        raise ConfigError(f"choice: {slug} is about one of some values; tune takes watches that are open or not")
    found = labels.find(LabelFilter(streams, slug), MOST_LABELS)
    if not found:
        raise ConfigError(
            f"there is no label of the watch {slug}; expected some: `resadapt event mark ID true|false|fixture` says of"
            " an event whether it was right, `resadapt watch missed` names what it missed"
        )
    query = replace(build_watch(slug, watch), armed=True)
    begin = now - timedelta(seconds=since_s)
    begin = max(begin, asked_since) if asked_since else begin
    material, without = _material(history, found, query, begin, streams)
    counts = {kind: sum(one.kind == kind for one in found) for kind in KINDS}
    return WatchTuning(
        slug,
        counts,
        without,
        tuple(sorted(material)),
        sum(one.truth.until - one.truth.since for one in material.values()),
        sum(len(one.series) for one in material.values()),
        tune(query, [material[stream] for stream in sorted(material)]),
    )


def _material(
    history: History, labels: Sequence[Label], query: WatchQuery, begin: datetime, streams: frozenset[str] | None
) -> tuple[dict[str, ReviewedSeries], int]:
    """By stream, the reviewed part of its kept answers; and how many truths have no answers."""
    events = history.events(EventFilter(streams, query.id), MOST_EVENTS)[::-1]
    truths = {stream: truth for stream, marks in marks_of(labels, events).items() if (truth := reviewed(marks))}
    first = min(truth.since for truth in truths.values()) - LEAD_S
    begin = max(begin, datetime.fromtimestamp(first, UTC))
    kept = read_kept(history.answers_since(begin, sorted(truths)), [query.id])
    found: dict[str, ReviewedSeries] = {}
    without = 0
    for stream, truth in truths.items():
        series = kept.get(stream, {}).get(query.id)
        part = None if series is None else _part(series, truth)
        if part is None:
            without += len(truth.holds)
            continue
        found[stream] = part
        without += len(truth.holds) - len(part.truth.holds)
    if not found:
        raise ConfigError(
            f"no answers of {query.id} are kept of the time that its labels are about, since it was asked what it is"
            " asked now; see `keep` of the site"
        )
    return found, without


def _part(series: KeptSeries, truth: Reviewed) -> ReviewedSeries | None:
    """The answers of the time that was looked at, and its truth; None where there are none."""
    part = cut(series, truth)
    there = truth_there(truth, part.at[part.mass >= 0.5])
    return None if there is None else ReviewedSeries(part, there)


def cut(series: KeptSeries, truth: Reviewed) -> KeptSeries:
    """The answers of the time that was looked at, with some before it."""
    inside = np.flatnonzero((series.at >= truth.since - LEAD_S) & (series.at <= truth.until + SLACK_S))
    chosen = slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)
    return KeptSeries(
        series.start_s[chosen],
        series.at[chosen],
        series.score[chosen],
        series.mass[chosen],
        series.values[chosen],
    )


def truth_there(truth: Reviewed, at: NDArray[np.float64]) -> Reviewed | None:
    """The truth of the time of some answers; None where it has none of them."""
    known = np.sort(at)
    kept = with_answers(truth, known, SLACK_S)
    looked = known[(known >= truth.since - SLACK_S) & (known <= truth.until + SLACK_S)]
    if not len(looked):
        return None
    since, until = max(kept.since, float(looked[0])), min(kept.until, float(looked[-1]))
    return replace(kept, since=min(since, until), until=max(since, until))


def asked_since(edits: Sequence[Edit]) -> datetime | None:
    """Since when a watch has been asked what it is asked now, by its edits, newest first; None: as far as is known,
    always."""
    for edit in edits:
        if edit.before is None or edit.after is None:
            return edit.at
        if any(edit.before.get(name) != edit.after.get(name) for name in MEANING):
            return edit.at
    return None
