"""What a stream remembers of watches that are gone is bounded, and no event's id repeats all the same."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.judge import judge
from pipeline.core.state import GONE_KEPT, StreamState
from pipeline.types import Answer, WatchQuery
from tests.unit.test_judge import hop

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def decided(state, numbers, second):
    """The state and events after one hop on which the watches of these numbers stand, all of them turning over."""
    queries = [WatchQuery(f"w{number}", "is it red?") for number in numbers]
    known = state.meeting(queries)
    answers = [Answer(query.id, 0.0 if known[query.key].is_open else 1.0, 1.0) for query in queries]
    watches, events = judge("lineage", known, queries, answers, hop(float(second)), NOW, {})
    return StreamState.from_json(state.keeping(watches, queries).to_json()), events


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, GONE_KEPT + 20), max_size=40), max_size=12))
def test_watches_may_come_and_go_in_any_order(standing):
    state, ids = StreamState(), []
    for second, numbers in enumerate(standing):
        state, events = decided(state, sorted(numbers), second)
        ids += [event.id for event in events]
        assert len(state.watches) <= len(numbers) + GONE_KEPT
    assert len(set(ids)) == len(ids)


def test_a_thousand_revisions_of_a_watch_leave_a_small_state():
    state, ids = StreamState(), []
    for number in range(1000):
        state, events = decided(state, [number], number)
        ids += [event.id for event in events]
    state, events = decided(state, [0], 1000)
    ids += [event.id for event in events]
    assert len(state.to_json()) < 20_000
    assert len(set(ids)) == len(ids) == 2001


def test_a_watch_that_comes_back_soon_goes_on_counting_where_it_was():
    state, _ = decided(StreamState(), [1], 0)
    state, _ = decided(state, [], 1)
    state, (event,) = decided(state, [1], 2)
    assert event.data["n"] == 3
