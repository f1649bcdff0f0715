"""What a sink gets: its filter, its rate limit, and the summary of what was held back."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.entries import parse_sink
from pipeline.config.site import parse_site
from pipeline.core.gate import (
    HELD_BACK,
    MOST_NAMES,
    GateRules,
    GateState,
    RateLimit,
    SinkFilter,
    let_through,
)
from pipeline.errors import ConfigError
from pipeline.types import Event

START = datetime(2026, 1, 1, tzinfo=UTC)
TAGS = {"gate": ("north",), "dock": ("south", "dock")}


def event(n=1, type="watch.opened", stream="gate", watch="fire", **data):
    return Event(f"e{n}", type, stream, START, {"n": n, **data}, watch)


def passes(event, **wanted):
    rules = SinkFilter(**{key: value if key == "types" else frozenset(value) for key, value in wanted.items()})
    return rules.passes(event, TAGS.get)


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ({}, event(), True),
        ({"types": ("watch.*",)}, event(), True),
        ({"types": ("watch.opened", "stream.lost")}, event(type="watch.cleared"), False),
        ({"types": ("stream.*",)}, event(), False),
        ({"severities": ["high"]}, event(severity="high"), True),
        ({"severities": ["high", "low"]}, event(severity="medium"), False),
        ({"severities": ["high"]}, event(), False),
        ({"severities": ["1"]}, event(severity=1), False),
        ({"severities": ["low"]}, event(type="watch.cleared", severity="high", opened_severity="low"), True),
        ({"severities": ["high"]}, event(type="watch.cleared", severity="high", opened_severity="low"), True),
        ({"severities": ["mid"]}, event(type="watch.cleared", severity="high", opened_severity="low"), False),
        ({"severities": ["low"]}, event(type="watch.updated", severity="high", opened_severity="low"), False),
        ({"severities": ["low"]}, event(type="watch.cleared"), True),
        ({"streams": ["gate"]}, event(), True),
        ({"streams": ["dock"]}, event(), False),
        ({"streams": ["tag:south"]}, event(stream="dock"), True),
        ({"streams": ["tag:south"]}, event(stream="gate"), False),
        ({"streams": ["tag:south", "gate"]}, event(stream="gate"), True),
        ({"streams": ["tag:south"]}, event(stream="gone"), True),
        ({"streams": ["gate"]}, event(stream="gone"), False),
        ({"streams": ["gone"]}, event(stream="gone"), True),
        ({"watches": ["fire"]}, event(), True),
        ({"watches": ["smoke"]}, event(), False),
        ({"watches": ["fire"]}, event(type="stream.lost", watch=None), False),
        ({"types": ("watch.*",), "watches": ["fire"], "streams": ["tag:south"]}, event(), False),
    ],
)
def test_a_filter_takes_what_meets_each_of_its_conditions(wanted, found, expected):
    assert passes(found, **wanted) is expected


steps = st.lists(st.tuples(st.floats(0, 100), st.integers(0, 12)), max_size=30)


def played(limit, batches, rules=SinkFilter()):
    """Batches of events delivered after pauses in seconds: when each event passed, and all passages."""
    state, now, n, passages, passed = GateState(), START, 0, [], []
    for pause_s, count in batches:
        now += timedelta(seconds=pause_s)
        events = [event(n + k) for k in range(count)]
        n += count
        passage = let_through(GateRules(rules, limit), state, events, now, "pager", TAGS.get)
        assert GateState.from_json(passage.state.to_json()) == passage.state
        state = passage.state
        passages.append((events, passage))
        passed += [(now, one) for one in passage.events]
    return passed, passages, state


@given(st.integers(1, 10), st.floats(1, 60), steps)
def test_over_any_period_no_more_events_pass_than_the_limit_allows(most, per_s, batches):
    passed, _, _ = played(RateLimit(most, per_s), batches)
    plain = [at for at, one in passed if one.type != HELD_BACK]
    for first in plain:
        assert sum(first <= at < first + timedelta(seconds=per_s) for at in plain) <= most


@given(st.integers(1, 10), st.floats(1, 60), steps)
def test_every_event_passes_or_is_in_one_summary_and_order_is_kept(most, per_s, batches):
    passed, passages, state = played(RateLimit(most, per_s), batches)
    sent = [one.id for events, _ in passages for one in events]
    plain = [one.id for _, one in passed if one.type != HELD_BACK]
    summaries = [one for _, one in passed if one.type == HELD_BACK]
    assert plain == [one for one in sent if one in set(plain)]
    waiting = state.held.count if state.held else 0
    assert len(plain) + sum(one.data["count"] for one in summaries) + waiting == len(sent)
    assert sum(passage.held for _, passage in passages) == sum(one.data["count"] for one in summaries) + waiting
    assert len({one.id for one in summaries}) == len(summaries)
    for one in summaries:
        assert sum(one.data["types"].values()) == one.data["count"]


@given(st.integers(1, 10), st.floats(1, 60), steps)
def test_a_summary_comes_once_a_period_and_not_before_its_end(most, per_s, batches):
    passed, _, _ = played(RateLimit(most, per_s), batches)
    summaries = [(at, one) for at, one in passed if one.type == HELD_BACK]
    for at, one in summaries:
        assert (at - datetime.fromisoformat(one.data["since"])).total_seconds() >= per_s - 1e-3
    for (earlier, _), (later, _) in pairwise(summaries):
        assert (later - earlier).total_seconds() >= per_s - 1e-3


@given(steps)
def test_without_rules_everything_passes_and_nothing_is_remembered(batches):
    passed, passages, state = played(None, batches)
    assert [one for _, one in passed] == [one for events, _ in passages for one in events]
    assert state == GateState()


def test_the_end_and_the_removal_of_a_limit_bring_the_summary_at_once():
    limit = GateRules(limit=RateLimit(1, 60))
    events = [event(1), event(2, "watch.cleared"), event(3, stream="dock", watch="smoke")]
    passage = let_through(limit, GateState(), events, START, "pager", TAGS.get)
    assert [one.id for one in passage.events] == ["e1"]
    ended = let_through(limit, passage.state, [], START, "pager", TAGS.get, ending=True)
    removed = let_through(GateRules(), passage.state, [event(4)], START, "pager", TAGS.get)
    (summary,) = ended.events
    assert summary.type == HELD_BACK
    assert summary.data.items() >= {
        ("count", 2), ("sink", "pager"), ("first_id", "e2"), ("last_id", "e3"), ("limit_events", 1)
    }  # fmt: skip
    assert summary.data["types"] == {"watch.cleared": 1, "watch.opened": 1}
    assert summary.data["watches"] == {"fire": 1, "smoke": 1}
    assert [one.type for one in removed.events] == [HELD_BACK, "watch.opened"]
    assert removed.state == GateState()
    assert ended.events[0].id == removed.events[0].id


def test_the_same_decision_has_the_same_id_and_another_has_another():
    limit = GateRules(limit=RateLimit(1, 60))
    first = let_through(limit, GateState(), [event(1), event(2)], START, "a", TAGS.get, ending=True).events[-1]
    again = let_through(limit, GateState(), [event(1), event(2)], START, "a", TAGS.get, ending=True).events[-1]
    other = let_through(limit, GateState(), [event(1), event(2)], START, "b", TAGS.get, ending=True).events[-1]
    assert first.id == again.id != other.id


def test_a_clock_that_is_set_back_holds_nothing_longer_than_a_period():
    limit = GateRules(limit=RateLimit(1, 60))
    later = START + timedelta(days=1)
    state = let_through(limit, GateState(), [event(1), event(2)], later, "pager", TAGS.get).state
    state = let_through(limit, state, [event(3)], START, "pager", TAGS.get).state
    passage = let_through(limit, state, [event(4)], START + timedelta(seconds=61), "pager", TAGS.get)
    assert [one.type for one in passage.events] == [HELD_BACK, "watch.opened"]


def test_a_summary_counts_a_bounded_number_of_names():
    events = [event(n, watch=f"w{n}") for n in range(200)]
    limit = GateRules(limit=RateLimit(1, 60))
    summary = let_through(limit, GateState(), events, START, "pager", TAGS.get, ending=True).events[-1]
    assert len(summary.data["watches"]) == MOST_NAMES + 1
    assert sum(summary.data["watches"].values()) == 199


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"passed_s": [1], "held": 3}', '{"passed_s": ["x"]}'])
def test_what_is_no_state_is_refused(text):
    with pytest.raises(ValueError):
        GateState.from_json(text)


SITE = {
    "streams": {"gate": {"url": "synthetic:"}},
    "watches": {"fire": {"question": "is there a fire?"}},
}


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        ({"rate_limit": {"events": 0}}, r"sinks\.pager\.rate_limit\.events is 0; expected 1 or more"),
        ({"rate_limit": {"events": 5, "per": "day"}}, r"rate_limit\.per is 'day'; expected 'minute' or 'hour'"),
        ({"rate_limit": {}}, r"rate_limit\.events: missing"),
        ({"filter": {"watches": ["smoke"]}}, r"sinks\.pager\.filter\.watches names \['smoke'\]; .*\['fire'\]"),
        ({"filter": {"streams": ["dock"]}}, r"sinks\.pager\.filter\.streams names \['dock'\]; .*\['gate'\]"),
        ({"filter": {"types": ["Opened!"]}}, r"sinks\.pager\.filter\.types"),
        ({"filter": {"colour": "red"}}, r"filter\.colour: unknown key.*known keys.*severities"),
    ],
)
@pytest.mark.parametrize("url", ["jsonl:events.jsonl", "kafka://k/topic"])
def test_rules_that_cannot_hold_are_refused_by_name_for_every_kind(url, sink, said):
    with pytest.raises(ConfigError, match=said):
        parse_site(SITE | {"sinks": {"pager": {"url": url, **sink}}})


def test_a_sink_by_itself_may_name_what_is_elsewhere():
    sink = parse_sink("pager", {"url": "jsonl:x", "filter": {"watches": ["smoke"], "streams": ["dock", "tag:x"]}})
    assert sink.gate_rules().filter == SinkFilter(streams=frozenset({"dock", "tag:x"}), watches=frozenset({"smoke"}))


@pytest.mark.parametrize(
    ("data", "watch", "expected"),
    [
        ({"escalated": True, "sink": "pager"}, "fire", 1),
        ({"escalated": True, "sink": "other"}, "fire", 0),
        ({"escalated": True}, "fire", 0),
        ({"sink": "pager"}, "fire", 0),
        ({"escalated": "yes", "sink": "pager"}, "fire", 0),
        ({"escalated": True, "sink": "pager"}, None, 0),
    ],
)
def test_an_escalation_reaches_the_sink_that_it_names_past_its_filter_and_not_past_its_limit(data, watch, expected):
    found = event(type="watch.updated", watch=watch, **data)
    nothing = SinkFilter(types=("stream.*",), severities=frozenset({"info"}), watches=frozenset({"smoke"}))
    passage = let_through(GateRules(nothing), GateState(), [found], START, "pager", TAGS.get)
    assert (len(passage.events), passage.filtered) == (expected, 1 - expected)
    full = GateState(passed_s=(START.timestamp(),))
    passage = let_through(GateRules(nothing, RateLimit(1, 60.0)), full, [found], START, "pager", TAGS.get)
    assert (len(passage.events), passage.held) == (0, expected)
