"""Labels of a watch as the truth of it: when it should be open, what is to be ignored, and which time was looked at."""

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
    spans = _open_spans(events)
    found: dict[str, list[Mark]] = {}
    for label in labels:
        start, end = spans.get(label.event_id or "", (label.start.timestamp(), label.end.timestamp()))
        # Of an event that still stands a person knows as much as had happened by then.
        end = max(start, label.at.timestamp()) if end is None else end
        found.setdefault(label.stream, []).append(Mark(label.kind, start, end))
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
