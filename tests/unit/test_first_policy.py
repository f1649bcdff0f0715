import numpy as np
import torch

from allocator_engine.train.first_policy import first_scales, imitation, needed


def test_needed_are_the_first_hop_and_those_in_which_a_query_turns_with_the_one_behind():
    holds = np.array([[0, 0, 0, 1, 1, 1, 1, 0, 0, 0]], np.int8)
    assert needed(holds).tolist() == [1, 1, 0, 1, 1, 0, 0, 1, 1, 0]
    other = np.array([[0, 0, 0, 0, 0, 0, 0, 0, 0, 1]], np.int8)
    assert needed(np.concatenate([holds, other])).tolist() == [1, 1, 0, 1, 1, 0, 0, 1, 1, 1]


def test_what_is_not_known_is_not_taught():
    assert needed(np.array([[0, 0, 0, -1, 0, 0]], np.int8)).tolist() == [1, 1, 0, -1, -1, 0]
    assert needed(np.full((2, 3), -1, np.int8)).tolist() == [-1, -1, -1]
    asked_once = np.array([[0, 0, 0, 0], [-1, -1, 1, -1]], np.int8)
    assert needed(asked_once).tolist() == [1, 1, 0, 0]
    assert needed(np.zeros((0, 3), np.int8)).tolist() == [-1, -1, -1]


def test_scales_grow_with_the_grant_and_with_the_need():
    level = torch.linspace(-5, 2, 50)
    quiet, busy = first_scales(torch.zeros(50), level), first_scales(torch.ones(50), level)
    for scales in (quiet, busy):
        assert bool((scales.diff() >= 0).all())
        assert float(scales.min()) > 0
        assert float(scales.max()) == 1.0
    assert bool((busy >= quiet).all())
    assert float(quiet[-1]) == 1.0, "with plenty to spend everything is shown"
    assert float(busy[25]) > 10 * float(quiet[25]), "with little it is saved up"


def test_only_known_frames_are_imitated():
    level = torch.zeros(1, 3)
    need = torch.tensor([[1, 0, -1]])
    exact = first_scales(need, level)
    assert float(imitation(exact, need, level)) == 0
    assert float(imitation(exact + torch.tensor([0.0, 0.0, 0.5]), need, level)) == 0
    assert float(imitation(exact + 0.1, need, level)) > 0
    assert float(imitation(exact, torch.full((1, 3), -1), level)) == 0
