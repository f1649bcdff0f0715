import numpy as np
import pytest

from allocator_engine.train.transitions import any_transition, transitions


def test_a_query_turns_where_it_begins_or_ceases_and_in_the_hop_behind():
    holds = np.array([[0, 0, 0, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]], np.int8)
    assert transitions(holds).tolist() == [[0, 0, 0, 1, 1, 0, 0, 1, 1, 0], [0] * 10]


def test_what_is_not_known_is_not_taught():
    assert transitions(np.array([[0, 0, -1, 1, 1, 1]], np.int8)).tolist() == [[0, 0, -1, 1, 1, 0]]
    assert transitions(np.array([[-1, -1, 1, -1]], np.int8)).tolist() == [[-1] * 4], "nobody knows what was before"
    assert transitions(np.full((2, 3), -1, np.int8)).tolist() == [[-1] * 3] * 2
    assert transitions(np.zeros((0, 3), np.int8)).shape == (0, 3)


def test_what_was_unknown_between_turns_only_if_it_came_out_different():
    assert transitions(np.array([[1, -1, 1, 1], [0, -1, 0, 0]], np.int8)).tolist() == [[0, -1, 0, 0]] * 2
    assert transitions(np.array([[1, -1, 0, 0], [0, -1, 1, 1]], np.int8)).tolist() == [[0, -1, 1, 1]] * 2


def test_any_query_turns_as_often_as_those_that_are_known():
    turned = np.array([[1, 0, -1, 0], [0, 0, -1, -1], [1, 0, -1, 1], [0, 0, -1, -1]], np.int8)
    assert any_transition(turned)[0].tolist() == pytest.approx([0.5, 0.0, -1.0, 0.5])
    assert any_transition(np.zeros((0, 3), np.int8)).tolist() == [[-1.0] * 3]
