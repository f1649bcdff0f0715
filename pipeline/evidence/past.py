"""A moment of a watch in the past: the answers kept around it, its event before it, and pictures of that time."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pipeline.clock import as_utc
from pipeline.delivery.history import EventFilter, History, StoredAnswers
from pipeline.errors import ConfigError
from pipeline.evidence.explain import Explanation, PastMoment, explain_moment, nearest
from pipeline.evidence.shelf import KeptEvidence, Shelf
from pipeline.types import WatchQuery

BEFORE, AFTER = timedelta(seconds=120), timedelta(seconds=30)
"""How far around a moment answers are looked at."""
MOST = 1000
_PICTURES_S = 120.0
_NEWEST = 100


def parse_moment(text: str) -> PastMoment:
    """A time of people: ISO 8601, UTC where it has no zone, or seconds of stream. Raises ConfigError for none."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if 0 <= seconds < 1e12:
            return PastMoment(stream_s=seconds)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"at: {text[:80]!r} is no time; expected ISO 8601 such as 2026-11-29T12:00:00Z, or seconds of stream"
        ) from None
    return PastMoment(at=as_utc(at))


def moment_of(
    history: History, shelf: Shelf, query: WatchQuery, stream: str, moment: PastMoment
) -> tuple[Explanation, KeptEvidence | None]:
    """Why a watch fired or did not at a moment, and evidence that shows the stream then, if some is kept."""
    records = _records(history, stream, moment)
    place = nearest(records, moment)
    if place is None:
        return explain_moment(query, stream, moment, ()), None
    at = records[place].time
    start_s = _second(records[place].record.get("start_s"))
    newest = history.events(EventFilter(frozenset({stream}), query.id, until=at + AFTER), _NEWEST)
    # Of decisions of one hop the event is some microseconds older than the record: hops tell which came before.
    before = [one.event for one in newest if _second(one.event.data.get("hop_start_s"), start_s) < start_s]
    explanation = explain_moment(query, stream, moment, records, before[0] if before else None)
    end_s = records[place].record.get("end_s")
    shown = [one for one in shelf.around(stream, at, _PICTURES_S) if _shows(one, end_s)]
    return explanation, shown[-1] if shown else None


def _records(history: History, stream: str, moment: PastMoment) -> Sequence[StoredAnswers]:
    """Records around a moment, oldest first."""
    if moment.at is not None:
        return history.answers_between(stream, moment.at - BEFORE, moment.at + AFTER, MOST)
    assert moment.stream_s is not None
    return history.answers_around(
        stream, moment.stream_s - BEFORE.total_seconds(), moment.stream_s + AFTER.total_seconds(), MOST
    )


def _shows(kept: KeptEvidence, end_s: object) -> bool:
    """True if the segments of an event's evidence include what the model saw then."""
    segments = kept.bundle.segments
    return (
        bool(segments)
        and isinstance(end_s, int | float)
        and segments[0].pts_s[0] <= end_s <= segments[-1].pts_s[-1] + 1.0
    )


def _second(value: object, otherwise: float = 0.0) -> float:
    return float(value) if isinstance(value, int | float) else otherwise
