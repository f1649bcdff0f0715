"""The rules of a watch, each as a property of all answers it may get."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.gate import GateRules, GateState, SinkFilter, let_through
from pipeline.core.judge import judge, retire
from pipeline.core.ruling import GAP_S, HOUR_S, Routing, Vote, WatchState, disarm, rule_on, tick
from pipeline.core.state import StreamState
from pipeline.rules import Escalation, Rules, Schedule, Window
from pipeline.types import Answer, Frame, Hop, WatchQuery
from tests.unit.test_judge import Grey

AT = datetime(2026, 1, 2, tzinfo=UTC)
QUERY = WatchQuery("car", "is there a car?")
REVISION = "0bd09b4c4332"
SCORES = st.lists(st.none() | st.floats(0, 1), max_size=60)


def ruled(query, scores, every_s=1.0):
    """(second, type, since, rule) of each change; an answer is a score, a value of a choice, or None for unknown."""
    state, found = WatchState(), []
    for number, score in enumerate(scores):
        at_s = number * every_s
        if isinstance(score, str):
            answer = Answer(query.id, 0.95, 1.0, value=score)
        else:
            answer = Answer(query.id, 0.5 if score is None else score, 0.1 if score is None else 1.0)
        state, ruling = rule_on(state, query, answer, at_s)
        if not ruling.kind:
            state, timed = tick(state, query, at_s)
            ruling = timed or ruling
        if ruling.kind:
            found.append((at_s, ruling.kind.removeprefix("watch."), ruling.since_s, ruling.rule))
    return found


def times(found, kind):
    return [at_s for at_s, what, _, _ in found if what == kind]


def watch(rules, **more):
    return replace(QUERY, rules=rules, **more)


def test_a_watch_that_holds_opens_when_it_has_lasted_and_its_onset_is_the_first_moment():
    query = watch(Rules(hold_s=3.0))
    assert ruled(query, [0.9] * 5 + [0.1]) == [(3.0, "opened", 0.0, "hold_s"), (5.0, "cleared", 5.0, "confirm")]
    assert ruled(query, [0.9, 0.9, 0.1, 0.9, 0.9]) == [], "what broke off begins anew"
    assert times(ruled(query, [0.9, 0.5, 0.9, 0.9]), "opened") == [3.0], "between the thresholds it goes on"


def test_what_was_not_known_for_too_long_does_not_count_as_lasting():
    silent = [0.9, *[None] * int(GAP_S + 1), 0.9]
    assert ruled(watch(Rules(hold_s=5.0)), silent) == []
    assert times(ruled(watch(Rules(hold_s=5.0)), [0.9, *[None] * int(GAP_S - 1), 0.9]), "opened") == [GAP_S]


def test_what_is_absent_opens_after_a_while_and_clears_when_it_is_seen():
    query = watch(Rules(absent_s=4.0))
    seen = ruled(query, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9])
    assert seen == [(5.0, "opened", 1.0, "absent_s"), (6.0, "cleared", 6.0, "confirm")]
    assert ruled(query, [0.1, None, 0.5, 0.5, None]) == [], "not known is not absent"


@given(SCORES, st.floats(0.3, 1), st.floats(0.3, 1), st.sampled_from([0.0, 2.0, 5.0]), st.integers(1, 3))
def test_a_higher_threshold_never_opens_earlier(scores, one, other, hold_s, needed):
    low, high = (
        watch(Rules(hold_s=hold_s), open_at=at, clear_at=0.29, confirm=(needed, 3)) for at in sorted((one, other))
    )
    opened = times(ruled(high, scores), "opened")
    assert not opened or times(ruled(low, scores), "opened")[0] <= opened[0]


@given(SCORES, st.floats(0, 8), st.floats(0, 8))
def test_a_longer_hold_never_opens_earlier(scores, one, other):
    short, long = (watch(Rules(hold_s=hold_s)) for hold_s in sorted((one, other)))
    opened = times(ruled(long, scores), "opened")
    assert not opened or times(ruled(short, scores), "opened")[0] <= opened[0]


@given(SCORES, st.sampled_from(["hold_s", "absent_s"]), st.sampled_from([1.0, 3.0, 7.0]))
def test_nothing_opens_that_has_not_lasted_as_it_says(scores, rule, seconds):
    query = watch(Rules(**{rule: seconds}))
    agrees, breaks = (lambda s: s >= 0.7), (lambda s: s <= 0.3)
    if rule == "absent_s":
        agrees, breaks = breaks, agrees
    for at_s, kind, since_s, _ in ruled(query, scores):
        if kind == "opened":
            window = [score for score in scores[int(since_s) : int(at_s) + 1] if score is not None]
            assert at_s - since_s >= seconds
            assert agrees(window[0])
            assert agrees(window[-1])
            assert not any(map(breaks, window))


@given(
    st.lists(st.sampled_from([0.05, 0.95, None]), max_size=300), st.integers(1, 4), st.sampled_from([1.0, 60.0, 400.0])
)
def test_an_hour_has_no_more_events_than_it_may(scores, most, every_s):
    query = watch(Rules(max_per_hour=most, update_every_s=90.0))
    told = [at_s for at_s, kind, _, _ in ruled(query, scores, every_s) if kind != "cleared"]
    for at_s in told:
        assert sum(at_s - HOUR_S < other <= at_s for other in told) <= most


@given(SCORES, st.sampled_from([2.0, 5.0]))
def test_a_watch_that_is_open_is_told_of_again_and_never_when_it_is_shut(scores, every_s):
    found = ruled(watch(Rules(update_every_s=every_s)), scores)
    is_open, last_s = False, 0.0
    for at_s, kind, _, _ in found:
        if kind == "updated":
            assert is_open
            assert at_s - last_s >= every_s
        is_open, last_s = kind != "cleared", at_s
    kinds = [kind for _, kind, _, _ in found if kind != "updated"]
    assert kinds == ["opened", "cleared"] * (len(kinds) // 2) + ["opened"] * (len(kinds) % 2)


@given(SCORES)
def test_an_escalation_comes_once_each_time_it_stays_open(scores):
    query = watch(Rules(escalate=Escalation(4.0, "critical")))
    opened_s, escalated = None, True
    for at_s, kind, _, rule in ruled(query, scores):
        if kind == "opened":
            opened_s, escalated = at_s, False
        elif rule == "escalate":
            assert not escalated
            assert at_s - opened_s >= 4.0
            escalated = True


def test_a_choice_tells_its_first_value_and_each_change():
    query = watch(Rules(choice=("red", "green", "off")), confirm=(2, 2))
    told = ruled(query, ["red", "red", "green", "red", "green", "green", None, "green", "off", "off"])
    expected = [(1.0, "opened", 0.0), (5.0, "updated", 4.0), (9.0, "updated", 8.0)]
    assert [one[:3] for one in told] == expected


def test_a_choice_that_has_to_hold_waits_for_its_value():
    query = watch(Rules(choice=("red", "green"), hold_s=2.0))
    assert times(ruled(query, ["red", "red", "red", "green", "red", "red"]), "updated") == []
    assert times(ruled(query, ["red"] * 3 + ["green"] * 3), "updated") == [5.0]


@given(
    st.lists(st.none() | st.sampled_from(["red", "green", "off"]), max_size=60),
    st.integers(1, 3),
    st.sampled_from([0.0, 3.0]),
)
def test_no_value_is_told_twice_in_a_row_nor_without_its_votes(values, needed, hold_s):
    query = watch(Rules(choice=("red", "green", "off"), hold_s=hold_s), confirm=(needed, 3))
    last = None
    for at_s, _, since_s, _ in ruled(query, values):
        value = values[int(at_s)]
        assert value is not None
        assert value != last
        assert values[int(since_s) : int(at_s) + 1].count(value) >= needed
        assert at_s - since_s >= hold_s
        last = value


def test_a_watch_sends_only_what_it_emits():
    query = watch(Rules(emit=("cleared",)))
    states, events = {}, []
    for second, score in enumerate([0.9, 0.1, 0.9]):
        states, more = judge("", states, [query], [Answer("car", score, 1.0)], hop(second), AT, {})
        events += more
    assert [(event.type, event.data["n"]) for event in events] == [("watch.cleared", 2)]


def hop(second, at=AT):
    frame = Frame(float(second), at + timedelta(seconds=second), "ntp", second, Grey())
    return Hop("yard", float(second), second + 1.0, (frame,))


NIGHT = Schedule("UTC", (Window(tuple(range(7)), 0, 1),))
"""The first minute of each day."""

RULES = st.builds(
    Rules,
    hold_s=st.sampled_from([0.0, 3.0]),
    max_per_hour=st.none() | st.integers(1, 3),
    update_every_s=st.sampled_from([0.0, 4.0]),
    severity=st.sampled_from(["info", "warning"]),
    escalate=st.none() | st.just(Escalation(5.0, "critical", "pager")),
    schedule=st.none() | st.just(NIGHT),
    emit=st.sampled_from([("opened", "updated", "cleared"), ("opened",)]),
)


@settings(deadline=None)
@given(
    st.lists(st.none() | st.sampled_from([0.05, 0.5, 0.95]), max_size=90),
    RULES,
    st.integers(0, 3),
    st.sets(st.integers(0, 89)),
)
def test_killed_at_any_hop_the_same_events_come(scores, rules, cooldown_s, kills):
    query = watch(rules, cooldown_s=float(cooldown_s), confirm=(1, 2))
    runs = []
    for killed in (set(), kills):
        state, events = StreamState(lineage="x"), []
        for second, score in enumerate(scores):
            answers = [] if score is None else [Answer("car", score, 1.0)]
            if second in killed:  # decided once, and lost before it was durable
                judge("x", state.meeting([query]), [query], answers, hop(second), AT, {})
                state = StreamState.from_json(state.to_json())
            watches, more = judge("x", state.meeting([query]), [query], answers, hop(second), AT, {})
            state = StreamState.from_json(state.keeping(watches, [query]).to_json())
            events += more
        runs.append((state, events))
    assert runs[0] == runs[1]
    ids = [event.id for event in runs[0][1]]
    assert len(set(ids)) == len(ids)


def test_outside_its_schedule_a_watch_is_cleared_and_opens_no_more():
    query, states, events = watch(Rules(schedule=NIGHT)), {}, []
    for second in (58, 59, 60, 61):
        states, more = judge("", states, [query], [Answer("car", 0.9, 1.0)], hop(second), AT, {})
        events += more
    assert [(event.type, event.data.get("reason")) for event in events] == [
        ("watch.opened", None),
        ("watch.cleared", "outside its schedule"),
    ]


def test_a_watch_whose_profile_is_not_armed_is_cleared_without_an_answer():
    query = watch(Rules(profiles=("night",)))
    states, _ = judge("", {}, [query], [Answer("car", 0.9, 1.0)], hop(0), AT, {})
    states, (cleared,) = judge("", states, [replace(query, armed=False)], [], hop(1), AT, {})
    assert cleared.data["reason"] == "none of its profiles is armed"
    assert judge("", states, [replace(query, armed=False)], [], hop(2), AT, {}) == (states, ())


def test_who_got_an_escalation_gets_its_end():
    query, states, events = watch(Rules(severity="info", escalate=Escalation(1.0, "critical", "pager"))), {}, []
    for second, score in enumerate([0.9, None, 0.1, 0.9]):
        answers = [] if score is None else [Answer("car", score, 1.0)]
        states, more = judge("", states, [query], answers, hop(second), AT, {})
        events += [
            (event.type.removeprefix("watch."), event.data.get("severity"), event.data.get("sink")) for event in more
        ]
    assert events == [
        ("opened", "info", None),
        ("updated", "critical", "pager"),
        ("cleared", "critical", "pager"),
        ("opened", "info", None),
    ]


SINKS = {
    "all": SinkFilter(),
    "info": SinkFilter(severities=frozenset({"info"})),
    "critical": SinkFilter(types=("watch.*",), severities=frozenset({"critical"})),
    "pager": SinkFilter(types=("stream.*",), streams=frozenset({"elsewhere"})),
}


def sent_to(sink, events):
    """The events of a watch that pass to a sink, without their prefix."""
    passage = let_through(GateRules(SINKS[sink]), GateState(), events, AT, sink, lambda _: ())
    return [event.type.removeprefix("watch.") for event in passage.events]


@given(
    st.lists(st.sampled_from([0.1, 0.5, 0.9, None]), max_size=12),
    st.sampled_from(["removed", "changed", "stopped", "stands"]),
    st.none() | st.sampled_from([None, "pager", "info"]).map(lambda sink: Escalation(2.0, "critical", sink)),
    st.booleans(),
)
def test_a_sink_that_got_the_beginning_gets_the_end_and_a_named_one_all_of_an_escalation(scores, end, escalate, stored):
    query, states, events = watch(Rules(severity="info", escalate=escalate)), {}, []
    for second, score in enumerate(scores):
        answers = [] if score is None else [Answer("car", score, 1.0)]
        states, more = judge("", states, [query], answers, hop(second), AT, {})
        events += more
        if stored:
            states = StreamState.from_json(StreamState(watches=states).to_json()).watches
    if end == "stopped":
        events += retire("", "yard", states, (), 20.0, AT, "stream removed")[1]
    elif end != "stands":
        left = [] if end == "removed" else [watch(Rules(severity="warning", hold_s=1.0))]
        events += judge("", states, left, [], hop(20), AT, {})[1]
    for sink in ("all", "info"):
        kinds = [kind for kind in sent_to(sink, events) if kind != "updated"]
        assert kinds == [kind for kind in sent_to("all", events) if kind != "updated"]
    escalated = [event for event in events if event.data.get("escalated")]
    assert sent_to("critical", events) == [event.type.removeprefix("watch.") for event in escalated]
    if escalate is not None and escalate.sink == "pager":
        assert sent_to("pager", events) == sent_to("critical", events)
    else:
        assert sent_to("pager", events) == []


def test_the_end_of_a_watch_that_was_removed_has_its_severity_and_where_it_was_escalated_to():
    query, states = watch(Rules(severity="warning", escalate=Escalation(1.0, "critical", "pager"))), {}
    for second, expected in ((0, {"severity": "warning"}), (1, {"severity": "critical", "opened_severity": "warning"})):
        states, _ = judge("", states, [query], [Answer("car", 0.9, 1.0)], hop(second), AT, {})
        _, (cleared,) = judge("", states, [], [], hop(9), AT, {})
        assert cleared.type == "watch.cleared"
        assert {name: cleared.data.get(name) for name in expected} == expected
        assert cleared.data.get("sink") == ("pager" if second else None)


def test_the_end_of_a_watch_of_before_passes_by_any_severity():
    states = {QUERY.key: WatchState(is_open=True, transitions=1)}
    _, events = retire("", "yard", states, (), 1.0, AT, "stream removed")
    assert sent_to("critical", events) == sent_to("info", events) == ["cleared"]


def test_a_watch_of_before_keeps_its_revision_and_a_rule_changes_it():
    assert QUERY.revision == REVISION
    assert watch(Rules(describe=True)).revision == QUERY.revision
    for rules in (Rules(hold_s=1.0), Rules(severity="critical"), Rules(choice=("a", "b")), Rules(schedule=NIGHT)):
        assert watch(rules).revision != QUERY.revision


def test_a_state_of_before_is_read_and_goes_on():
    text = (
        '{"watches":{"car@' + REVISION + '":{"is_open":true,"votes":[{"start_s":3.0,"opens":true,"clears":false}],'
        '"transitions":5,"onset_s":2.0,"shut_until_s":null}},"transitions":4,"lineage":"l","forgotten":1}'
    )
    state = StreamState.from_json(text)
    assert StreamState.from_json(state.to_json()) == state
    _, (cleared,) = judge("l", state.meeting([QUERY]), [QUERY], [Answer("car", 0.1, 1.0)], hop(4), AT, {})
    assert (cleared.type, cleared.data["n"]) == ("watch.cleared", 6)


def test_other_votes_change_nothing_else():
    full = WatchState(
        is_open=True, votes=(Vote(1.0, True, False),), transitions=3, onset_s=0.5, shut_until_s=9.0, pending_s=2.0,
        pending_value="red", value="blue", open_s=1.5, told_s=1.7, escalated=True, sent_s=(0.1,),
        routing=Routing("high"),
    )  # fmt: skip
    assert all(getattr(full, item.name) != getattr(WatchState(), item.name) for item in fields(WatchState))
    votes = (Vote(2.0, False, True),)
    assert full.with_votes(votes) == replace(full, votes=votes)


def test_every_event_says_by_which_rule_it_came():
    _, (event,) = judge("", {}, [QUERY], [Answer("car", 0.9, 1.0)], hop(0), AT, {})
    expected = {"name": "confirm", "score": 0.9, "open_at": 0.7, "agreeing": 1, "needed": 1}
    assert expected.items() <= event.data["rule"].items()


def test_why_nothing_happened_can_be_told():
    query = watch(Rules(hold_s=30.0), cooldown_s=10.0)
    state, ruling = rule_on(WatchState(), query, Answer("car", 0.9, 1.0), 0.0)
    assert ruling.words() == "nothing changed by the rule hold_s (lasted_s 0, hold_s 30)"
    _, ruling = rule_on(state, query, Answer("car", 0.5, 0.2), 1.0)
    assert "unknown" in ruling.words()
    after, ruling = disarm(replace(state, is_open=True), "schedule", 2.0)
    assert (ruling.kind, after.is_open, after.transitions) == ("watch.cleared", False, 1)
