"""A server that refuses prompts, in whatever words and with whatever status: less is sent, and the watches go on."""

import json
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from pipeline.config.mllm import OpenAIConfig
from pipeline.core.budget import Rate
from pipeline.core.context import Context, ContextRules
from pipeline.core.hops import HopRules
from pipeline.core.state import StreamRun
from pipeline.errors import MLLMUnavailable
from pipeline.loop import Runtime, watch_stream
from pipeline.mllm.openai.backend import OpenAIMLLM
from pipeline.testing import ManualClock, ScriptedSource
from pipeline.types import WatchQuery
from tests.checkpoints import segment
from tests.flow.test_loop import CAR, VAN, build
from tests.flow.test_loop import seconds as frames
from tests.flow.test_openai import GATE, GRID, MANY, seconds, started
from tests.mllm_server import MODEL, MLLMServer, Prompt, Turn, serving

SECONDS = 24


@pytest.fixture
def server() -> Iterator[MLLMServer]:
    with serving() as running:
        running.habits.share = 0.9
        yield running


def error(message: str) -> dict:
    return {"error": {"message": message, "code": 400}}


WORDS = {
    "vllm": (400, error("You set image=4 (or defaulted to 1) in `--limit-mm-per-prompt`, but passed 6 image items.")),
    "sglang": (400, {"object": "error", "message": "The input is longer than the model's context length", "code": 400}),
    "llama.cpp": (400, error("the request exceeds the available context size")),
    "llama.cpp, old": (500, error("context size exceeded")),
    "tgi": (422, {"error": "Input validation error", "error_type": "validation"}),
    "fastapi": (422, {"detail": [{"loc": ["body"], "msg": "too long"}]}),
    "nginx": (413, b"<html><h1>413 Request Entity Too Large</h1></html>"),
    "openrouter": (200, {"error": {"message": "Provider returned error", "code": 400}, "user_id": "x"}),
    "of a choice": (200, {"choices": [{"error": {"code": 400, "message": "no"}, "message": {"content": ""}}]}),
    "in Chinese": (400, error("输入内容过长")),
    "without words": (400, b""),
    "odd numbers": (400, error("maximum context length is 1 tokens")),
    "a number too large": (400, error("At most 99999999999999999999 image(s) may be provided in one prompt.")),
    "deep": (400, b'{"error":' * 5000),
    "teapot": (418, {"title": "no"}),
}
LIMITS: dict[str, Callable[[Prompt], bool]] = {
    "pictures": lambda prompt: len(prompt.pictures) > 4,
    "one picture": lambda prompt: len(prompt.pictures) > 1,
    "tokens": lambda prompt: prompt.tokens > 300,
    "a picture's size": lambda prompt: max(one.shape[0] * one.shape[1] for one in prompt.pictures) > 160 * 160,
}


def refusing(server: MLLMServer, words: str, limit: str) -> None:
    status, body = WORDS[words]
    turn = Turn(status, body if isinstance(body, bytes) else json.dumps(body).encode())
    server.habits.refuse = lambda prompt: turn if LIMITS[limit](prompt) else None


async def watched(
    server: MLLMServer, *queries: WatchQuery, mllm: OpenAIMLLM | None = None
) -> tuple[StreamRun, Runtime]:
    """A stream, of which the first half shows what is asked for."""
    mllm = mllm or OpenAIMLLM(server.url, MODEL, OpenAIConfig(use="openai:test"))
    await mllm.start()
    _, house = build(*queries or [CAR], mllm=mllm, rate=Rate(100, 1000))  # type: ignore[arg-type]
    run = StreamRun("yard", HopRules(), Context.empty("yard", ContextRules()))
    await watch_stream(run, ScriptedSource(frames(SECONDS // 2)), house)
    server.habits.share = 0.1
    await watch_stream(run, ScriptedSource(frames(SECONDS // 2, start=SECONDS // 2)), house)
    await mllm.close()
    return run, house


@pytest.mark.parametrize("limit", LIMITS)
async def test_a_limit_that_nobody_told_costs_few_hops_and_the_watch_opens_and_clears(
    server: MLLMServer, limit: str
) -> None:
    refusing(server, "without words", limit)
    run, house = await watched(server)
    assert [event.type for event in house.outbox.events] == ["watch.opened", "watch.cleared"]
    assert run.counts.skipped <= 8
    assert run.counts.answers == SECONDS - run.counts.skipped


@pytest.mark.parametrize("words", WORDS)
async def test_a_refusal_is_a_refusal_in_any_words(server: MLLMServer, words: str) -> None:
    refusing(server, words, "pictures")
    run, house = await watched(server)
    assert [event.type for event in house.outbox.events] == ["watch.opened", "watch.cleared"]
    assert run.counts.skipped <= 4


@pytest.mark.parametrize("words", ["vllm", "without words"])
async def test_the_next_prompt_after_a_refusal_is_half_as_large_at_most(server: MLLMServer, words: str) -> None:
    refusing(server, words, "pictures")
    await watched(server)
    shown = [one.shown + one.named for one in server.asked if one.line == f"Question: {CAR.question}"]
    first = next(place for place, count in enumerate(shown) if count > 4)
    behind = shown[first + 1 :]
    assert min(behind[:2]) <= shown[first] // 2  # the same may be tried once more with all its pixels


async def test_one_odd_refusal_is_soon_forgotten(server: MLLMServer) -> None:
    async with started(server) as mllm:
        for count in range(1, 9):
            await mllm.ask(seconds(count), [GATE])
        server.habits.next.append(Turn(400, json.dumps(error("maximum context length is 1 tokens")).encode()))
        with pytest.raises(MLLMUnavailable, match="maximum context length is 1 tokens"):
            await mllm.ask(seconds(8), [GATE])
        assert mllm.room(seconds(8)).segments == 4
        assert mllm.counters.too_large == 1
        for count in range(2, 9):
            await mllm.ask(seconds(min(count, mllm.room(seconds(8)).segments)), [GATE])
        assert mllm.room(seconds(8)).segments > 1000
        assert len((await mllm.ask(seconds(9), [GATE])).answers) == 1


async def test_what_is_refused_is_tried_again_after_a_while(server: MLLMServer) -> None:
    clock = ManualClock()
    async with started(server, clock=clock) as mllm:
        server.habits.max_images = 4
        await mllm.ask(seconds(3), [GATE])
        with pytest.raises(MLLMUnavailable, match=r"At most 4 image"):
            await mllm.ask(seconds(6), [GATE])
        assert mllm.room(seconds(3)).segments == 4
        server.habits.max_images = 1000
        await mllm.ask(seconds(4), [GATE])
        assert mllm.room(seconds(3)).segments == 4
        clock.advance(61)
        await mllm.ask(seconds(4), [GATE])
        assert mllm.room(seconds(3)).segments > 4


async def test_one_streams_refusals_are_its_own_and_go_with_it(server: MLLMServer) -> None:
    async with started(server) as mllm:
        server.habits.max_images = 4
        with pytest.raises(MLLMUnavailable):
            await mllm.ask(seconds(6), [GATE])
        assert mllm.room(seconds(1)).segments == 4
        assert mllm.room(seconds(1, "other")).segments > 1000
        mllm.forget("yard")
        assert mllm.room(seconds(1)).segments > 1000


async def test_a_failure_with_no_more_than_was_taken_before_bounds_nothing(server: MLLMServer) -> None:
    async with started(server) as mllm:
        await mllm.ask(seconds(6), [GATE])
        server.habits.next.append(Turn(500, b"the engine died"))
        with pytest.raises(MLLMUnavailable):
            await mllm.ask(seconds(6), [GATE])
        assert mllm.room(seconds(6)).segments > 1000
        assert mllm.counters.too_large == 0


async def test_a_server_that_dies_of_long_prompts_is_sent_less(server: MLLMServer) -> None:
    async with started(server) as mllm:
        await mllm.ask(seconds(2), [GATE])
        server.habits.next.append(lambda handler: handler.break_off())
        with pytest.raises(MLLMUnavailable, match="broke off"):
            await mllm.ask(seconds(8), [GATE])
        assert mllm.room(seconds(8)).segments == 4


@pytest.mark.parametrize("refused", [[0], [1], [3], [0, 3]])
async def test_a_question_that_alone_is_refused_is_unknown_and_the_others_are_answered(
    server: MLLMServer, refused: list[int]
) -> None:
    async with started(server) as mllm:
        expected = (await mllm.ask(seconds(2), MANY[:4])).answers
        lines = [f"Question: {MANY[number].question}" for number in refused]
        server.habits.refuse = lambda prompt: (
            Turn(400, b'{"error": "inappropriate"}')
            if prompt.request["messages"][-1]["content"][-1]["text"] in lines
            else None
        )
        answers = (await mllm.ask(seconds(2), MANY[:4])).answers
        assert [one.verdict == "unknown" for one in answers] == [number in refused for number in range(4)]
        assert [one for n, one in enumerate(answers) if n not in refused] == [
            one for n, one in enumerate(expected) if n not in refused
        ]
        assert mllm.room(seconds(2)).segments > 1000


async def test_a_second_look_that_would_be_refused_is_not_sent(server: MLLMServer) -> None:
    async with started(server) as mllm:
        server.habits.max_images = 4
        with pytest.raises(MLLMUnavailable):
            await mllm.ask(seconds(6), [GATE])
        await mllm.ask(seconds(4), [GATE])
        server.asked.clear()
        with pytest.raises(MLLMUnavailable, match="second look") as error:
            await mllm.ask(seconds(4), [GATE], aside=[segment(GRID, 4.0)])
        assert not error.value.sent
        assert server.asked == []


async def test_a_dead_server_is_a_line_a_minute_with_a_count(server: MLLMServer) -> None:
    mllm = OpenAIMLLM(server.url, MODEL, OpenAIConfig(use="openai:test"))
    await mllm.start()
    run, house = build(CAR, VAN, mllm=mllm)  # type: ignore[arg-type]
    server.habits.refuse = lambda prompt: Turn(500, b"the engine died")
    with capture_logs() as logged:
        for minute in range(3):
            await watch_stream(run, ScriptedSource(frames(10, start=10 * minute)), house)
            house.clock.advance(61)
        await watch_stream(run, ScriptedSource(frames(1, start=30)), house)
    await mllm.close()
    skipped = [one for one in logged if one["event"] == "questions_skipped"]
    assert [one["times"] for one in skipped] == [1, 10, 10, 10]
    assert run.counts.skipped == 31
    assert "the engine died" in skipped[0]["reason"]


async def test_a_prompt_that_is_not_read_whole_is_told(server: MLLMServer) -> None:
    async with started(server) as mllm:
        usage = {"prompt_tokens": 5}
        reply = {"model": MODEL, "choices": [{"message": {}, "logprobs": {"content": [top()]}}], "usage": usage}
        server.habits.next.append(Turn(200, json.dumps(reply).encode()))
        with capture_logs() as logged:
            await mllm.ask(seconds(3), [GATE])
    assert [(one["event"], one["sent_tokens"], one["prompt_tokens"]) for one in logged] == [
        ("mllm_reads_less_than_sent", 18, 5)
    ]


def top() -> dict:
    return {"token": "yes", "top_logprobs": [{"token": "yes", "logprob": -0.1}]}
