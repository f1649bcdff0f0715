import numpy as np
import pytest
import torch

from allocator_engine.train.first_policy import best_scale, imitation, turns, worth

SHARES = torch.linspace(0, 1, 201)


def best(need: float, level: float) -> float:
    return float(best_scale(torch.tensor(need), torch.tensor(level)))


def test_a_query_turns_where_it_begins_or_ceases_and_in_the_hop_behind():
    holds = np.array([[0, 0, 0, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]], np.int8)
    assert turns(holds).tolist() == [[0, 0, 0, 1, 1, 0, 0, 1, 1, 0], [0] * 10]


def test_what_is_not_known_is_not_taught():
    assert turns(np.array([[0, 0, -1, 1, 1, 1]], np.int8)).tolist() == [[0, 0, -1, 1, 1, 0]]
    assert turns(np.array([[-1, -1, 1, -1]], np.int8))[0, 0] == -1
    assert turns(np.full((2, 3), -1, np.int8)).tolist() == [[-1] * 3] * 2
    assert turns(np.zeros((0, 3), np.int8)).shape == (0, 3)


def test_the_best_scale_is_worth_most_of_all():
    for need, level in ((0.02, 0.0), (0.1, -0.5), (0.5, -1.0), (1.0, 0.0), (3.0, -2.0), (0.3, 2.0)):
        worths = worth(SHARES, torch.full_like(SHARES, need), torch.full_like(SHARES, level))
        assert best(need, level) ** 2 == pytest.approx(float(SHARES[worths.argmax()]), abs=0.01)


def test_scales_grow_with_the_chance_of_a_turn_and_what_is_not_worth_its_price_is_left_out():
    scales = [best(need, -1.0) for need in (0.0, 0.02, 0.3, 0.5, 1.0, 2.0)]
    assert scales[:2] == [0.0, 0.0]
    assert scales[2:] == sorted(set(scales[2:]))


def test_what_little_there_is_goes_to_what_is_sure():
    assert best(0.3, 2.0) > best(0.3, 0.0) > best(0.3, -1.0)
    assert best(0.3, -3.0) == 0.0 < best(8.0, -3.0)


def test_the_policy_is_taught_the_best_scales_and_can_leave_zero():
    need, level = torch.tensor([[0.5, 0.5]]), torch.zeros(1, 2)
    assert float(imitation(torch.full((1, 2), best(0.5, 0.0)), need, level)) == pytest.approx(0, abs=1e-6)
    low = torch.full((1, 2), -6.0, requires_grad=True)
    loss = imitation(torch.sigmoid(low), need, level)
    loss.backward()
    assert float(loss.detach()) > 1
    assert float(low.grad.max()) < -0.1
