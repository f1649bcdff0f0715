"""Labels of a watch as the truth of it: when it should be open, what is to be ignored, and which time was looked at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from pipeline.delivery.history import StoredEvent
from pipeline.delivery.labels import Label, LabelKind
from pipeline.types import Event

MERGE_S = 10.0
"""Intervals in which a watch should be open that lie at most so far apart, in seconds, are one."""
MOST_EVENTS = 100_000
"""Most events of a watch among which those of its labels are found, the newest."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A label as an interval of a stream: `start` and `end` are UTC as POSIX seconds."""

    kind: LabelKind
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Reviewed:
    """The truth of a watch on a stream from `since` to `until`, its first and last labels: intervals in which it should
    be open (apart, in order), those in which an event is wrong by name, and those to ignore. All of the time between is
    taken for looked at. UTC as POSIX seconds."""

    since: float
    until: float
    holds: tuple[tuple[float, float], ...]
    wrong: tuple[tuple[float, float], ...] = ()
    ignored: tuple[tuple[float, float], ...] = ()


def marks_of(labels: Sequence[Label], events: Sequence[StoredEvent]) -> dict[str, list[Mark]]:
    """The intervals of labels by stream. The label of an event is about all of the time from its onset to its clear,
    found among `events` of the watch in the order of commits; where that event is kept no longer, about its hop."""
    found: dict[str, list[Mark]] = {}
    for label, (start, end) in zip(labels, times_of(labels, events), strict=True):
        found.setdefault(label.stream, []).append(Mark(label.kind, start, end))
    return found


def times_of(labels: Sequence[Label], events: Sequence[StoredEvent]) -> list[tuple[float, float]]:
    """The interval that each label is about, UTC as POSIX seconds; see `marks_of`."""
    spans = _open_spans(events)
    found = []
    for label in labels:
        start, end = spans.get(label.event_id or "", (label.start.timestamp(), label.end.timestamp()))
        # Of an event that still stands a person knows as much as had happened by then.
        found.append((start, max(start, label.at.timestamp()) if end is None else end))
    return found


def _open_spans(events: Sequence[StoredEvent]) -> Mapping[str, tuple[float, float | None]]:
    """From the onset to the clear of what each event belongs to, by its id; None while it stands."""
    spans: dict[str, tuple[float, float | None]] = {}
    standing: dict[str, tuple[float, list[str]]] = {}
    for stored in events:
        event = stored.event
        at = _utc_of(event)
        if at is None:
            continue
        before = standing.pop(event.stream_id, None)
        if event.type == "watch.cleared":
            start, ids = before or (at, [])
            spans |= dict.fromkeys([*ids, event.id], (start, max(start, at)))
            continue
        continues = before is not None and event.type != "watch.opened"
        start, ids = before if continues and before else (at, [])
        if before and not continues:  # its clear was not sent, or is kept no longer
            spans |= dict.fromkeys(before[1], (before[0], max(before[0], at)))
        standing[event.stream_id] = (start, [*ids, event.id])
    for start, ids in standing.values():
        spans |= dict.fromkeys(ids, (start, None))
    return spans


def _utc_of(event: Event) -> float | None:
    """When what an event tells began, by the time of capture of its hop; None where it does not say so."""
    captured, data = event.data.get("captured_at"), event.data
    since, hop_s = data.get("onset_s", data.get("cleared_s")), data.get("hop_start_s")
    if not isinstance(captured, str):
        return event.time.timestamp()
    at = datetime.fromisoformat(captured).timestamp()
    return (
        at - (float(hop_s) - float(since)) if isinstance(since, int | float) and isinstance(hop_s, int | float) else at
    )


def reviewed(marks: Sequence[Mark], merge_s: float = MERGE_S) -> Reviewed | None:
    """The truth that the labels of a watch on a stream say; None without any."""
    if not marks:
        return None
    spans = {
        kinds: sorted((one.start, one.end) for one in marks if one.kind in kinds)
        for kinds in (("true", "missed"), ("false",), ("fixture",))
    }
    holds, wrong, ignored = spans.values()
    since, until = min(one.start for one in marks), max(one.end for one in marks)
    return Reviewed(since, until, merge(holds, merge_s), merge(wrong, 0.0), merge(ignored, 0.0))


def merge(spans: Sequence[tuple[float, float]], gap_s: float) -> tuple[tuple[float, float], ...]:
    """Spans in order of their starts, those that overlap or lie at most `gap_s` apart made one."""
    found: list[tuple[float, float]] = []
    for start, end in spans:
        if found and start <= found[-1][1] + gap_s:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return tuple(found)


def with_answers(truth: Reviewed, known_at: NDArray[np.float64], slack_s: float) -> Reviewed:
    """The truth without the intervals of which no answer is kept; `known_at` are UTC of known answers, in order."""

    def answered(span: tuple[float, float]) -> bool:
        first, last = np.searchsorted(known_at, (span[0] - slack_s, span[1] + slack_s))
        return bool(last > first)

    kept = (tuple(filter(answered, spans)) for spans in (truth.holds, truth.wrong, truth.ignored))
    return Reviewed(truth.since, truth.until, *kept)


def placed(truth: Reviewed, began: float, length_s: float) -> Reviewed | None:
    """The truth of a stream on a recording of it that began at a time (UTC as POSIX seconds), in seconds of the
    recording, without an end where it was looked at to its end; None where nobody looked at any of it."""
    since, until = max(0.0, truth.since - began), truth.until - began
    if since >= min(until, length_s):
        return None

    def inside(spans: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
        moved = [(start - began, end - began) for start, end in spans]
        return tuple((max(0.0, start), end) for start, end in moved if end >= 0 and start <= length_s)

    whole = until >= length_s
    return Reviewed(
        since, math.inf if whole else until, inside(truth.holds), inside(truth.wrong), inside(truth.ignored)
    )


def shifted(truth: Reviewed, by_s: float) -> Reviewed:
    """The same truth, so many seconds later."""
    holds, wrong, ignored = (
        tuple((start + by_s, end + by_s) for start, end in spans) for spans in (truth.holds, truth.wrong, truth.ignored)
    )
    return Reviewed(truth.since + by_s, truth.until + by_s, holds, wrong, ignored)


def together(one: Reviewed, other: Reviewed) -> Reviewed:
    """The truth of two watches that ask the same of one stream."""

    def both(
        first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]]
    ) -> Sequence[tuple[float, float]]:
        return sorted((*first, *second))

    return Reviewed(
        min(one.since, other.since),
        max(one.until, other.until),
        merge(both(one.holds, other.holds), 0.0),
        merge(both(one.wrong, other.wrong), 0.0),
        merge(both(one.ignored, other.ignored), 0.0),
    )


def known_at(truth: Reviewed, at: NDArray[np.float64]) -> NDArray[np.int8]:
    """The state of a watch at moments, int8: 1 where it should be open, 0 where not, -1 where nobody looked or what
    happens is to be ignored."""
    known = np.zeros(len(at), np.int8)
    for spans, value in ((truth.ignored, -1), (truth.holds, 1)):
        for start, end in spans:
            known[(at >= start) & (at < end)] = value
    known[~looked_at(truth, at)] = -1
    return known


def looked_at(truth: Reviewed, at: NDArray[np.float64]) -> NDArray[np.bool_]:
    """For each moment, True if people looked at it."""
    return np.asarray((at >= truth.since) & (at < truth.until))


def by_people(truth: Reviewed | None, at: NDArray[np.float64], otherwise: NDArray[np.int8]) -> NDArray[np.int8]:
    """The state of a watch at moments as people say it, and as `otherwise` says where they did not look."""
    return otherwise if truth is None else np.where(looked_at(truth, at), known_at(truth, at), otherwise)
