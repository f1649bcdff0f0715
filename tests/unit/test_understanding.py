from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.watches import NEVER_KNOWN, Understanding
from pipeline.types import Answer, WatchQuery

GATE, DOG = WatchQuery("gate", "is the gate open?"), WatchQuery("dog", "wo ist der Hund?")


def heard(masses, query=GATE):
    """The hops (numbered from 1) after which the query was said not to be understood."""
    state, said = Understanding(), []
    for hop, mass in enumerate(masses, 1):
        state, strange = state.update([query], [Answer(query.id, 0.9, mass)])
        said += [hop] * len(strange)
    return said


@given(st.lists(st.floats(0, 1), max_size=3 * NEVER_KNOWN))
def test_a_watch_is_not_understood_once_its_first_answers_were_all_unknown(masses):
    lost = len(masses) >= NEVER_KNOWN and all(mass < 0.5 for mass in masses[:NEVER_KNOWN])
    assert heard(masses) == ([NEVER_KNOWN] if lost else [])


def test_hops_without_answers_count_for_nothing():
    state, strange = Understanding(), ()
    for _ in range(2 * NEVER_KNOWN):
        state, strange = state.update([GATE, DOG], [])
        assert not strange


def test_one_watch_that_is_understood_says_nothing_about_another():
    state, said = Understanding(), []
    for _ in range(2 * NEVER_KNOWN):
        state, strange = state.update([GATE, DOG], [Answer("gate", 0.1, 0.9), Answer("dog", 0.1, 0.2)])
        said += strange
    assert said == [DOG]
