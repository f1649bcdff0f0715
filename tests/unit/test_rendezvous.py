"""Rendezvous hashing: few move, and each place has its share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.rendezvous import ranked

KEYS = [f"camera-{number}" for number in range(2000)]
NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8, unique=True)
WEIGHT = st.floats(0.01, 10)


@given(st.text(), NAMES, st.data())
def test_every_name_is_ranked_once_whatever_their_order(key: str, names: list[str], data: st.DataObject) -> None:
    weights = {name: data.draw(WEIGHT) for name in names}
    assert sorted(ranked(key, weights)) == sorted(names)
    assert ranked(key, weights) == ranked(key, dict(reversed(weights.items())))


@given(st.text(), NAMES, st.data())
def test_where_a_name_goes_the_others_keep_their_order(key: str, names: list[str], data: st.DataObject) -> None:
    weights = {name: data.draw(WEIGHT) for name in names}
    gone = data.draw(st.sampled_from(names))
    left = {name: weight for name, weight in weights.items() if name != gone}
    assert ranked(key, left) == [name for name in ranked(key, weights) if name != gone]


@given(st.text(), NAMES, st.data())
def test_a_name_that_weighs_less_moves_only_what_it_loses(key: str, names: list[str], data: st.DataObject) -> None:
    weights = {name: data.draw(WEIGHT) for name in names}
    lighter = data.draw(st.sampled_from(names))
    before, after = ranked(key, weights)[0], ranked(key, weights | {lighter: weights[lighter] / 2})[0]
    assert before in (after, lighter)


@pytest.mark.parametrize("weights", [{"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 0.5, "c": 0.25}])
def test_each_name_has_the_share_of_its_weight(weights: dict[str, float]) -> None:
    first = [ranked(key, weights)[0] for key in KEYS]
    for name, weight in weights.items():
        assert first.count(name) / len(KEYS) == pytest.approx(weight / sum(weights.values()), abs=0.04)


def test_without_weight_a_name_is_last() -> None:
    assert all(ranked(key, {"a": 0.0, "b": 0.1})[0] == "b" for key in KEYS)
