from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.judge import WatchState, judge, judge_answer
from pipeline.core.state import StreamState
from pipeline.types import Answer, Frame, Hop, WatchQuery

AT = datetime(2026, 1, 2, tzinfo=UTC)
QUERY = WatchQuery("car", "is there a car?")


class Grey:
    height = width = 32

    def render(self, height, width):
        return np.full((height, width, 3), 128, np.uint8)


def hop(start_s):
    frame = Frame(start_s, AT, "file", round(start_s), Grey())
    return Hop("yard", start_s, start_s + 1.0, (frame,))


def play(query, answers, state=WatchState()):
    """Transitions as (second, type) for one answer a second; an answer is a score, or None for unknown."""
    transitions = []
    for second, score in enumerate(answers):
        answer = Answer(query.id, 0.5 if score is None else score, 0.1 if score is None else 1.0)
        state, transition = judge_answer(state, query, answer, float(second))
        if transition:
            transitions.append((second, transition.kind.removeprefix("watch."), transition.since_s))
    return transitions


def test_a_watch_opens_at_its_threshold_and_clears_at_the_lower_one():
    assert play(QUERY, [0.69, 0.7, 0.31, 0.5, 0.3, 0.3]) == [(1, "opened", 1.0), (4, "cleared", 4.0)]


def test_between_the_thresholds_nothing_changes():
    assert play(QUERY, [0.9, 0.5, 0.6, 0.4]) == [(0, "opened", 0.0)]


def test_k_of_n_confirms_and_the_onset_is_the_first_confirming_hop():
    query = replace(QUERY, confirm=(2, 3))
    assert play(query, [0.9, 0.1, 0.9, 0.9]) == [(2, "opened", 0.0)]
    assert play(query, [0.9, 0.1, 0.1, 0.9]) == []


def test_an_unknown_answer_confirms_nothing_and_forgets_nothing():
    query = replace(QUERY, confirm=(2, 2))
    assert play(query, [0.9, None, None, 0.9]) == [(3, "opened", 0.0)]
    assert play(QUERY, [0.9, None, None]) == [(0, "opened", 0.0)]


def test_an_answer_that_does_not_agree_cannot_complete_a_confirmation():
    assert play(replace(QUERY, confirm=(1, 3)), [0.9, 0.1, 0.5, 0.9])[:2] == [(0, "opened", 0.0), (1, "cleared", 1.0)]


def test_during_the_cooldown_the_watch_stays_shut():
    query = replace(QUERY, cooldown_s=3.0)
    assert play(query, [0.9, 0.1, 0.9, 0.9, 0.9, 0.9]) == [(0, "opened", 0.0), (1, "cleared", 1.0), (4, "opened", 4.0)]


def test_not_a_number_is_unknown():
    assert Answer("car", float("nan"), float("nan")).verdict == "unknown"


def decide(states, score, start_s):
    return judge("", states, [QUERY], [Answer("car", score, 1.0)], hop(start_s), AT, {"granted_tokens": 7})


def test_deciding_again_gives_the_same_ids_and_each_transition_its_own():
    states, (opened,) = decide({}, 0.9, 3.0)
    assert decide({}, 0.9, 3.0)[1] == (opened,)
    states, (cleared,) = decide(states, 0.1, 4.0)
    _, (again,) = decide(states, 0.9, 5.0)
    assert len({opened.id, cleared.id, again.id}) == 3


def test_another_history_of_the_same_stream_has_other_ids():
    ids = {
        judge(lineage, {}, [QUERY], [Answer("car", 0.9, 1.0)], hop(3.0), AT, {})[1][0].id for lineage in ("one", "two")
    }
    assert len(ids) == 2


def test_an_event_carries_its_times_score_and_evidence():
    _, (event,) = decide({}, 0.9, 3.0)
    assert (event.type, event.stream_id, event.watch_id, event.time) == ("watch.opened", "yard", "car", AT)
    expected = {"onset_s": 3.0, "hop_end_s": 4.0, "score": 0.9, "n": 1, "clock": "file", "granted_tokens": 7}
    assert expected.items() <= event.data.items()


def test_a_changed_question_starts_a_new_state_and_other_ids():
    states, (event,) = decide({}, 0.9, 3.0)
    changed = replace(QUERY, question="is there a van?")
    states, (cleared, other) = judge("", states, [changed], [Answer("car", 0.9, 1.0)], hop(4.0), AT, {})
    assert (cleared.type, cleared.data["reason"]) == ("watch.cleared", "watch removed or changed")
    assert (other.type, other.data["n"]) == ("watch.opened", 1)
    assert len({event.id, cleared.id, other.id}) == 3
    states, (_, again) = judge("", states, [QUERY], [Answer("car", 0.9, 1.0)], hop(5.0), AT, {})
    assert (again.type, again.data["n"]) == ("watch.opened", 3)


@given(
    st.lists(st.none() | st.floats(0, 1), max_size=60),
    st.tuples(st.integers(1, 4), st.integers(0, 3)),
    st.sampled_from([0.0, 2.0, 7.5]),
)
def test_transitions_alternate_and_only_follow_enough_agreeing_answers(scores, confirm, cooldown_s):
    query = replace(QUERY, confirm=(confirm[0], confirm[0] + confirm[1]), cooldown_s=cooldown_s)
    transitions = play(query, scores)
    kinds = [kind for _, kind, _ in transitions]
    assert kinds == ["opened", "cleared"] * (len(kinds) // 2) + ["opened"] * (len(kinds) % 2)
    cleared_at = None
    for second, kind, since_s in transitions:
        agree = (lambda s: s >= query.open_at) if kind == "opened" else (lambda s: s <= query.clear_at)
        window = [s for s in scores[int(since_s) : second + 1] if s is not None]
        assert sum(map(agree, window)) >= query.confirm[0]
        assert len(window) <= query.confirm[1]
        if kind == "opened" and cleared_at is not None:
            assert second >= cleared_at + cooldown_s
        cleared_at = second if kind == "cleared" else cleared_at


def test_the_state_survives_the_store():
    states, _ = decide({}, 0.9, 3.0)
    state = StreamState(states, 4)
    assert StreamState.from_json(state.to_json()) == state
