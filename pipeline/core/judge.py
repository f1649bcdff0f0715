"""Answers become watch states and events: k-of-n confirmation, hysteresis, cooldown. Pure functions of values."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pipeline.types import Answer, Event, Hop, Json, WatchQuery

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/resadapt/resadapt-stream/events")


def event_id(lineage: str, stream_id: str, watch_id: str, revision: str, kind: str, n: int) -> str:
    """The id of the `n`-th transition of a watch (or of a stream, with empty watch and revision).

    A function of the decision alone (uuid5), so that deciding again after a crash gives the same ids. `lineage` tells
    a stream's history from any other that counts its transitions from one again (see StreamState).
    """
    return str(uuid.uuid5(_NAMESPACE, "\0".join((lineage, stream_id, watch_id, revision, kind, str(n)))))


@dataclass(frozen=True, slots=True)
class Vote:
    """One known answer: the start of its hop in stream seconds, and which thresholds its score reached."""

    start_s: float
    opens: bool
    clears: bool


@dataclass(frozen=True, slots=True)
class WatchState:
    """The state of a watch on a stream. `transitions` counts its events ever; `shut_until_s` ends the cooldown."""

    is_open: bool = False
    votes: tuple[Vote, ...] = ()
    transitions: int = 0
    onset_s: float | None = None
    shut_until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of a watch's state: the event's type, and the start of the first hop that confirmed it."""

    kind: str
    since_s: float


def judge_answer(
    state: WatchState, query: WatchQuery, answer: Answer, hop_start_s: float
) -> tuple[WatchState, Transition | None]:
    """One watch, one answer. An `unknown` answer changes nothing: it confirms neither yes nor no."""
    if answer.verdict == "unknown":
        return state, None
    needed, window = query.confirm
    vote = Vote(hop_start_s, answer.score >= query.open_at, answer.score <= query.clear_at)
    votes = (*state.votes, vote)[-window:]
    state = replace(state, votes=votes)
    agreeing = [v.start_s for v in votes if (v.clears if state.is_open else v.opens)]
    cooling = not state.is_open and state.shut_until_s is not None and hop_start_s < state.shut_until_s
    latest_agrees = vote.clears if state.is_open else vote.opens
    if len(agreeing) < needed or not latest_agrees or cooling:
        return state, None
    if state.is_open:
        shut_until_s = hop_start_s + query.cooldown_s if query.cooldown_s else None
        cleared = WatchState(False, (), state.transitions + 1, None, shut_until_s)
        return cleared, Transition("watch.cleared", agreeing[0])
    opened = WatchState(True, (), state.transitions + 1, agreeing[0], None)
    return opened, Transition("watch.opened", agreeing[0])


def transition_data(
    query: WatchQuery, state: WatchState, transition: Transition, answer: Answer, hop: Hop
) -> dict[str, Json]:
    """The data of a transition's event. `state` is the one after it; seconds are stream time."""
    last = hop.frames[-1]
    zone: dict[str, Json] = {} if query.zone is None else {"zone": query.zone.name}
    marked = {"relooked": answer.relooked, "warming": answer.warming}
    return {
        "question": query.question,
        **zone,
        "revision": query.revision,
        "n": state.transitions,
        "onset_s" if transition.kind == "watch.opened" else "cleared_s": transition.since_s,
        "score": round(answer.score, 6),
        "hop_start_s": hop.start_s,
        "hop_end_s": hop.end_s,
        "captured_at": last.captured_at.isoformat(),
        "clock": last.clock,
        **{name: True for name, holds in marked.items() if holds},
    }


def retire(
    lineage: str,
    stream_id: str,
    states: Mapping[str, WatchState],
    queries: Sequence[WatchQuery],
    at_s: float,
    decided_at: datetime,
    reason: str,
) -> tuple[dict[str, WatchState], list[Event]]:
    """Clear the open watches that no longer stand at `at_s` stream seconds, for a reason. Of each there stays how many
    events it has sent, so that its ids never repeat if it comes back."""
    standing_keys = {query.key for query in queries}
    after, events = dict(states), []
    for key, state in states.items():
        if key in standing_keys:
            continue
        n = state.transitions + state.is_open
        after[key] = WatchState(transitions=n)
        if state.is_open:
            watch_id, _, revision = key.partition("@")
            identity = event_id(lineage, stream_id, watch_id, revision, "watch.cleared", n)
            data: dict[str, Json] = {"revision": revision, "n": n, "cleared_s": at_s, "reason": reason}
            events.append(Event(identity, "watch.cleared", stream_id, decided_at, data, watch_id))
    return after, events


def standing(states: Mapping[str, WatchState]) -> dict[str, bool]:
    """True if each watch is open, by its id, whatever revisions it had."""
    found: dict[str, bool] = {}
    for key, state in states.items():
        watch_id = key.partition("@")[0]
        found[watch_id] = found.get(watch_id, False) or state.is_open
    return found


def judge(
    lineage: str,
    states: Mapping[str, WatchState],
    queries: Sequence[WatchQuery],
    answers: Sequence[Answer],
    hop: Hop,
    decided_at: datetime,
    evidence: dict[str, Json],
) -> tuple[dict[str, WatchState], tuple[Event, ...]]:
    """All watches of a hop. `states` are by `WatchQuery.key`; `evidence` joins the data of every event.

    `queries` are all that stand on the stream: a watch that is open and no longer stands (removed, or its question
    changed) is cleared. Returns the new states (those of watches without an answer unchanged) and the events: first of
    the watches that are gone, then in the order of the answers.
    """
    gone = "watch removed or changed"
    after, events = retire(lineage, hop.stream_id, states, queries, hop.start_s, decided_at, gone)
    by_id = {query.id: query for query in queries}
    for answer in answers:
        query = by_id[answer.watch_id]
        state, transition = judge_answer(after.get(query.key, WatchState()), query, answer, hop.start_s)
        after[query.key] = state
        if transition:
            data = transition_data(query, state, transition, answer, hop) | evidence
            identity = event_id(lineage, hop.stream_id, query.id, query.revision, transition.kind, state.transitions)
            events.append(Event(identity, transition.kind, hop.stream_id, decided_at, data, query.id))
    return after, tuple(events)
