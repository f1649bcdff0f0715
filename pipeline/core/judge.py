"""Answers become watch states and events: what the rules of each watch decide, with ids that are a function of the
decision. Pure functions of values."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from pipeline.core.ruling import Routing, Ruling, Vote, WatchState, disarm, disarmed, is_sent, rule_on, tick
from pipeline.types import Answer, Event, Hop, Json, WatchQuery

__all__ = ["Vote", "WatchState", "event_id", "judge", "retire", "standing"]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/resadapt/resadapt-stream/events")

DISARMED: Mapping[str, str] = {"schedule": "outside its schedule", "profiles": "none of its profiles is armed"}
"""What the event of a watch says that is cleared because it is not armed, by the rule."""


def event_id(lineage: str, stream_id: str, watch_id: str, revision: str, kind: str, n: int) -> str:
    """The id of the `n`-th transition of a watch (or of a stream, with empty watch and revision).

    A function of the decision alone (uuid5), so that deciding again after a crash gives the same ids. `lineage` tells
    a stream's history from any other that counts its transitions from one again (see StreamState).
    """
    return str(uuid.uuid5(_NAMESPACE, "\0".join((lineage, stream_id, watch_id, revision, kind, str(n)))))


def event_data(
    query: WatchQuery, before: WatchState, state: WatchState, ruling: Ruling, answer: Answer | None, hop: Hop
) -> dict[str, Json]:
    """The data of an event, between the states before and after it; seconds are stream time; without an answer the time
    alone has decided."""
    last, rules = hop.frames[-1], query.rules
    data: dict[str, Json] = {
        "question": query.question,
        "revision": query.revision,
        "n": state.transitions,
        "cleared_s" if ruling.kind == "watch.cleared" else "onset_s": ruling.since_s,
        "hop_start_s": hop.start_s,
        "hop_end_s": hop.end_s,
        "captured_at": last.captured_at.isoformat(),
        "clock": last.clock,
        "rule": ruling.as_json(),
        # What was escalated is cleared to the same people.
        **Routing.of(rules, before.escalated or state.escalated).as_json(),
    }
    if query.zone is not None:
        data["zone"] = query.zone.name
    if answer is not None:
        marked = {"relooked": answer.relooked, "warming": answer.warming}
        data["score"] = round(answer.score, 6)
        data |= {name: True for name, holds in marked.items() if holds}
        if answer.value is not None:
            data["value"] = answer.value
    return data


def judge_answer(
    state: WatchState, query: WatchQuery, answer: Answer, hop_start_s: float
) -> tuple[WatchState, Ruling | None]:
    """One watch, one answer: the state after it, and the ruling if it changed anything."""
    after, ruling = rule_on(state, query, answer, hop_start_s)
    return after, ruling if ruling.kind else None


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
            if state.routing is not None:
                data |= state.routing.as_json()
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
    changed) is cleared, and so is one that is not armed at the hop. Returns the new states (those of watches of which
    nothing was decided unchanged) and the events: first of the watches that are gone, then in the order of the queries.
    """
    gone = "watch removed or changed"
    after, events = retire(lineage, hop.stream_id, states, queries, hop.start_s, decided_at, gone)
    by_id = {answer.watch_id: answer for answer in answers}
    for query in queries:
        answer = by_id.get(query.id)
        if query.key not in after and answer is None:
            continue
        before = after.get(query.key, WatchState())
        state, ruling = _decided(before, query, answer, hop)
        routing = Routing.of(query.rules, state.escalated) if state.is_open else None
        after[query.key] = state if routing == state.routing else replace(state, routing=routing)
        if ruling and is_sent(query, ruling):
            assert ruling.kind is not None
            data = event_data(query, before, state, ruling, answer, hop) | evidence
            if (reason := DISARMED.get(ruling.rule)) is not None:
                data["reason"] = reason
            identity = event_id(lineage, hop.stream_id, query.id, query.revision, ruling.kind, state.transitions)
            events.append(Event(identity, ruling.kind, hop.stream_id, decided_at, data, query.id))
    return after, tuple(events)


def _decided(state: WatchState, query: WatchQuery, answer: Answer | None, hop: Hop) -> tuple[WatchState, Ruling | None]:
    """The decision of a hop for one watch: by its answer, else by the time."""
    if rule := disarmed(query, hop.frames[-1].captured_at):
        return disarm(state, rule, hop.start_s)
    ruling = None
    if answer is not None:
        state, ruling = rule_on(state, query, answer, hop.start_s)
    if ruling is None or ruling.kind is None:
        state, timed = tick(state, query, hop.start_s)
        ruling = timed or ruling
    return state, ruling
