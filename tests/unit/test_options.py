"""Answers that are one of some values, found token by token and read from the texts of servers."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mllm.openai.replies import Reply
from pipeline.mllm.openai.values import option_in, option_shares
from pipeline.mllm.options import LEAST_SHARE, OptionWalk, Spelled, hint, read_option, spellings
from pipeline.rules import Count, Rules
from pipeline.types import WatchQuery

CROWD = WatchQuery("crowd", "how many?", rules=Rules(count=Count(">", 5)))
COLOURS = ("red", "dark green", "dark blue")
LIGHT = WatchQuery("light", "what colour?", rules=Rules(choice=COLOURS))


def encode(text):
    """A tokenizer of words, whose digits are tokens of their own."""
    found = []
    for word in text.split():
        found += list(word) if word.isdigit() else [word]
    return [sum(ord(letter) * 31**place for place, letter in enumerate(token)) for token in found]


def walked(options, chances):
    """The shares of values when the model says the texts of `chances` with these probabilities."""
    walk = OptionWalk(Spelled.of(options, encode))
    while walk.open:
        path = next(iter(walk.open))
        said = {tuple(encode(text)): share for text, share in chances.items()}
        here = {tokens: share for tokens, share in said.items() if tokens[: len(path)] == path}
        total, behind = sum(here.values()), {}
        for tokens, share in here.items():
            if len(tokens) > len(path):
                behind[tokens[len(path)]] = behind.get(tokens[len(path)], 0.0) + share / total
        walk.feed(path, behind)
    return dict(zip(options, walk.shares, strict=True))


@given(st.dictionaries(st.integers(0, 99).map(str), st.floats(0.03, 1), min_size=1, max_size=6), st.floats(0, 1))
def test_a_number_has_the_probability_with_which_it_is_said(weights, elsewhere):
    total = sum(weights.values()) + elsewhere
    chances = {number: weight / total for number, weight in weights.items()}
    shares = walked(CROWD.options, chances | {"many": elsewhere / total})
    lost = sum(share for share in chances.values() if share < 10 * LEAST_SHARE)
    for number, share in chances.items():
        assert shares[number] == pytest.approx(share, abs=1e-6 + lost)
    assert sum(shares.values()) == pytest.approx(sum(chances.values()), abs=1e-6)


def test_a_beginning_of_several_values_is_asked_on():
    assert walked(COLOURS, {"dark blue": 0.6, "dark green": 0.1, "red": 0.2, "pink": 0.1}) == pytest.approx(
        {"red": 0.2, "dark green": 0.1, "dark blue": 0.6}
    )
    assert walked(CROWD.options, {"1": 0.5, "12": 0.4, "seven": 0.1})["12"] == pytest.approx(0.4)


def test_the_score_of_a_count_is_the_share_of_the_numbers_for_which_it_holds():
    shares = [0.0] * 100
    shares[5], shares[6], shares[12] = 0.2, 0.5, 0.1
    answer = read_option(CROWD, shares)
    assert (answer.value, answer.verdict) == ("6", "yes")
    assert (answer.score, answer.mass) == (pytest.approx(0.75), pytest.approx(0.8))


def test_an_answer_that_is_no_number_is_unknown():
    for shares in ([0.0] * 100, [0.004] * 100, [float("nan")] * 100):
        answer = read_option(CROWD, shares)
        assert (answer.verdict, answer.value) == ("unknown", None)


def test_the_score_of_a_choice_is_the_share_of_its_value():
    answer = read_option(LIGHT, [0.1, 0.0, 0.7])
    assert (answer.value, answer.score) == ("dark blue", pytest.approx(0.875))


@pytest.mark.parametrize("option", ["7", "red", "Dark  green", "日"])
def test_a_value_may_be_written_in_several_ways(option):
    ways = spellings(option)
    assert len(set(ways)) == len(ways)
    assert {way.strip().casefold() for way in ways} <= {" ".join(option.split()).casefold(), "seven"}


def test_a_question_says_what_may_answer_it():
    assert hint(WatchQuery("car", "is there a car?")) == ""
    assert hint(CROWD) == " Answer with a number."
    assert hint(LIGHT) == " Answer with one of: red, dark green, dark blue."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", "12"),
        ("There are 3 people.", "3"),
        ("three", "3"),
        ("**7**", "7"),
        ("between 2 and 4", None),
        ("3.5", None),
        ("-4", None),
        ("1,200", None),
        ("100", None),
        ("many", None),
        ("", None),
        ("9" * 5000, None),
    ],
)
def test_a_number_is_read_out_of_words_or_it_is_none(text, expected):
    found = option_in(text, CROWD.options)
    assert (None if found is None else CROWD.options[found]) == expected


def test_a_value_is_read_out_of_words():
    assert option_in("It is dark blue.", COLOURS) == 2
    assert option_in("red or dark blue", COLOURS) is None
    assert option_in("Blue", COLOURS) is None
    assert option_in("dark red", ("red", "dark red")) == 1


def reply(*positions):
    """A server's reply: of each token the likeliest in its place, the one that was said first."""
    content = [
        {"token": next(iter(top)), "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in top.items()]}
        for top in positions
    ]
    text = "".join(next(iter(top)) for top in positions)
    return Reply.model_validate_json(
        json.dumps({"choices": [{"message": {"content": text}, "logprobs": {"content": content}}]})
    )


def shares_of(said, options, lead=0):
    found = option_shares(said, options, lead)
    return {option: round(share, 4) for option, share in zip(options, found, strict=True) if share}


def test_a_servers_tokens_are_followed_where_they_may_begin_several_values():
    said = reply({"1": 0.8, "3": 0.2}, {"2": 0.75, "<|im_end|>": 0.25}, {"<|im_end|>": 1.0})
    assert shares_of(said, CROWD.options) == {"1": 0.2, "3": 0.2, "12": 0.6}
    said = reply({" dark": 0.9, " red": 0.1}, {" green": 1.0}, {".": 1.0})
    assert shares_of(said, COLOURS) == {"red": 0.1, "dark green": 0.9}
    assert shares_of(reply({"Red": 0.5, "red": 0.4, "pink": 0.1}), COLOURS) == {"red": 0.9}


def test_what_comes_before_a_value_is_passed_over_as_far_as_the_server_is_known_to():
    said = reply({"\n": 1.0}, {"red": 1.0})
    assert shares_of(said, COLOURS, lead=1) == {"red": 1.0}
    assert shares_of(said, COLOURS, lead=0) == {}


def test_a_reply_without_probabilities_is_none():
    empty = Reply.model_validate({"choices": [{"message": {"content": "red"}}]})
    assert option_shares(empty, COLOURS, 0) is None


@given(
    st.lists(st.dictionaries(st.text(max_size=4), st.floats(1e-6, 0.3), min_size=1, max_size=3), min_size=1, max_size=4)
)
def test_whatever_a_server_says_probabilities_stay_probabilities(positions):
    found = option_shares(reply(*positions), CROWD.options, 1)
    assert found is not None
    assert all(share >= 0 for share in found)
    assert sum(found) <= 1 + 1e-6
