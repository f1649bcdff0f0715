import pytest
import torch

from allocator_engine.model.worth import HALF, best_share, price, worth_of_transitions

SHARES = torch.linspace(0, 1, 201)


def best(expected: float, level: float) -> float:
    return float(best_share(torch.tensor(expected), torch.tensor(level)))


def worth(share: torch.Tensor, expected: float, level: float) -> torch.Tensor:
    """In beginnings, as the module says it in words."""
    return expected * share * (1 + HALF) / (share + HALF) - price(torch.tensor(level)) * share


def test_the_best_share_is_worth_most_of_all():
    for expected, level in ((0.02, 0.0), (0.1, -0.5), (0.5, -1.0), (1.0, 0.0), (3.0, -2.0), (0.3, 2.0)):
        worths = worth(SHARES, expected, level)
        assert best(expected, level) == pytest.approx(float(SHARES[worths.argmax()]), abs=0.01)


def test_shares_grow_with_the_chance_of_a_turn_and_what_is_not_worth_its_price_is_left_out():
    shares = [best(expected, -1.0) for expected in (0.0, 0.03, 0.1, 0.15, 0.2, 0.3)]
    assert shares[:2] == pytest.approx([0.0, 0.0], abs=1e-3)
    assert shares[2:] == sorted(set(shares[2:]))


def test_what_little_there_is_goes_to_what_is_sure():
    assert best(0.05, 2.0) > best(0.05, 0.0) > best(0.05, -1.0)
    assert best(0.2, -3.0) < 1e-3 < 0.1 < best(8.0, -3.0)


def test_a_beginning_is_worth_more_than_an_end():
    sure = torch.tensor(1.0)
    assert float(worth_of_transitions(sure, sure)) == 1.0
    assert 0 < float(worth_of_transitions(sure, 0 * sure)) < 0.5
    assert float(worth_of_transitions(0 * sure, sure)) == 0.0
