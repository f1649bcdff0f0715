"""Servers as users have them: what each takes and how its model answers is found out at the start, or said."""

import json
from collections.abc import Iterator, Mapping, Sequence

import pytest
from structlog.testing import capture_logs

from pipeline.build import build_mllm
from pipeline.cli.run import mllm_of
from pipeline.clock import SystemClock
from pipeline.config.site import SiteConfig, parse_site
from pipeline.errors import ConfigError, MLLMUnavailable
from pipeline.service.doctor import examine
from pipeline.types import Answer
from tests.flow.test_openai import GATE, MANY, MODEL, refused, seconds, started
from tests.mllm_server import MLLMServer, Prompt, Turn, serving
from tests.unit.test_openai_replies import completion


@pytest.fixture
def server() -> Iterator[MLLMServer]:
    with serving() as running:
        yield running


async def answers(server: MLLMServer, **options: object) -> tuple[Answer, ...]:
    async with started(server, **options) as mllm:
        return (await mllm.ask(seconds(2), MANY[:3])).answers


# Parameters


@pytest.mark.parametrize(
    "forbidden", [["max_tokens"], ["temperature"], ["max_tokens", "temperature"], ["chat_template_kwargs"]]
)
async def test_a_server_that_knows_a_parameter_by_another_name_or_not_at_all_is_asked_without_it(
    server: MLLMServer, forbidden: list[str]
) -> None:
    expected = await answers(server)
    server.habits.forbids = forbidden
    assert await answers(server, family="qwen3_5" if "chat_template_kwargs" in forbidden else None) == expected
    assert not set(forbidden) & set(server.asked[-1].request)


async def test_a_server_that_shows_five_of_the_likeliest_tokens_is_asked_for_five(server: MLLMServer) -> None:
    server.habits.most_top = 5
    for answer in await answers(server):
        assert answer.mass > 0.7
    assert {one.request["top_logprobs"] for one in server.asked} == {5}


async def test_answers_in_words_are_asked_for_in_the_same_way(server: MLLMServer) -> None:
    server.habits.forbids = ["max_tokens"]
    async with started(server) as mllm:
        assert len(await mllm.say(seconds(1), ["What colour is it?"], 6)) == 1
    assert server.asked[-1].request["max_completion_tokens"] == 6


async def test_a_server_that_fails_on_what_it_does_not_know_is_asked_in_another_way(server: MLLMServer) -> None:
    server.habits.refuse = lambda prompt: Turn(500, b"KeyError") if "max_tokens" in prompt.request else None
    assert len(await answers(server)) == 3


async def test_a_server_that_refuses_small_pictures_is_used_with_larger_ones(server: MLLMServer) -> None:
    def refuse(prompt: Prompt) -> Turn | None:
        return Turn(400, b"too small") if any(one.shape[0] < 128 for one in prompt.pictures) else None

    server.habits.refuse = refuse
    assert "mllm.min_tokens_per_segment: 16" in await refused(server)
    async with started(server, min_tokens_per_segment=16) as mllm:
        assert mllm.info.grid.min_pixels == 128 * 128


async def test_a_server_that_counts_no_tokens_is_refused_by_name(server: MLLMServer) -> None:
    complete = server.complete
    server.complete = lambda *given: {k: v for k, v in complete(*given).items() if k != "usage"}  # type: ignore[method-assign]
    assert "does not count the tokens of a prompt" in await refused(server)


# Which token answers


@pytest.mark.parametrize(
    ("yes", "no"),
    [("Ġyes", "Ġno"), ("▁Yes", "▁No"), ("Yes.", "No."), ("是", "否"), ("æĺ¯", "åĲ¦"), ('"yes"', '"no"')],
)
async def test_an_answer_counts_however_its_token_is_spelled(server: MLLMServer, yes: str, no: str) -> None:
    expected = [answer.score for answer in await answers(server)]
    server.habits.spelled, server.habits.spelled_no = {yes: 1.0}, {no: 1.0}
    with capture_logs() as logged:
        found = await answers(server)
    assert [answer.score for answer in found] == pytest.approx(expected)
    assert logged == []


@pytest.mark.parametrize(
    "lead", [["\n"], ["**"], ["\n", "\n"], ["<answer>", "\n"], ["<think>", "\n\n", "</think>", "\n\n"]]
)
async def test_what_comes_before_an_answer_is_found_at_the_start_and_told(
    server: MLLMServer, lead: Sequence[str]
) -> None:
    expected = await answers(server)
    server.habits.lead = lead
    with capture_logs() as logged:
        async with started(server) as mllm:
            found = (await mllm.ask(seconds(2), MANY[:3])).answers
            assert mllm.info.notes == (f"an answer begins after {len(lead)} tokens without a word",)
    assert found == expected
    assert server.asked[-1].request["max_tokens"] == len(lead) + 1
    assert [one["event"] for one in logged] == ["mllm_server_manners"]


@pytest.mark.parametrize("spelled", ["Sure", "1", "The", "maybe", ""])
async def test_a_model_that_says_neither_yes_nor_no_is_refused_with_what_it_says(
    server: MLLMServer, spelled: str
) -> None:
    server.habits.spelled, server.habits.spelled_no = {spelled: 1.0}, {spelled: 1.0}
    server.habits.mass = 1.0
    said = await refused(server)
    assert f"its answer begins with '{spelled}'" in said
    assert "unknown" in said


# Models that think


SWITCHES = {
    "vllm": lambda request: request.get("chat_template_kwargs") == {"enable_thinking": False},
    "effort": lambda request: request.get("reasoning_effort") == "none",
    "deepseek": lambda request: request.get("chat_template_kwargs") == {"thinking": False},
    "dashscope": lambda request: request.get("enable_thinking") is False,
    "glm": lambda request: request.get("thinking") == {"type": "disabled"},
}
THOUGHT = ("<think>", "\n", "Okay", ", ", "yes", " it", " may", " be", "...") * 2


@pytest.mark.parametrize("switch", SWITCHES)
async def test_a_model_that_thinks_is_asked_not_to_where_the_server_has_a_switch(
    server: MLLMServer, switch: str
) -> None:
    expected = await answers(server)
    server.habits.thinks = lambda request: () if SWITCHES[switch](request) else THOUGHT
    async with started(server) as mllm:
        assert (await mllm.ask(seconds(2), MANY[:3])).answers == expected
        assert mllm.info.notes[0].startswith("its model is kept from thinking by ")
        await mllm.say(seconds(1), ["What colour is it?"])
    assert SWITCHES[switch](server.asked[-1].request)


async def test_switches_that_a_server_refuses_do_not_end_the_search(server: MLLMServer) -> None:
    server.habits.thinks = lambda request: () if SWITCHES["glm"](request) else THOUGHT
    server.habits.forbids = ["chat_template_kwargs", "enable_thinking", "reasoning_effort"]
    assert len(await answers(server)) == 3


@pytest.mark.parametrize("samples", [0, 5])
async def test_a_model_that_thinks_whatever_it_is_told_is_refused_with_the_reason(
    server: MLLMServer, samples: int
) -> None:
    server.habits.thinks = lambda request: THOUGHT
    server.habits.logprobs = not samples
    said = await refused(server, samples=samples)
    assert "its model thinks first" in said
    assert "reasoning_effort" in said


async def test_a_check_says_so(server: MLLMServer) -> None:
    server.habits.thinks = lambda request: THOUGHT
    site = parse_site({"mllm": {"use": f"openai:{server.url}#{MODEL}"}, "store": "sqlite://"})
    assert "its model thinks first" in await found(site)
    server.habits.thinks, server.habits.lead = lambda request: (), ["\n"]
    assert "an answer begins after 1 tokens" in await found(site)


async def found(site: SiteConfig) -> str:
    """What a check finds out about the MLLM."""
    return next(one.detail for one in await examine(site, SystemClock()) if one.what == "mllm")


# Without log-probabilities


async def test_without_log_probabilities_a_score_is_the_share_of_yes_among_samples(server: MLLMServer) -> None:
    server.habits.logprobs = False
    said = iter(["yes", "no", "yes", "Yes.", "maybe"])
    with capture_logs() as logged:
        async with started(server, samples=5) as mllm:
            assert "share of yes among 5 answers" in mllm.info.notes[0]
            server.habits.refuse = lambda prompt: Turn(200, worded(next(said)))
            (answer,) = (await mllm.ask(seconds(2), [GATE])).answers
    assert (answer.score, answer.mass) == (pytest.approx(3 / 4), pytest.approx(4 / 5))
    assert sorted(one.request["seed"] for one in server.asked) == [0, 1, 2, 3, 4]
    assert {one.request["temperature"] for one in server.asked} == {1}
    assert "logprobs" not in server.asked[0].request
    assert [one["event"] for one in logged] == ["mllm_server_manners"]


async def test_samples_of_every_question_share_the_pictures_that_the_first_has_read(server: MLLMServer) -> None:
    server.habits.logprobs = False
    async with started(server, samples=3) as mllm:
        usage = (await mllm.ask(seconds(3), MANY[:2])).usage
    assert usage.encoded_tokens == seconds(3).tokens
    assert [(one.shown, one.named) for one in server.asked] == [(3, 0)] + [(0, 3)] * 5


async def test_where_there_are_log_probabilities_no_samples_are_taken(server: MLLMServer) -> None:
    expected = await answers(server)
    assert await answers(server, samples=5) == expected
    assert len(server.asked) == 3


async def test_without_log_probabilities_the_refusal_names_the_choice(server: MLLMServer) -> None:
    server.habits.logprobs = False
    assert "mllm.samples: 5" in await refused(server)


def worded(text: str) -> bytes:
    return b'{"choices": [{"message": {"content": "%s"}}], "usage": {"prompt_tokens": 99}}' % text.encode()


# Other names


async def test_a_gateway_that_names_the_model_otherwise_is_believed_if_the_site_says_so(server: MLLMServer) -> None:
    expected = await answers(server)
    server.habits.answers_as = "hosted_vllm/Qwen3-VL-4B-Instruct"
    with pytest.raises(MLLMUnavailable, match=r"mllm\.any_model: true"):
        await answers(server)
    assert await answers(server, any_model=True) == expected


async def test_a_model_that_is_not_listed_is_believed_to_be_there_if_the_site_says_so(server: MLLMServer) -> None:
    server.habits.models = {"gpt-3.5-turbo": "/weights/a", MODEL: "/weights/a"}
    expected = await answers(server)
    listed, server.habits.models = server.habits.models, {"gpt-3.5-turbo": "/weights/a"}
    assert "mllm.any_model: true" in await refused(server)
    complete = server.complete

    def any_name(request: dict, headers: Mapping[str, str]) -> dict:
        server.habits.models = listed
        try:
            return complete(request, headers)
        finally:
            server.habits.models = {"gpt-3.5-turbo": "/weights/a"}

    server.complete = any_name  # type: ignore[method-assign]
    assert await answers(server, any_model=True) == expected


async def test_a_reply_that_names_no_model_is_believed(server: MLLMServer) -> None:
    async with started(server) as mllm:
        unnamed = completion({"yes": 1.0})
        del unnamed["model"]
        server.habits.next.append(Turn(200, json.dumps(unnamed).encode()))
        assert (await mllm.ask(seconds(1), [GATE])).answers[0].score == 1.0


# Settings


@pytest.mark.parametrize(
    ("setting", "habit", "said"),
    [
        ({"min_tokens_per_segment": 64}, {"least_cells": 64}, "mllm.min_tokens_per_segment: 64"),
        ({"samples": 5}, {"logprobs": False}, "mllm.samples: 5"),
        ({"any_model": True}, {"answers_as": "another"}, "mllm.any_model: true"),
    ],
)
async def test_what_an_error_advises_to_set_has_an_effect(
    server: MLLMServer, setting: dict, habit: dict, said: str
) -> None:
    for name, value in habit.items():
        setattr(server.habits, name, value)
    use = f"openai:{server.url}#{MODEL}"
    without = build_mllm(parse_site({"mllm": use}).mllm, SystemClock())
    with pytest.raises((ConfigError, MLLMUnavailable), match=said):
        await without.start()
    await without.close()
    mllm = build_mllm(parse_site({"mllm": {"use": use, **setting}}).mllm, SystemClock())
    await mllm.start()
    assert len((await mllm.ask(seconds(1), [GATE])).answers) == 1
    await mllm.close()


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        (None, {}),
        ("yard", {}),
        ({"any_model": True}, {"any_model": True}),
        ({"use": "openai:http://a/v1#m", "api_key": "${KEY}"}, {"api_key": "${KEY}"}),
        ({"use": "openai:http://other/v1#m", "api_key": "${KEY}"}, {}),
    ],
)
def test_an_mllm_on_the_command_line_has_the_files_settings_unless_the_file_names_another(
    known: object, kept: dict
) -> None:
    assert mllm_of(known, "openai:http://a/v1#m", None) == {"use": "openai:http://a/v1#m", **kept}
