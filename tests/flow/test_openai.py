"""The backend of OpenAI-compatible servers, against a real one that misbehaves on command."""

import asyncio
import base64
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import cv2
import numpy as np
import pytest
from structlog.testing import capture_logs

from allocator_engine.fit import FitRules, fit
from allocator_engine.grid import GRIDS
from pipeline.clock import Clock, SystemClock
from pipeline.config.mllm import OpenAIConfig
from pipeline.errors import ConfigError, MLLMOverloaded, MLLMTimeout, MLLMUnavailable
from pipeline.mllm.openai.backend import OpenAIMLLM
from pipeline.mllm.openai.probe import SIDES, smallest_side
from pipeline.mllm.openai.wire import data_url
from pipeline.mllm.prompt import INSTRUCTION
from pipeline.testing import ManualClock
from pipeline.types import Segment, WatchQuery
from tests.checkpoints import context, segment
from tests.mllm_contract import *  # noqa: F403
from tests.mllm_server import MODEL, MLLMServer, Turn, serving

GRID = GRIDS["qwen3_vl"]
GATE = WatchQuery("gate", "Is the gate open?")
MANY = [WatchQuery(str(number), f"Are there {number} boats?") for number in range(16)]
KEY = "sk-very/secret+key=="


@pytest.fixture
def server() -> Iterator[MLLMServer]:
    with serving() as running:
        yield running


@pytest.fixture
async def mllm(server: MLLMServer) -> AsyncIterator[OpenAIMLLM]:
    async with started(server) as backend:
        yield backend


def backend(server: MLLMServer, model: str = MODEL, clock: Clock = SystemClock(), **options: object) -> OpenAIMLLM:
    settings = OpenAIConfig(use="openai:test", **options)  # type: ignore[arg-type]
    return OpenAIMLLM(server.url, model, settings, clock)


@asynccontextmanager
async def started(server: MLLMServer, clock: Clock = SystemClock(), **options: object) -> AsyncIterator[OpenAIMLLM]:
    mllm = backend(server, clock=clock, **options)
    try:
        await mllm.start()
        server.asked.clear()
        yield mllm
    finally:
        await mllm.close()


async def refused(server: MLLMServer, **options: object) -> str:
    """What starting is refused with."""
    mllm = backend(server, **options)
    with pytest.raises(ConfigError) as error:
        await mllm.start()
    await mllm.close()
    return str(error.value)


def seconds(count: int, stream_id: str = "yard") -> "context":
    return context(*(segment(GRID, float(second)) for second in range(count)), stream_id=stream_id)


# The prompt


async def test_the_prompt_is_that_of_every_backend_and_the_pictures_are_lossless(
    mllm: OpenAIMLLM, server: MLLMServer
) -> None:
    shown = seconds(2)
    await mllm.ask(shown, [WatchQuery("gate", "Is <|image_pad|> the gate  open?")])
    system, user = server.asked[0].request["messages"]
    assert system == {"role": "system", "content": INSTRUCTION}
    kinds = [part.get("text", part["type"]) for part in user["content"]]
    assert kinds == ["<0.0 seconds>", "image_url", "<1.0 seconds>", "image_url", "Question: Is the gate open?"]
    for part, sent in zip(user["content"][1::2], shown.segments, strict=True):
        assert part["uuid"] == sent.content_id
        assert np.array_equal(server.pictures[sent.content_id], sent.pixels[0])


def test_red_stays_red() -> None:
    red = np.zeros((32, 64, 3), np.uint8)
    red[..., 0] = 255
    png = np.frombuffer(base64.b64decode(data_url(red).partition(",")[2]), np.uint8)
    assert np.array_equal(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB), red)


@pytest.mark.parametrize(("family", "thinks"), [("qwen3_5", True), ("qwen3_vl", False)])
async def test_a_thinking_family_is_told_not_to_think(server: MLLMServer, family: str, thinks: bool) -> None:
    async with started(server, family=family) as mllm:
        await mllm.ask(seconds(1), [GATE])
    told = server.asked[0].request.get("chat_template_kwargs")
    assert told == ({"enable_thinking": False} if thinks else None)


async def test_the_first_question_goes_alone_and_the_others_together(server: MLLMServer) -> None:
    gate = threading.Barrier(len(MANY) - 1)
    async with started(server) as mllm:
        arrived = []

        def meanwhile() -> None:
            arrived.append(threading.get_ident())
            if len(arrived) > 1:
                gate.wait(30)  # all fifteen are here at once, or this breaks

        server.habits.meanwhile = meanwhile
        usage = (await mllm.ask(seconds(3), MANY)).usage
    assert usage.encoded_tokens == seconds(3).tokens
    assert server.asked[0].shown == 3
    assert [(one.shown, one.named) for one in server.asked[1:]] == [(0, 3)] * 15


# Scores


async def test_a_score_adds_up_the_spellings(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    answer = (await mllm.ask(seconds(1), [GATE])).answers[0]
    assert answer.mass == pytest.approx(server.habits.mass)
    assert 0.02 <= answer.score <= 0.98


async def test_an_answer_that_is_neither_yes_nor_no_is_unknown(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    server.habits.mass = 0.0
    answer = (await mllm.ask(seconds(1), [GATE])).answers[0]
    assert answer.verdict == "unknown"


async def test_an_answer_without_probabilities_is_no_answer(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    server.habits.logprobs = False
    with pytest.raises(MLLMUnavailable, match="without log-probabilities"):
        await mllm.ask(seconds(1), [GATE])


# What is kept


async def test_pixels_go_once(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    await mllm.ask(seconds(3), [GATE])
    await mllm.ask(seconds(4), [GATE])
    assert [(one.shown, one.named) for one in server.asked] == [(3, 0), (1, 3)]


async def test_a_forgotten_picture_is_sent_again_once(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    before = await mllm.ask(seconds(3), [GATE])
    server.pictures.clear()
    usage = await mllm.ask(seconds(3), [GATE], limit=0)
    assert usage.answers == before.answers
    assert mllm.counters.resent == 1
    assert [(one.shown, one.named) for one in server.asked] == [(3, 0), (0, 3), (3, 0)]


async def test_pictures_forgotten_between_two_questions_are_sent_again(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    plain = await mllm.ask(seconds(2), MANY[:2])
    mllm.forget("yard")
    server.asked.clear()
    server.habits.meanwhile = server.pictures.clear
    assert (await mllm.ask(seconds(2), MANY[:2])).answers == plain.answers
    assert mllm.counters.resent == 1


async def test_a_restarted_server_has_read_nothing_and_that_is_paid_for(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    plain = await mllm.ask(seconds(3), [GATE])
    server.forget()
    server.hang_up()
    with pytest.raises(MLLMUnavailable, match="18 vision tokens would be sent where 0 were paid for") as error:
        await until_lost(mllm, server)
    assert not error.value.sent
    assert mllm.pending(seconds(3)) == seconds(3).tokens
    assert (await mllm.ask(seconds(3), [GATE])).answers == plain.answers


async def until_lost(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    """Ask on a closed connection, with nothing paid: the close is seen before the request, or in the middle of it."""
    try:
        await mllm.ask(seconds(3), [GATE], limit=0)
    except MLLMUnavailable as error:
        if "broke off" not in str(error):
            raise
        await mllm.ask(seconds(3), [GATE], limit=0)


async def test_what_is_forgotten_during_an_ask_stays_forgotten(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    loop = asyncio.get_running_loop()
    server.habits.meanwhile = lambda: loop.call_soon_threadsafe(mllm.forget, "yard") and None
    await mllm.ask(seconds(2), [GATE])
    assert mllm.pending(seconds(2)) == seconds(2).tokens


def large(count: int) -> "context":
    """Pictures of 256 tokens, so that what is lost of them is more than a block of a cache."""
    return context(*(segment(GRID, float(second), 16, 16) for second in range(count)))


@pytest.mark.parametrize(("parts", "again"), [(0, 3), (1, 3), (3, 2), (5, 1)])
async def test_a_prefix_that_the_server_has_not_kept_is_counted_and_encoded_again(
    mllm: OpenAIMLLM, server: MLLMServer, parts: int, again: int
) -> None:
    await mllm.ask(large(3), [GATE])
    server.prefixes = {prefix for prefix in server.prefixes if len(prefix) <= parts}
    with capture_logs() as logged:
        usage = (await mllm.ask(large(4), [GATE])).usage
    assert usage.encoded_tokens == (again + 1) * 256
    assert usage.cached_tokens < (4 - again) * 256
    assert [(one["event"], one["cached_tokens"]) for one in logged] == [("mllm_prefix_evicted", usage.cached_tokens)]
    assert mllm.counters.evicted == mllm.counts()["evicted"] == 1
    assert (await mllm.ask(large(4), [GATE])).usage.encoded_tokens == 0
    assert mllm.counters.evicted == 1


async def test_a_prefix_but_for_its_last_block_is_not_lost(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    await mllm.ask(seconds(10), [GATE])
    server.prefixes = {prefix for prefix in server.prefixes if len(prefix) < 2 * 8}
    assert (await mllm.ask(seconds(10), [GATE])).usage.encoded_tokens == 0
    assert mllm.counters.evicted == 0


async def test_a_server_that_counts_and_leaves_out_a_zero_has_lost_all(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    await mllm.ask(large(2), [GATE])
    server.habits.counts = False
    assert (await mllm.ask(large(2), [GATE])).usage.encoded_tokens == 2 * 256
    assert mllm.counters.evicted == 1


async def test_of_a_server_that_counts_nothing_nothing_is_said_to_be_lost(server: MLLMServer) -> None:
    server.habits.counts = False
    async with started(server) as mllm:
        await mllm.ask(large(2), [GATE])
        server.prefixes.clear()
        assert (await mllm.ask(large(3), [GATE])).usage.encoded_tokens == 256
        assert mllm.counters.evicted == 0


# What a server lacks


@pytest.mark.parametrize(
    ("habit", "lacking"),
    [("uuids", "pictures sent once"), ("schemas", "JSON schemas"), ("counts", "counts of cached tokens")],
)
async def test_what_is_missing_is_named_once_and_done_without(server: MLLMServer, habit: str, lacking: str) -> None:
    async with started(server) as mllm:
        expected = (await mllm.ask(seconds(4), MANY[:3])).answers
    setattr(server.habits, habit, False)
    with capture_logs() as logged:
        async with started(server) as mllm:
            await mllm.ask(seconds(3), MANY[:3])
            answers = await mllm.ask(seconds(4), MANY[:3])
            assert mllm.info.needs_pixels == (habit == "uuids")
    (warning,) = logged
    assert warning["event"] == "mllm_server_lacks"
    assert [lacking in one for one in warning["lacks"]] == [True]
    assert answers.answers == expected
    assert answers.usage.encoded_tokens == 6
    assert answers.usage.cached_tokens > seconds(3).tokens
    assert answers.usage.prefilled_tokens < seconds(4).tokens + 60


async def test_a_server_that_overlooks_pictures_without_pixels_always_gets_them(server: MLLMServer) -> None:
    server.habits.skips_null = True
    async with started(server) as mllm:
        await mllm.ask(seconds(2), MANY[:3])
        await mllm.ask(seconds(3), MANY[:1])
    assert [(one.shown, one.named) for one in server.asked] == [(2, 0)] * 3 + [(3, 0)]


async def test_a_server_without_schemas_refuses_them_by_name(server: MLLMServer) -> None:
    server.habits.schemas = False
    async with started(server) as mllm:
        assert await mllm.say(seconds(1), ["What colour is it?"]) != []
        with pytest.raises(ConfigError, match="follows no JSON schema"):
            await mllm.say(seconds(1), ["What colour is it?"], schema={"type": "object"})


async def test_a_server_without_log_probabilities_is_refused(server: MLLMServer) -> None:
    server.habits.logprobs = False
    assert "gives no log-probabilities" in await refused(server)


async def test_a_server_that_refuses_to_give_log_probabilities_is_refused(server: MLLMServer) -> None:
    server.habits.forbids = ["logprobs"]
    assert "gives no log-probabilities" in await refused(server)


async def test_a_server_that_takes_no_pictures_is_refused(server: MLLMServer) -> None:
    server.habits.refuse = lambda prompt: Turn(400, b'{"error": {"message": "image input is not supported"}}')
    said = await refused(server)
    assert "does not take a question about a picture" in said
    assert "image input is not supported" in said


async def test_a_model_that_is_not_there_is_refused_listing_those_that_are(server: MLLMServer) -> None:
    said = await refused(server, model="Qwen3-VL-9000B")
    assert "Qwen3-VL-9000B" in said
    assert MODEL in said


# What a picture costs


async def test_a_server_that_enlarges_small_pictures_is_refused_naming_both_ways_out(server: MLLMServer) -> None:
    server.habits.least_cells = 64
    said = await refused(server)
    assert '--mm-processor-kwargs \'{"size": {"shortest_edge": 1024, "longest_edge": 16777216}}\'' in said
    assert "mllm.min_tokens_per_segment: 64" in said


async def test_where_the_allocator_makes_no_small_pictures_enlarging_them_does_no_harm(server: MLLMServer) -> None:
    server.habits.least_cells = 64
    async with started(server, min_tokens_per_segment=64) as mllm:
        rules = FitRules(mllm.info.grid, min_tokens_per_segment=64)
    assert rules.grid.min_pixels == 64 * 1024
    sizes, scales = [(2160, 3840), (72, 96), (1080, 200), (10, 10), (40, 4000)], [0.01, 0.1, 0.5, 1.0]
    for scale in scales:
        for grant in (63, 64, 100, 200, 5000):
            for one in fit(sizes, [scale] * len(sizes), grant, rules).segments:
                assert one.height * one.width >= 64 * 1024


@pytest.mark.parametrize("cell_px", [28, 48])
async def test_a_server_that_counts_on_another_grid_is_refused(server: MLLMServer, cell_px: int) -> None:
    server.habits.cell_px = cell_px
    said = await refused(server)
    assert "does not charge one token per 32x32 px" in said
    assert "mllm.family" in said


@pytest.mark.parametrize(
    ("prices", "side"),
    [
        ([1, 4, 16, 64, 256], 1),
        ([4, 4, 16, 64, 256], 2),
        ([64, 64, 64, 64, 256], 8),
        ([0, 0, 0, 0, 0], None),
        ([1, 4, 16, 49, 196], None),
        ([500, 4, 16, 64, 256], None),
        ([256, 256, 256, 256, 256], None),
    ],
)
def test_the_smallest_honest_picture_is_told_from_prices(prices: list[int], side: int | None) -> None:
    assert len(prices) == len(SIDES)
    assert smallest_side([70 + price for price in prices]) == side


# Errors, by name


async def test_a_busy_server_is_asked_again_when_it_says(server: MLLMServer) -> None:
    clock = ManualClock()
    async with started(server, clock=clock) as mllm:
        server.habits.next.append(Turn(429, headers={"Retry-After": "7"}))
        asking = asyncio.create_task(mllm.ask(seconds(1), [GATE]))
        await until(lambda: mllm.retried == 1)
        clock.advance(6.9)
        await asyncio.sleep(0.02)
        assert not asking.done()
        clock.advance(0.2)
        assert len((await asking).answers) == 1


async def until(holds) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come to that")


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_busy_for_longer_than_there_is_time_is_overloaded(server: MLLMServer, status: int) -> None:
    async with started(server) as mllm:
        server.habits.next.append(Turn(status, headers={"Retry-After": "3600"}))
        with pytest.raises(MLLMOverloaded, match=f"busy .{status}. and asks to wait") as error:
            await mllm.ask(seconds(1), [GATE])
        assert not error.value.sent
        assert mllm.pending(seconds(1)) == seconds(1).tokens


async def test_a_server_that_stays_busy_is_asked_a_bounded_number_of_times(
    mllm: OpenAIMLLM, server: MLLMServer
) -> None:
    server.habits.next.extend([Turn(429, headers={"Retry-After": "0"})] * 10)
    with pytest.raises(MLLMOverloaded, match="after 4 of at most 4 tries"):
        await mllm.ask(seconds(1), [GATE])
    assert len(server.habits.next) == 6


async def test_what_the_first_question_had_read_is_charged_when_the_second_fails(
    mllm: OpenAIMLLM, server: MLLMServer
) -> None:
    busy = [Turn(429, headers={"Retry-After": "3600"})]
    server.habits.meanwhile = lambda: server.habits.next.extend(busy if len(server.asked) == 1 else [])
    with pytest.raises(MLLMOverloaded) as error:
        await mllm.ask(seconds(2), MANY[:2])
    assert error.value.sent
    assert mllm.pending(seconds(2)) == 0


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (Turn(500, b"the engine died"), "answers 500: 'the engine died'"),
        (Turn(200, b"<html>welcome</html>"), "answers 200 with what is no chat completion: '<html>welcome</html>'"),
        (Turn(200, b'{"model": "x", "choi'), "no chat completion"),
        (Turn(200, json.dumps({"model": MODEL, "choices": [], "usage": {"prompt_tokens": 1}}).encode()), "no chat"),
        (Turn(200, b"\xff\x00" * 300), "no chat completion"),
        (Turn(200, b"x" * 2_000_000), "more than 1048576 bytes"),
        (Turn(307, headers={"Location": "http://elsewhere.example/"}), "a redirect"),
    ],
)
async def test_an_answer_that_is_none_is_told_by_name(
    mllm: OpenAIMLLM, server: MLLMServer, turn: Turn, said: str
) -> None:
    await mllm.ask(seconds(1), [GATE])
    server.habits.next.append(turn)
    with pytest.raises(MLLMUnavailable) as error:
        await mllm.ask(seconds(2), [GATE])
    assert said in str(error.value)
    assert len(str(error.value)) < 400
    assert mllm.pending(seconds(2)) == 6  # the first second is still known, the other is not
    assert len((await mllm.ask(seconds(2), [GATE])).answers) == 1


async def test_a_slow_server_is_given_up_and_what_it_had_is_still_known(server: MLLMServer) -> None:
    go_on = threading.Event()
    async with started(server, timeout_s=1.0) as mllm:
        server.habits.meanwhile = lambda: go_on.wait(30) and None
        with pytest.raises(MLLMTimeout, match=r"1 seconds") as error:
            await mllm.ask(seconds(1), [GATE])
        assert error.value.sent
        assert mllm.counters.timed_out == 1
        go_on.set()


async def test_a_connection_that_breaks_off_takes_all_that_was_kept_with_it(
    mllm: OpenAIMLLM, server: MLLMServer
) -> None:
    await mllm.ask(seconds(1, "other"), [GATE])
    server.habits.next.append(lambda handler: handler.break_off())
    listed = server.listed
    with pytest.raises(MLLMUnavailable, match="broke off") as error:
        await mllm.ask(seconds(1), [GATE])
    assert error.value.sent
    assert mllm.pending(seconds(1, "other")) == 6
    await mllm.ask(seconds(1), [GATE])
    assert server.listed > listed


async def test_a_server_that_is_gone_was_sent_nothing_and_may_come_back() -> None:
    with serving() as server:
        mllm = backend(server)
        await mllm.start()
        port = server.server_port
    for _ in range(2):  # on the old connection, and on a new one
        with pytest.raises(MLLMUnavailable) as error:
            await mllm.ask(seconds(1), [GATE])
    assert "cannot be reached" in str(error.value)
    assert not error.value.sent
    with serving(port):
        assert len((await mllm.ask(seconds(1), [GATE])).answers) == 1
    await mllm.close()


async def test_an_answer_of_another_model_is_none(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    await mllm.ask(seconds(1), [GATE])
    server.habits.answers_as = "tiny-llama"
    for _ in range(2):
        with pytest.raises(MLLMUnavailable, match=r"another model answers behind .*tiny-llama"):
            await mllm.ask(seconds(2), [GATE])
    assert mllm.pending(seconds(2)) == seconds(2).tokens
    server.habits.answers_as = None
    assert len((await mllm.ask(seconds(2), [GATE])).answers) == 1


@pytest.mark.parametrize("models", [{"tiny-llama": "/weights/b"}, {MODEL: "/weights/b"}])
async def test_another_model_after_a_restart_is_found_out_before_it_can_answer(
    mllm: OpenAIMLLM, server: MLLMServer, models: dict[str, str]
) -> None:
    await mllm.ask(seconds(1), [GATE])
    original, server.habits.models = server.habits.models, models
    server.hang_up()
    for _ in range(3):
        with pytest.raises(MLLMUnavailable, match=r"another model answers behind|broke off"):
            await mllm.ask(seconds(1), [GATE])
    assert mllm.pending(seconds(1)) == 6
    server.habits.models = original
    assert len((await mllm.ask(seconds(1), [GATE])).answers) == 1


async def test_another_name_of_the_same_weights_is_the_same_model(server: MLLMServer) -> None:
    server.habits.models = {"main": "/weights/a", MODEL: "/weights/a"}
    server.habits.answers_as = "main"
    async with started(server) as mllm:
        assert len((await mllm.ask(seconds(1), [GATE])).answers) == 1


async def test_too_many_pictures_are_told_with_the_number_and_what_to_do(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    server.habits.max_images = 2
    with pytest.raises(MLLMUnavailable, match=r"At most 2 image\(s\).*context_max_s.*--limit-mm-per-prompt") as error:
        await mllm.ask(seconds(3), [GATE])
    assert not error.value.sent
    assert len((await mllm.ask(seconds(2), [GATE])).answers) == 1


async def test_too_long_a_prompt_is_told_with_the_numbers_and_what_to_do(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    server.habits.max_model_len = 60
    with pytest.raises(MLLMUnavailable, match=r"length \d+.* of 60.*context_max_tokens.*--max-model-len") as error:
        await mllm.ask(seconds(9), [GATE])
    assert not error.value.sent


async def test_a_context_above_the_bound_is_not_sent(server: MLLMServer) -> None:
    async with started(server, max_prompt_tokens=256) as mllm:
        with pytest.raises(MLLMUnavailable, match=r"258 vision tokens .* 256 tokens") as error:
            await mllm.ask(seconds(43), [GATE])
        assert not error.value.sent
        assert server.asked == []


async def test_a_segment_of_two_frames_is_refused_naming_the_option(mllm: OpenAIMLLM) -> None:
    assert mllm.info.max_frames_per_segment == 1
    with pytest.raises(ConfigError, match=r"mllm\.frames_per_segment: 1"):
        await mllm.ask(context(segment(GRID, 0.0, frames=2)), [GATE])
    aside: list[Segment] = [segment(GRID, 1.0, frames=2)]
    with pytest.raises(ConfigError, match=r"mllm\.frames_per_segment: 1"):
        await mllm.ask(seconds(1), [GATE], aside=aside)


async def test_a_full_queue_refuses_and_names_the_bound(server: MLLMServer) -> None:
    go_on = threading.Event()
    async with started(server, max_queue=2) as mllm:
        server.habits.meanwhile = lambda: go_on.wait(30) and None
        waiting = [asyncio.create_task(mllm.ask(seconds(1, name), [GATE])) for name in "ab"]
        await asyncio.sleep(0.01)
        with pytest.raises(MLLMOverloaded, match="2 asks unfinished, which is max_queue") as error:
            await mllm.ask(seconds(1, "c"), [GATE])
        assert not error.value.sent
        go_on.set()
        await asyncio.gather(*waiting)
        assert mllm.counters.refused == 1


async def test_an_ask_after_closing_is_refused(server: MLLMServer) -> None:
    async with started(server) as mllm:
        pass
    with pytest.raises(MLLMUnavailable, match="closed") as error:
        await mllm.ask(seconds(1), [GATE])
    assert not error.value.sent


# The family


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl"),
        ("qwen2_5_vl", "qwen2_5_vl"),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct-FP8", "qwen3_vl"),
        ("qwen3vl", "qwen3_vl"),
        ("Qwen/Qwen3.5-35B-A3B", "qwen3_5"),
        ("qwen3_5", "qwen3_5"),
    ],
)
def test_the_name_tells_the_family(model: str, family: str) -> None:
    mllm = OpenAIMLLM("http://127.0.0.1:1/v1", model, OpenAIConfig(use="x"))
    assert (mllm.info.family, mllm.info.grid) == (family, GRIDS[family])


@pytest.mark.parametrize(("model", "family"), [("Qwen/Qwen3-5B", None), ("prod", None), (MODEL, "llava")])
def test_an_unknown_family_is_refused_naming_the_option(model: str, family: str | None) -> None:
    with pytest.raises(ConfigError, match=r"mllm\.family.*qwen2_5_vl, qwen3_vl, qwen3_5"):
        OpenAIMLLM("http://127.0.0.1:1/v1", model, OpenAIConfig(use="x", family=family))


@pytest.mark.parametrize("url", ["ftp://host/v1", "http://", "http://[::1/v1", "localhost:8000"])
def test_what_is_no_http_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="openai:URL#MODEL"):
        OpenAIMLLM(url, MODEL, OpenAIConfig(use="x"))


# The key


async def test_the_key_goes_into_its_header_and_appears_nowhere_else(
    server: MLLMServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.habits.key, server.habits.uuids = KEY, False
    caplog.set_level(logging.DEBUG)
    seen = []
    with capture_logs() as logged:
        async with started(server, api_key=KEY) as mllm:
            seen.append(repr(mllm) + repr(mllm.info) + repr(mllm.__dict__))
            await mllm.ask(seconds(1), [GATE])
            leaking = json.dumps({"error": {"message": f"key {KEY} " + "x" * 187 + KEY}}).encode()
            for turn in (Turn(500, KEY.encode()), Turn(400, leaking), Turn(200, b"{" + KEY.encode())):
                server.habits.next.append(turn)
                with pytest.raises(MLLMUnavailable) as error:
                    await mllm.ask(seconds(2), [GATE])
                seen.append(repr(error.value))
            server.habits.key = "another"
            with pytest.raises(MLLMUnavailable, match=r"mllm\.api_key \(401\)") as error:
                await mllm.ask(seconds(2), [GATE])
            assert not error.value.sent
            seen.append(repr(error.value))
    assert server.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    everything = "".join([*seen, str(logged), caplog.text, *(json.dumps(one.request) for one in server.asked)])
    assert KEY[:12] not in everything


async def test_a_picture_that_a_server_sends_back_is_not_shown(server: MLLMServer) -> None:
    async with started(server) as mllm:
        server.habits.next.append(Turn(400, b'{"error": {"message": "no image: data:image/png;base64,iVBORw0KGgo="}}'))
        with pytest.raises(MLLMUnavailable, match=r"no image: data:image/png;base64,\*\*\*") as error:
            await mllm.ask(seconds(1), [GATE])
    assert "iVBOR" not in str(error.value)


async def test_a_missing_key_is_asked_for_by_name(server: MLLMServer) -> None:
    server.habits.key = KEY
    mllm = backend(server)
    with pytest.raises(MLLMUnavailable, match=r"wants a key; set mllm\.api_key"):
        await mllm.start()
    await mllm.close()


@pytest.mark.parametrize("key", ["", "secret\n", "se cret", "sécret"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigError, match=r"mllm\.api_key") as error:
        OpenAIMLLM("http://127.0.0.1:1/v1", MODEL, OpenAIConfig(use="x", api_key=key))
    assert "cret" not in str(error.value)


async def test_only_the_host_of_the_address_is_shown() -> None:
    mllm = OpenAIMLLM("http://user:hidden@127.0.0.1:1/tenant-hidden/v1?token=hidden", MODEL, OpenAIConfig(use="x"))
    with pytest.raises(MLLMUnavailable, match=r"http://127\.0\.0\.1:1 cannot be reached") as error:
        await mllm.start()
    assert "hidden" not in str(error.value)
    await mllm.close()


async def test_new_pixels_under_another_anchor_are_sent_anew(mllm: OpenAIMLLM, server: MLLMServer) -> None:
    await mllm.ask(seconds(2), [GATE])
    moved = replace(seconds(2), anchor_s=-5.0, epoch=1)
    assert mllm.pending(moved) == moved.tokens
    await mllm.ask(moved, [GATE])
    assert server.asked[-1].shown == 2
