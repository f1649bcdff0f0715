import math

import numpy as np
import torch

from allocator_engine.train.first_policy import forgone, needed, turns, worth

SCALES = torch.linspace(0, 1, 201)


def best(need: float, level: float) -> float:
    """The scale that is worth most."""
    worths = worth(SCALES, torch.full_like(SCALES, need), torch.full_like(SCALES, level))
    return float(SCALES[worths.argmax()])


def test_a_query_turns_where_it_begins_or_ceases_and_in_the_hop_behind():
    holds = np.array([[0, 0, 0, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]], np.int8)
    assert turns(holds).tolist() == [[0, 0, 0, 1, 1, 0, 0, 1, 1, 0], [0] * 10]


def test_what_is_not_known_is_not_taught():
    assert turns(np.array([[0, 0, -1, 1, 1, 1]], np.int8)).tolist() == [[0, 0, -1, 1, 1, 0]]
    assert turns(np.array([[-1, -1, 1, -1]], np.int8))[0, 0] == -1
    assert turns(np.full((2, 3), -1, np.int8)).tolist() == [[-1] * 3] * 2
    assert turns(np.zeros((0, 3), np.int8)).shape == (0, 3)


def test_needed_is_how_many_turn_and_unknown_where_nothing_is_known_of_any():
    turning = np.array([[0, 1, -1, -1], [0, 1, 0, -1]], np.int8)
    found = needed(turning)
    assert found[:3].tolist() == [0, 2, 0]
    assert math.isnan(found[3])
    assert np.isnan(needed(np.zeros((0, 2), np.int8))).all()


def test_the_best_scale_grows_with_the_chance_of_a_turn_and_what_is_not_worth_its_price_is_left_out():
    chances = [best(chance, -1.0) for chance in (0.0, 0.02, 0.2, 0.5, 1.0, 2.0)]
    assert chances[:2] == [0.0, 0.0]
    assert chances == sorted(chances)
    assert chances[-1] > 0.5


def test_what_little_there_is_goes_to_what_is_sure():
    assert best(0.3, 2.0) > best(0.3, 0.0) > best(0.3, -1.0)
    assert best(0.3, -4.0) == 0.0
    assert best(3.0, -4.0) > 0.0


def test_the_loss_is_least_at_the_best_scale_and_hears_only_of_known_frames():
    need, level = torch.tensor([[0.5, math.nan]]), torch.zeros(1, 2)
    losses = [float(forgone(torch.tensor([[float(scale), 1.0]]), need, level)) for scale in SCALES]
    assert float(SCALES[int(np.argmin(losses))]) == best(0.5, 0.0)
    assert float(forgone(torch.ones(1, 2), need * math.nan, level)) == 0
