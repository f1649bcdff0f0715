"""What a server's replies mean, and that nothing in them is believed unchecked."""

import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.mllm.openai.address import Shown
from pipeline.mllm.openai.exchange import Received
from pipeline.mllm.openai.refusals import refusal, status_of
from pipeline.mllm.openai.replies import ModelList, Reply, is_lead, verdict_in, verdict_of, words_in
from pipeline.mllm.prompt import NO, YES, read_answer

HUGE = 10**400
SCALARS = st.none() | st.booleans() | st.integers() | st.just(HUGE) | st.just(-1) | st.floats() | st.text(max_size=20)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def completion(*tops: dict[str, float], content: str = "yes", **more: object) -> dict:
    """A chat completion, of which each token shows the probabilities of `tops`."""
    places = [
        {
            "token": max(top, key=lambda token: top[token]),
            "logprob": -0.1,
            "top_logprobs": [{"token": token, "logprob": math.log(share)} for token, share in top.items()],
        }
        for top in tops
    ]
    choice = {"message": {"role": "assistant", "content": content}, "logprobs": {"content": places}}
    return {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 9}, **more}


def read(fields: object) -> Reply:
    return Reply.model_validate_json(json.dumps(fields))


def score(*tops: dict[str, float], lead: int = 0) -> tuple[float, float]:
    shares = read(completion(*tops)).log_shares(lead)
    assert shares is not None
    answer = read_answer("w", *shares)
    return round(answer.score, 6), round(answer.mass, 6)


# Which token is the answer


@pytest.mark.parametrize(
    "token", [*YES, "Ġyes", "ĠYes", "▁yes", "Yes.", "yes,", "**Yes", '"yes"', "yes\n", "是", "æĺ¯"]
)
def test_a_yes_is_one_however_it_is_spelled(token: str) -> None:
    assert score({token: 0.9, "no": 0.1}) == (0.9, 1.0)


@pytest.mark.parametrize("token", [*NO, "Ġno", "▁No", "No.", "no!", "否", "不", "不是"])
def test_a_no_is_one_however_it_is_spelled(token: str) -> None:
    assert score({token: 0.9, "yes": 0.1}) == (0.1, 1.0)


@pytest.mark.parametrize("token", ["", "Yesterday", "not", "none", "now", "<think>", "Ġ", "maybe", "y", "1"])
def test_another_word_is_neither(token: str) -> None:
    assert score({token: 0.95, "yes": 0.03})[1] == 0.03
    assert verdict_of(token) is None


def test_a_token_that_only_its_bytes_tell_is_read_by_them() -> None:
    fields = completion({"?": 0.9, "no": 0.1})
    fields["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["bytes"] = list("是".encode())
    assert read(fields).log_shares() == pytest.approx((math.log(0.9), math.log(0.1)))


@pytest.mark.parametrize(
    "lead", [["\n"], ["**"], ["Ċ", "Ċ"], ["<think>", "\n\n", "</think>", "\n\n"], ["Answer", ":", " "]]
)
def test_what_holds_no_words_may_come_before_an_answer(lead: list[str]) -> None:
    places = [{token: 0.99} for token in lead]
    assert score(*places, {"yes": 0.8, "no": 0.2}, lead=15) == (0.8, 1.0)
    assert score(*places, {"yes": 0.8, "no": 0.2}, lead=len(lead) - 1)[1] == 0.0


@pytest.mark.parametrize("lead", [["<think>", "\n"], ["I", " say"], ["<think>", "Okay", ","], ["Maybe", " "]])
def test_a_yes_within_a_thought_or_a_sentence_is_no_answer(lead: list[str]) -> None:
    assert score(*({token: 0.99} for token in lead), {"yes": 0.99}, lead=15)[1] == 0.0


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Yes", "yes"),
        ("yes, there is a car.", "yes"),
        ("**No**", "no"),
        ("\n\nNo.", "no"),
        ("Answer: no", "no"),
        ("<answer>yes</answer>", "yes"),
        ("<think>\n\n</think>\n\nYes.", "yes"),
        ("<think>No, wait", None),
        ("是的，有一辆车。", "yes"),
        ("不是", "no"),
        ("没有", "no"),
        ("Not sure", None),
        ("I cannot say yes or no", None),
        ("", None),
        ("1", None),
    ],
)
def test_an_answer_in_words_is_read_by_its_first_word(text: str, verdict: str | None) -> None:
    assert verdict_in(text) == verdict


@pytest.mark.parametrize("piece", ["<", "<>", "< >", "<think>", "</think>", "<think", "answer", "<a", "不", "\n", "*"])
def test_no_text_takes_long_to_read(piece: str) -> None:
    text, began_s = piece * 200_000, time.process_time()
    for read_it in (verdict_in, is_lead, verdict_of):
        read_it(text)
        read_it(text + "x")
    assert read(completion({"yes": 0.9}, content=text)).thinks in (True, False)
    assert time.process_time() - began_s < 10, "it takes more than in proportion to the text"


# Hostile replies


@settings(deadline=None)
@given(ANYTHING)
def test_whatever_json_arrives_is_a_reply_or_is_none(fields: object) -> None:
    use(json.dumps(fields).encode())


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_whatever_bytes_arrive_are_a_reply_or_are_none(body: bytes) -> None:
    use(body)


@settings(deadline=None)
@given(st.data())
def test_whatever_stands_in_one_place_of_a_reply_it_is_a_reply_or_is_none(data: st.DataObject) -> None:
    fields = completion({"yes": 0.5, "no": 0.4}, {"\n": 0.9})
    inner: object = fields
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))  # type: ignore[arg-type]
        key = data.draw(st.sampled_from(keys))
        below = inner[key]  # type: ignore[index]
        if not isinstance(below, dict | list) or not below or data.draw(st.booleans()):
            inner[key] = data.draw(ANYTHING)  # type: ignore[index]
            break
        inner = below
    use(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"error":' * 100_000,
        b'{"choices":' + b"[" * 100_000,
        b'{"a": 1' + b"0" * 400 + b"}",
        b'{"a": 1' + b"0" * 5000 + b"}",
        b'{"error": {"message": "\\ud800"}}',
        b"\xff\xfe\x00",
        b"",
        b"null",
        b"\xef\xbb\xbf{}",
        b'{"choices": [{"error": {"code": 1e400, "message": 7}}]}',
        b'{"error": [[["x"]]]}',
        b'{"detail": [{"loc": ["body"], "msg": "too long"}]}',
    ],
)
def test_depth_and_size_of_what_arrives_end_in_no_crash(body: bytes) -> None:
    use(body)


def use(body: bytes) -> None:
    """Do with a reply all that is done with one."""
    for status in (200, 400, 500):
        found = status_of(Received(status, {}, body))
        assert found == 200 or 400 <= found < 600
        error = refusal(Received(status, {}, body), found, "http://host", False, Shown("http://host/v1", None))
        assert len(str(error)) < 1000
    assert isinstance(words_in(body), str)
    try:
        reply = Reply.model_validate_json(body)
    except ValidationError:
        return
    assert 0 <= reply.prompt_tokens <= 10**9
    assert 0 <= (reply.cached_tokens or 0) <= reply.prompt_tokens
    assert isinstance(reply.text + reply.begins, str)
    assert reply.thinks in (True, False)
    assert verdict_in(reply.text) in ("yes", "no", None)
    for lead in (0, 15):
        if (shares := reply.log_shares(lead)) is not None:
            answer = read_answer("w", *shares)
            assert 0.0 <= answer.score <= 1.0
            assert 0.0 <= answer.mass <= 1.0


@pytest.mark.parametrize("count", [-1, HUGE, 1e30, "many", [], 1.5])
def test_a_number_that_can_be_none_makes_no_reply(count: object) -> None:
    with pytest.raises(ValidationError):
        read(completion({"yes": 0.9}, usage={"prompt_tokens": count}))
    with pytest.raises(ValueError):
        ModelList.model_validate({"data": [{"id": "m", "max_model_len": count}]})


@pytest.mark.parametrize("logprob", [0.5, math.inf, math.nan, HUGE])
def test_a_probability_that_can_be_none_is_none(logprob: float) -> None:
    fields = completion({"yes": 0.9})
    fields["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = logprob
    assert read(fields).log_shares() is None


# Errors, whoever wrote the server


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"error": {"message": "too long", "code": 400}}, 400, "too long"),
        ({"error": {"message": "busy", "code": "429"}}, 429, "busy"),
        ({"error": "prompt too long"}, 400, "prompt too long"),
        ({"object": "error", "message": "too long", "code": 40303}, 400, "too long"),
        ({"detail": [{"loc": ["body"], "msg": "no such field"}]}, 400, "no such field"),
        ({"detail": "Internal failure", "status": 502}, 400, "Internal failure"),
        ({"choices": [{"error": {"code": 502, "message": "upstream"}, "message": None}]}, 502, "upstream"),
        ({"error": {"code": 422, "msg": "picture too small"}}, 422, "picture too small"),
    ],
)
def test_an_error_in_a_reply_of_200_is_that_error(body: dict, status: int, said: str) -> None:
    received = Received(200, {}, json.dumps(body).encode())
    assert status_of(received) == status
    assert said in words_in(received.body)


def test_a_reply_that_only_has_a_place_for_errors_is_none() -> None:
    assert status_of(Received(200, {}, json.dumps(completion({"yes": 0.9}, error=None, detail="x")).encode())) == 200


# What is shown


@settings(deadline=None)
@given(st.text(alphabet="abcXYZ019+/=-_.", min_size=3, max_size=40), st.text(max_size=30), st.text(max_size=30))
def test_no_three_characters_of_a_key_are_shown(key: str, before: str, behind: str) -> None:
    shown = Shown("http://host/v1", key)(f"{before}{key}{behind}{key[1:]}{key[:-1]}")
    assert not [at for at in range(len(key) - 2) if key[at : at + 3] in shown]


def test_no_part_of_the_address_is_shown_that_may_be_a_secret() -> None:
    shown = Shown("http://user:p%40ss@host/tenant-hidden/v1?token=hidden", None)
    text = shown("no route user p@ss p%40ss /tenant-hidden/v1/chat token=hidden")
    assert not [secret for secret in ("user", "p@ss", "p%40ss", "hidden") if secret in text]
