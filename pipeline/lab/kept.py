"""Back-test on kept answers: what a watch would have done with other thresholds, durations or schedules. Nobody is
asked again; the same pure rules judge, and what certainly decides nothing is passed over."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, pairwise
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.core.ruling import GAP_S, Ruling, Vote, WatchState, disarm, disarmed, is_sent, rule_on, tick, vote_of
from pipeline.delivery.history import StoredAnswers
from pipeline.errors import ConfigError
from pipeline.types import Answer, Json, WatchQuery

MOST_HOPS = 2_000_000
"""Most hops of one back-test: a month of one stream. More are refused by name."""


@dataclass(frozen=True, slots=True)
class KeptSeries:
    """The answers of one watch on one stream, hop by hop: starts in stream seconds, UTC of capture as POSIX seconds,
    scores and masses (0 where it was not asked), and values, None where there is none."""

    start_s: NDArray[np.float64]
    at: NDArray[np.float64]
    score: NDArray[np.float64]
    mass: NDArray[np.float64]
    values: tuple[str | None, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def known(self) -> int:
        """Answers that say something."""
        return int((self.mass >= 0.5).sum())

    def answer(self, watch_id: str, number: int) -> Answer:
        """The answer of a hop."""
        return Answer(watch_id, float(self.score[number]), float(self.mass[number]), value=self.values[number])


@dataclass(frozen=True, slots=True)
class WouldBeEvent:
    """An event that would have been sent: its type, when (stream seconds, UTC), since when, and by which rule."""

    kind: str
    at_s: float
    at: datetime
    since_s: float
    ruling: Ruling

    def as_json(self) -> dict[str, Json]:
        """For people and programs."""
        return {
            "type": self.kind,
            "at_s": self.at_s,
            "captured_at": self.at.isoformat(),
            "since_s": self.since_s,
            "rule": self.ruling.as_json(),
        }


def read_kept(records: Iterable[StoredAnswers], watch_ids: Sequence[str]) -> dict[str, dict[str, KeptSeries]]:
    """The kept answers of some watches, by stream and watch, from records in the order of commits. Raises ConfigError
    for more than MOST_HOPS."""
    hops: dict[str, _Columns] = {}
    for count, stored in enumerate(records, 1):
        if count > MOST_HOPS:
            raise ConfigError(f"more than {MOST_HOPS} hops are kept of that time; give a shorter one, or fewer streams")
        columns = hops.get(stored.stream_id)
        if columns is None:
            columns = hops[stored.stream_id] = _Columns(watch_ids)
        columns.add(stored)
    return {stream: columns.series() for stream, columns in hops.items()}


_BATCH = 20
"""Records that are held as such until they are put into columns: so few that they are gone before the garbage collector
takes notice of them."""

_NUMBER = int, float  # made once: a union would be made for each record

_Answer: TypeAlias = Sequence[float]
"""A kept answer: score, mass and marks. Behind them there may be its value, which is text and read apart."""

_NOTHING: _Answer = (0.5, 0.0, 0)
"""The answer to a watch that was not asked."""

_NUMBERS = 3
"""Numbers of a kept answer: score, mass and marks; what comes behind them is its value."""


class _Columns:
    """The answers of a stream to some watches, column by column. Records are numbers by the million, so that they are
    let go in batches, and each batch is taken apart by functions of the library rather than line by line."""

    def __init__(self, watch_ids: Sequence[str]) -> None:
        self._ids = list(watch_ids)
        self._pick = _picker(self._ids)
        self._start_s, self._at = array("d"), array("d")
        self._waiting: list[Mapping[str, _Answer]] = []
        self._said: list[NDArray[np.float64]] = []  # scores and masses [hops, watches, 2]
        self._values: dict[str, dict[int, str]] = {watch_id: {} for watch_id in self._ids}
        self._asked: set[str] = set()
        self._put = 0

    def add(self, stored: StoredAnswers) -> None:
        """One record; one that is no record of a hop is passed over."""
        record = stored.record
        at, start_s, answers = record.get("at"), record.get("start_s"), record.get("answers")
        if isinstance(start_s, _NUMBER) and isinstance(answers, dict):
            when = datetime.fromisoformat(at) if isinstance(at, str) else stored.time
            self._start_s.append(start_s)
            self._at.append(when.timestamp())
            self._waiting.append(answers)
            if len(self._waiting) == _BATCH:
                self._flush()

    def series(self) -> dict[str, KeptSeries]:
        """The series of each watch that was asked at least once."""
        self._flush()
        start_s, at = np.array(self._start_s), np.array(self._at)
        said = np.concatenate(self._said or [np.empty((0, 0, 2))])
        found = {}
        for place, watch_id in enumerate(self._ids):
            if watch_id in self._asked:
                values: list[str | None] = [None] * len(start_s)
                for number, value in self._values[watch_id].items():
                    values[number] = value
                score, mass = said[:, place].T.copy()
                found[watch_id] = KeptSeries(start_s, at, score, mass, tuple(values))
        return found

    def _flush(self) -> None:
        if not self._waiting or not self._ids:
            return
        flat, shape, width = self._answers(), (len(self._waiting), len(self._ids)), _NUMBERS
        plain = flat
        if set(map(len, flat)) != {_NUMBERS}:
            plain, width = [one[:2] for one in flat], 2
            for index in (index for index, one in enumerate(flat) if len(one) > _NUMBERS):
                number, place = divmod(index, shape[1])
                self._values[self._ids[place]][self._put + number] = str(flat[index][_NUMBERS])
        numbers = np.fromiter(chain.from_iterable(plain), np.float64, len(flat) * width)
        self._said.append(numbers.reshape(*shape, width)[..., :2].copy())
        self._put += shape[0]
        self._waiting = []

    def _answers(self) -> list[_Answer]:
        """The answers to each watch in each waiting hop; it takes down which watches were asked."""
        with suppress(KeyError):
            found = list(chain.from_iterable(map(self._pick, self._waiting)))
            self._asked.update(self._ids)
            return found
        self._asked.update(*(answers.keys() & set(self._ids) for answers in self._waiting))
        return [answers.get(watch_id, _NOTHING) for answers in self._waiting for watch_id in self._ids]


def _picker(names: Sequence[str]) -> Callable[[Mapping[str, _Answer]], Sequence[_Answer]]:
    """A function that gives the answers to some watches, in their order. It raises KeyError where one was not asked."""
    if len(names) < 2:
        return lambda answers: [answers[name] for name in names]
    return itemgetter(*names)


class ReadySeries:
    """A series made ready to be judged by one query after another: places are searched for by the ten thousand, which
    lists do faster than arrays. For a short time: lists take four times the memory."""

    def __init__(self, series: KeptSeries) -> None:
        self.series = series
        self.known = np.flatnonzero(series.mass >= 0.5)
        self.known_places: list[int] = self.known.tolist()
        self.starts_s: list[float] = series.start_s.tolist()

    def rejudge(self, query: WatchQuery) -> list[WouldBeEvent]:
        """The events that a watch would have sent, had it stood as `query` says from the first kept hop on."""
        return _Judging(self, query).run()


def rejudge(series: KeptSeries, query: WatchQuery) -> list[WouldBeEvent]:
    """The events that a watch would have sent, had it stood as `query` says; ReadySeries judges by several queries."""
    return ReadySeries(series).rejudge(query)


def rejudge_plainly(series: KeptSeries, query: WatchQuery) -> list[WouldBeEvent]:
    """The same, hop by hop: what `rejudge` has to agree with."""
    state, found = WatchState(), list[WouldBeEvent]()
    for number in range(len(series)):
        at_s, at = float(series.start_s[number]), datetime.fromtimestamp(series.at[number], UTC)
        if rule := disarmed(query, at):
            state, ruling = disarm(state, rule, at_s)
        else:
            state, ruling = _decide(state, query, series.answer(query.id, number), at_s)
        if is_sent(query, ruling):
            assert ruling.kind is not None
            found.append(WouldBeEvent(ruling.kind, at_s, at, ruling.since_s, ruling))
    return found


def _decide(state: WatchState, query: WatchQuery, answer: Answer, at_s: float) -> tuple[WatchState, Ruling]:
    state, ruling = rule_on(state, query, answer, at_s)
    if ruling.kind is None:
        state, timed = tick(state, query, at_s)
        ruling = timed or ruling
    return state, ruling


class _Judging:
    """One pass over a series, from one hop that may decide something to the next."""

    def __init__(self, ready: ReadySeries, query: WatchQuery) -> None:
        series = ready.series
        self._series, self._query = series, query
        known = series.mass >= 0.5
        high, low = known & (series.score >= query.open_at), known & (series.score <= query.clear_at)
        absent = bool(query.rules.absent_s)
        self._known, self._known_places, self._starts_s = ready.known, ready.known_places, ready.starts_s
        self._voted: dict[int, Vote] = {}
        # Hops that may confirm something: enough of the last known answers agree with theirs.
        self._confirming = self._often(low if absent else high)
        self._refuting = self._often(high if absent else low)
        self._gap_s = max(GAP_S, 3 * query.every_s)
        gaps = np.diff(series.start_s[self._known]) > self._gap_s
        self._gaps = self._known[1:][gaps].tolist()
        self._opens = np.flatnonzero(low if absent else high).tolist()
        self._others: dict[str | None, list[int]] = {}
        self._from = 0
        self._state = WatchState()
        self._found: list[WouldBeEvent] = []

    def run(self) -> list[WouldBeEvent]:
        """The events, in order."""
        for start, end, armed in self._stretches():
            if not armed:
                self._state, ruling = disarm(
                    self._state, disarmed(self._query, self._at(start)) or "schedule", self._s(start)
                )
                self._note(start, ruling)
                continue
            self._from = start
            number = self._next(start)
            while number < end:
                self._visit(number)
                number = self._next(number + 1)
        return self._found

    def _stretches(self) -> Iterable[tuple[int, int, bool]]:
        """Stretches of hops in which the watch is, or is not, armed. Schedules are in whole minutes."""
        count, query = len(self._series), self._query
        if not count:
            return []
        if query.armed and query.rules.schedule is None:
            return [(0, count, True)]

        @lru_cache(None)
        def armed(minute: int) -> bool:
            return disarmed(query, datetime.fromtimestamp(minute * 60, UTC)) is None

        on = np.array([armed(minute) for minute in (self._series.at // 60).astype(int).tolist()])
        edges = [0, *(np.flatnonzero(on[1:] != on[:-1]) + 1).tolist(), count]
        return [(a, b, bool(on[a])) for a, b in pairwise(edges)]

    def _next(self, number: int) -> int:
        """The next hop, from `number` on, that may decide something."""
        state, query, last = self._state, self._query, len(self._series)
        if number >= last:
            return number
        if state.pending_s is not None:
            found = self._next_while_pending(number, state.pending_s)
        elif query.rules.choice:
            found = _first(self._opening(state.value), number, last)
        else:
            if not state.is_open and not query.rules.wait_s and state.shut_until_s is not None:
                number = max(number, self._place(state.shut_until_s))  # nothing opens before its cooldown ends
            found = _first(self._refuting if state.is_open else self._confirming, number, last)
        for due_s in self._due_s():
            found = min(found, max(number, self._place(due_s)))
        return found

    def _next_while_pending(self, number: int, pending_s: float) -> int:
        """The next hop that may end a wait: one that speaks against it, one behind a gap, or one that confirms it once
        it has lasted."""
        query, last = self._query, len(self._series)
        against = self._opening(self._state.pending_value) if query.rules.choice else self._refuting
        lasted = max(number, self._place(pending_s + query.rules.wait_s))
        return min(_first(against, number, last), _first(self._gaps, number, last), _first(self._opens, lasted, last))

    def _often(self, agrees: NDArray[np.bool_]) -> list[int]:
        """Hops that agree and have, with themselves, k agreeing ones among the last n known, whatever came between."""
        k, n = self._query.confirm
        known = agrees[self._known]
        counts = np.cumsum(known)
        counts[n:] = counts[n:] - counts[:-n]
        places: list[int] = self._known[known & (counts >= k)].tolist()
        return places

    def _place(self, at_s: float) -> int:
        """The first hop that starts at a stream second or later."""
        return bisect_left(self._starts_s, at_s - 1e-9)

    def _opening(self, value: str | None) -> list[int]:
        """Hops whose answer opens for another value."""
        if value not in self._others:
            values = self._series.values
            self._others[value] = [place for place in self._confirming if values[place] != value]
        return self._others[value]

    def _due_s(self) -> Iterable[float]:
        """When time alone decides something next."""
        state, rules = self._state, self._query.rules
        if not state.is_open or state.open_s is None or state.told_s is None:
            return []
        due = [state.open_s + rules.escalate.after_s] if rules.escalate and not state.escalated else []
        return [*due, state.told_s + rules.update_every_s] if rules.update_every_s else due

    def _visit(self, number: int) -> None:
        self._state = self._state.with_votes(self._votes(number))
        before = self._state.transitions
        answer = self._series.answer(self._query.id, number)
        self._state, ruling = _decide(self._state, self._query, answer, self._s(number))
        if self._state.transitions != before and not self._state.votes:
            self._from = number + 1
        self._note(number, ruling)

    def _votes(self, number: int) -> tuple[Vote, ...]:
        """The votes that stand before a hop: the last known answers since the state changed, and, while a duration is
        waited for, since the last gap."""
        query = self._query
        lo, hi = bisect_left(self._known_places, self._from), bisect_left(self._known_places, number)
        waits = query.rules.wait_s and (query.rules.choice or not self._state.is_open)
        gap_s = self._gap_s if waits else float("inf")
        votes: list[Vote] = []
        for place in self._known_places[max(lo, hi - query.confirm[1]) : hi]:
            if votes and self._s(place) - votes[-1].start_s > gap_s:
                votes = []
            votes.append(self._vote(place))
        return tuple(votes)

    def _vote(self, place: int) -> Vote:
        """The vote of a known hop, made once: neighbouring windows share it."""
        vote = self._voted.get(place)
        if vote is None:
            answer = self._series.answer(self._query.id, place)
            vote = self._voted[place] = vote_of(self._query, answer, self._s(place))
        return vote

    def _note(self, number: int, ruling: Ruling) -> None:
        if is_sent(self._query, ruling):
            assert ruling.kind is not None
            self._found.append(WouldBeEvent(ruling.kind, self._s(number), self._at(number), ruling.since_s, ruling))

    def _s(self, number: int) -> float:
        return self._starts_s[number]

    def _at(self, number: int) -> datetime:
        return datetime.fromtimestamp(self._series.at[number], UTC)


def _first(places: Sequence[int], number: int, otherwise: int) -> int:
    index = bisect_left(places, number)
    return places[index] if index < len(places) else otherwise
