"""The service's own health: sinks that fail for long, load, a sign of life."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.site import parse_site
from pipeline.core.vitals import SERVICE, ServiceRules, Vitals, VitalsState, judge_vitals
from pipeline.errors import ConfigError
from pipeline.testing import START

RULES = ServiceRules(heartbeat_s=0, sink_failing_s=30, degraded_s=20, degraded_share=0.5)
WELL = Vitals(steps={"a": 0, "b": 0}, sinks={"plant": None})
AWAY = Vitals(steps={"a": 0, "b": 0}, sinks={"plant": "no broker"}, pending={"plant": 7})
LATE = Vitals(steps={"a": 2, "b": 0}, sinks={"plant": None})


def run(script, rules=RULES, state=VitalsState(lineage="x"), begin=0):
    """Judge one moment a second; the events as (second, type, data)."""
    found = []
    for second, vitals in enumerate(script, begin + 1):
        state, findings = judge_vitals(state, vitals, rules, float(second), 1.0)
        for finding in findings:
            state, event = state.event(finding, START)
            found.append((second, event.type, event))
    return state, found


def brief(found):
    return [(second, kind) for second, kind, _ in found]


def test_a_sink_that_fails_for_long_is_said_once_and_so_is_its_end():
    _, found = run([WELL] * 5 + [AWAY] * 60 + [WELL] * 30)
    assert brief(found) == [(35, "sink.failing"), (75, "sink.recovered")]
    failing, recovered = (event.data for _, _, event in found)
    assert (failing["sink"], failing["reason"], failing["pending"]) == ("plant", "no broker", 7)
    assert (recovered["of"], recovered["lasted_s"]) == ("sink.failing", 70.0)
    assert {event.stream_id for _, _, event in found} == {SERVICE}


def test_a_sink_that_is_removed_is_no_longer_failing():
    state, found = run([AWAY] * 40 + [Vitals()] * 5)
    assert brief(found) == [(30, "sink.failing"), (41, "sink.recovered")]
    assert state.alarms == {}


def test_load_counts_where_it_is_on_enough_streams_for_long():
    assert run([LATE] * 19 + [WELL] * 30)[1] == []
    assert brief(run([LATE] * 40 + [WELL] * 30)[1]) == [(20, "service.degraded"), (50, "service.restored")]
    one_of_three = Vitals(steps={"a": 4, "b": 0, "c": 0})
    assert run([one_of_three] * 60)[1] == []
    assert run([Vitals()] * 60)[1] == []


def test_a_heartbeat_comes_every_so_often_and_across_restarts():
    rules = ServiceRules(heartbeat_s=10, sink_failing_s=0, degraded_s=0)
    state, found = run([AWAY] * 25, rules)
    assert brief(found) == [(10, "service.heartbeat"), (20, "service.heartbeat")]
    again = VitalsState.from_json(state.to_json())
    assert again == state
    _, later = run([AWAY] * 10, rules, again, 25)
    assert brief(later) == [(30, "service.heartbeat")]
    assert len({event.id for _, _, event in found + later}) == 3


def test_what_is_switched_off_is_never_said():
    off = ServiceRules(heartbeat_s=0, sink_failing_s=0, degraded_s=0)
    assert run([Vitals(steps={"a": 4}, sinks={"plant": "away"})] * 200, off)[1] == []


@given(st.lists(st.sampled_from([WELL, AWAY, LATE, Vitals()]), max_size=200), st.integers(0, 200))
def test_alarms_and_their_ends_take_turns_and_a_restart_between_repeats_none(script, cut):
    _, found = run(script)
    for raised, ended in (("sink.failing", "sink.recovered"), ("service.degraded", "service.restored")):
        kinds = [kind for _, kind, _ in found if kind in (raised, ended)]
        assert kinds == [raised, ended] * (len(kinds) // 2) + [raised] * (len(kinds) % 2)
    part, before = run(script[:cut])
    _, after = run(script[cut:], RULES, VitalsState.from_json(part.to_json()), min(cut, len(script)))
    assert brief(before + after) == brief(found)


def test_no_stream_can_have_the_services_name():
    with pytest.raises(ConfigError, match="no slug"):
        parse_site({"streams": {SERVICE: {"url": "synthetic:"}}})
