"""One watch, one answer: what its rules decide, and why. Pure, in stream time.

A closed watch opens on k of the last n known answers, then on its other rules in turn: `hold_s` or `absent_s`,
`cooldown_s`, `max_per_hour`. An open one clears on k of n at the lower threshold. Of a choice the values take the place
of open and closed. Answers that are unknown decide nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from pipeline.core.schedule import armed_at
from pipeline.rules import Emission, Rules
from pipeline.types import Answer, Json, WatchQuery

HOUR_S = 3600.0

GAP_S = 10.0
"""While a duration runs, known answers lie at most so far apart in stream seconds, or three askings: behind a longer
gap it begins anew, since nobody knows what was meanwhile."""

RuleName = Literal[
    "unknown",
    "thresholds",
    "confirm",
    "hold_s",
    "absent_s",
    "cooldown_s",
    "max_per_hour",
    "choice",
    "update_every_s",
    "escalate",
    "schedule",
    "profiles",
]
"""The rule that decided: named as in a site file where it has a setting."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One known answer: the start of its hop in stream seconds, which thresholds its score reached, and its value."""

    start_s: float
    opens: bool
    clears: bool
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """The facts by which the events of an open watch are sent to sinks: the severity that it opened with, and, once it
    was escalated, the severity since then and the sink that the escalation names."""

    opened: str
    escalated: str | None = None
    sink: str | None = None

    @classmethod
    def of(cls, rules: Rules, escalated: bool) -> "Routing":
        """The routing of a watch with these rules."""
        if not (rules.escalate and escalated):
            return cls(rules.severity)
        return cls(rules.severity, rules.escalate.severity, rules.escalate.sink)

    def as_json(self) -> dict[str, Json]:
        """As it stands in an event's data."""
        if self.escalated is None:
            return {"severity": self.opened}
        data: dict[str, Json] = {"severity": self.escalated, "opened_severity": self.opened, "escalated": True}
        if self.sink is not None:
            data["sink"] = self.sink
        return data


@dataclass(frozen=True, slots=True)
class WatchState:
    """The state of a watch on a stream; all seconds are of the stream. `transitions` counts its changes ever;
    `shut_until_s` ends the cooldown.

    `pending_s` is since when it has been confirmed without having lasted long enough, `pending_value` what a choice
    then becomes; `value` what a choice is. `open_s` is when it opened, `told_s` when its newest event was, `escalated`
    whether it has been; `sent_s` are the events of the last hour that `max_per_hour` counts. `routing` is where its
    events go while it is open, so that its end goes there when its rules are gone.
    """

    is_open: bool = False
    votes: tuple[Vote, ...] = ()
    transitions: int = 0
    onset_s: float | None = None
    shut_until_s: float | None = None
    pending_s: float | None = None
    pending_value: str | None = None
    value: str | None = None
    open_s: float | None = None
    told_s: float | None = None
    escalated: bool = False
    sent_s: tuple[float, ...] = ()
    routing: Routing | None = None

    def with_votes(self, votes: tuple[Vote, ...]) -> "WatchState":
        """The state with other votes: what `replace` does, in a third of the time, for every answer."""
        return WatchState(
            self.is_open, votes, self.transitions, self.onset_s, self.shut_until_s, self.pending_s, self.pending_value,
            self.value, self.open_s, self.told_s, self.escalated, self.sent_s, self.routing,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ruling:
    """A decision and its reason: the rule, the numbers that it weighed, and, if the watch's state changed, the event's
    type and the stream second since which that holds. `escalation` marks an event of a higher severity."""

    rule: RuleName
    numbers: Mapping[str, Json] = field(default_factory=dict)
    kind: str | None = None
    since_s: float = 0.0
    escalation: bool = False

    def as_json(self) -> dict[str, Json]:
        """As it stands in an event's data."""
        return {"name": self.rule, **self.numbers}

    def words(self) -> str:
        """As a sentence for people."""
        told = ", ".join(f"{name} {_plain(value)}" for name, value in self.numbers.items())
        done = {None: "nothing changed", "watch.opened": "it opened", "watch.cleared": "it cleared"}
        return f"{done.get(self.kind, 'it was updated')} by the rule {self.rule}" + (f" ({told})" if told else "")


def _plain(value: Json) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def disarmed(query: WatchQuery, at: datetime) -> RuleName | None:
    """The rule by which a watch is not armed at a moment (UTC of capture); None if it is."""
    if not query.armed:
        return "profiles"
    schedule = query.rules.schedule
    return "schedule" if schedule is not None and not armed_at(schedule, at) else None


def disarm(state: WatchState, rule: RuleName, at_s: float) -> tuple[WatchState, Ruling]:
    """The state of a watch that is not armed: shut. What it was about to become is forgotten, not what it has sent."""
    n = state.transitions + state.is_open
    after = WatchState(transitions=n, shut_until_s=state.shut_until_s, sent_s=state.sent_s)
    return after, Ruling(rule, {}, "watch.cleared" if state.is_open else None, at_s)


def rule_on(state: WatchState, query: WatchQuery, answer: Answer, at_s: float) -> tuple[WatchState, Ruling]:
    """The decision by one answer; `at_s` is the start of its hop. An `unknown` answer changes nothing: it confirms
    neither yes nor no."""
    if answer.verdict == "unknown":
        return state, Ruling("unknown", {"mass": round(answer.mass, 4)})
    vote = vote_of(query, answer, at_s)
    if _gap(state, query, at_s):
        state = replace(state, votes=(), pending_s=None, pending_value=None)
    state = state.with_votes((*state.votes, vote)[-query.confirm[1] :])
    if query.rules.choice:
        return _choose(state, query, answer, vote)
    return _close(state, query, answer, vote) if state.is_open else _open(state, query, answer, vote)


def vote_of(query: WatchQuery, answer: Answer, at_s: float) -> Vote:
    """A known answer as a vote. A watch for what is absent opens on low scores."""
    high, low = answer.score >= query.open_at, answer.score <= query.clear_at
    if query.rules.choice:
        return Vote(at_s, high, low, answer.value)
    return Vote(at_s, low, high) if query.rules.absent_s else Vote(at_s, high, low)


def _gap(state: WatchState, query: WatchQuery, at_s: float) -> bool:
    """True if the watch waits for a duration, and nothing was known for too long."""
    waits = query.rules.wait_s and (query.rules.choice or not state.is_open)
    return bool(waits and state.votes) and at_s - state.votes[-1].start_s > max(GAP_S, 3 * query.every_s)


def _open(state: WatchState, query: WatchQuery, answer: Answer, vote: Vote) -> tuple[WatchState, Ruling]:
    needed = query.confirm[0]
    agreeing = [one.start_s for one in state.votes if one.opens]
    confirmed_s = agreeing[0] if vote.opens and len(agreeing) >= needed else None
    broken = vote.clears and sum(one.clears for one in state.votes) >= needed
    since_s = None if broken else state.pending_s if state.pending_s is not None else confirmed_s
    if query.rules.wait_s:
        state = replace(state, pending_s=since_s)
    if since_s is None or not vote.opens:
        return state, Ruling("confirm" if vote.opens else "thresholds", _weighed(state, query, answer, len(agreeing)))
    if refused := _not_yet(state, query, vote.start_s, since_s, "opened"):
        return state, refused
    at_s = vote.start_s
    sent_s = _sent(state, query, at_s, "opened")
    opened = WatchState(True, (), state.transitions + 1, since_s, open_s=at_s, told_s=at_s, sent_s=sent_s)
    numbers = _weighed(state, query, answer, len(agreeing))
    if not query.rules.wait_s:
        return opened, Ruling("confirm", numbers, "watch.opened", since_s)
    lasted: Mapping[str, Json] = {"lasted_s": round(at_s - since_s, 3), _waits(query): query.rules.wait_s}
    return opened, Ruling(_waits(query), {**numbers, **lasted}, "watch.opened", since_s)


def _close(state: WatchState, query: WatchQuery, answer: Answer, vote: Vote) -> tuple[WatchState, Ruling]:
    agreeing = [one.start_s for one in state.votes if one.clears]
    numbers = _weighed(state, query, answer, len(agreeing))
    if not vote.clears:
        return state, Ruling("thresholds", numbers)
    if len(agreeing) < query.confirm[0]:
        return state, Ruling("confirm", numbers)
    shut_until_s = vote.start_s + query.cooldown_s if query.cooldown_s else None
    cleared = WatchState(False, (), state.transitions + 1, None, shut_until_s, sent_s=state.sent_s)
    return cleared, Ruling("confirm", numbers, "watch.cleared", agreeing[0])


def _choose(state: WatchState, query: WatchQuery, answer: Answer, vote: Vote) -> tuple[WatchState, Ruling]:
    """A choice: a value that is confirmed, and not the one before, is its event."""
    agreeing = [one.start_s for one in state.votes if one.opens and one.value == vote.value]
    confirmed = vote.opens and len(agreeing) >= query.confirm[0]
    since_s, pending = state.pending_s, state.pending_value
    if confirmed and pending != vote.value:
        since_s, pending = (None, None) if vote.value == state.value else (agreeing[0], vote.value)
    state = replace(state, pending_s=since_s, pending_value=pending)
    numbers = _weighed(state, query, answer, len(agreeing)) | {"value": vote.value}
    if since_s is None or not vote.opens or pending != vote.value:
        return state, Ruling("choice" if vote.value == state.value else "confirm", numbers)
    kind: Emission = "updated" if state.is_open else "opened"
    if refused := _not_yet(state, query, vote.start_s, since_s, kind):
        return state, refused
    changed = replace(
        state,
        is_open=True,
        votes=(),
        transitions=state.transitions + 1,
        onset_s=since_s,
        shut_until_s=vote.start_s + query.cooldown_s if query.cooldown_s else None,
        pending_s=None,
        pending_value=None,
        value=vote.value,
        open_s=state.open_s if state.is_open else vote.start_s,
        told_s=vote.start_s,
        sent_s=_sent(state, query, vote.start_s, kind),
    )
    return changed, Ruling("choice", numbers | {"previous": state.value}, f"watch.{kind}", since_s)


def tick(state: WatchState, query: WatchQuery, at_s: float) -> tuple[WatchState, Ruling | None]:
    """The decision by time alone for an open watch, whatever the answer: it escalates, or an update is due."""
    rules = query.rules
    opened_s = state.onset_s if state.open_s is None else state.open_s
    if not state.is_open or opened_s is None:
        return state, None
    open_s, told_s = at_s - opened_s, at_s - (opened_s if state.told_s is None else state.told_s)
    # The onset of an update is that of the opening, which a duration may lie behind.
    onset_s = opened_s if state.onset_s is None else state.onset_s
    if rules.escalate and not state.escalated and open_s >= rules.escalate.after_s:
        after = replace(state, escalated=True, transitions=state.transitions + 1, told_s=at_s)
        due: dict[str, Json] = {"open_s": round(open_s, 3), "after_s": rules.escalate.after_s}
        return after, Ruling("escalate", due, "watch.updated", onset_s, escalation=True)
    if not rules.update_every_s or told_s < rules.update_every_s or _full(state, query, at_s, "updated"):
        return state, None
    sent_s = _sent(state, query, at_s, "updated")
    after = replace(state, transitions=state.transitions + 1, told_s=at_s, sent_s=sent_s)
    numbers = {"open_s": round(open_s, 3), "update_every_s": rules.update_every_s}
    return after, Ruling("update_every_s", numbers, "watch.updated", onset_s)


def is_sent(query: WatchQuery, ruling: Ruling) -> bool:
    """True if a change is an event that the watch sends. An escalation always is."""
    return ruling.kind is not None and (ruling.escalation or ruling.kind.removeprefix("watch.") in query.rules.emit)


def _not_yet(state: WatchState, query: WatchQuery, at_s: float, since_s: float, kind: Emission) -> Ruling | None:
    """The rule that holds back what is confirmed since `since_s`."""
    if (lasted_s := at_s - since_s) < query.rules.wait_s:
        return Ruling(_waits(query), {"lasted_s": round(lasted_s, 3), _waits(query): query.rules.wait_s})
    if state.shut_until_s is not None and at_s < state.shut_until_s:
        return Ruling("cooldown_s", {"shut_until_s": state.shut_until_s, "cooldown_s": query.cooldown_s})
    if _full(state, query, at_s, kind):
        return Ruling("max_per_hour", {"sent": len(state.sent_s), "max_per_hour": query.rules.max_per_hour})
    return None


def _waits(query: WatchQuery) -> RuleName:
    return "absent_s" if query.rules.absent_s else "hold_s"


def _full(state: WatchState, query: WatchQuery, at_s: float, kind: Emission) -> bool:
    most = query.rules.max_per_hour
    return most is not None and kind in query.rules.emit and len(_recent(state, at_s)) >= most


def _sent(state: WatchState, query: WatchQuery, at_s: float, kind: Emission) -> tuple[float, ...]:
    if query.rules.max_per_hour is None or kind not in query.rules.emit:
        return state.sent_s
    return (*_recent(state, at_s), at_s)


def _recent(state: WatchState, at_s: float) -> tuple[float, ...]:
    return tuple(sent_s for sent_s in state.sent_s if at_s - sent_s < HOUR_S)


def _weighed(state: WatchState, query: WatchQuery, answer: Answer, agreeing: int) -> dict[str, Json]:
    return {
        "score": round(answer.score, 4),
        "open_at": query.open_at,
        "clear_at": query.clear_at,
        "agreeing": agreeing,
        "needed": query.confirm[0],
        "of": query.confirm[1],
    }
