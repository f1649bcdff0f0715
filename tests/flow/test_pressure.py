"""Contexts restart early where the MLLM runs out of room, instead of driving each other's prefixes out."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pipeline.config.mllm import OpenAIConfig, TinyConfig
from pipeline.core.budget import Rate
from pipeline.core.context import Context, ContextRules
from pipeline.core.hops import HopRules
from pipeline.core.state import StreamRun
from pipeline.errors import MLLMUnavailable
from pipeline.loop import Runtime, watch_stream
from pipeline.mllm.kept import Kept, KeptPrefixes
from pipeline.mllm.openai.backend import OpenAIMLLM
from pipeline.mllm.transformers.backend import TransformersMLLM
from pipeline.testing import ScriptedSource
from pipeline.types import Answers, WatchQuery
from tests.checkpoints import context, segment, tiny
from tests.flow.test_loop import CAR, build, seconds
from tests.mllm_server import MODEL, MLLMServer, serving

RATE = Rate(60, 240)
RULES = ContextRules(max_s=300.0, keep_s=150.0)
SECONDS = 14


class Counting(TransformersMLLM):
    """Remembers what each asking had to encode."""

    def __init__(self, **options: int) -> None:
        super().__init__(tiny(), TinyConfig(**options))
        self.encoded: list[int] = []

    async def ask(self, *arguments: object, **options: object) -> Answers:
        answers = await super().ask(*arguments, **options)  # type: ignore[arg-type]
        self.encoded.append(answers.usage.encoded_tokens)
        return answers


def streams(runtime: Runtime, count: int) -> list[StreamRun]:
    runs = [StreamRun(f"camera-{n}", HopRules(), Context.empty(f"camera-{n}", RULES)) for n in range(count)]
    for run in runs:
        runtime.budget.open(run.stream_id, RATE, 0.0)
    return runs


def restarts(runtime: Runtime, run: StreamRun, reason: str) -> float:
    return runtime.metrics.value("context_reanchors_total", stream=run.stream_id, reason=reason)


async def test_streams_that_share_a_small_cache_restart_early_and_evict_nobody() -> None:
    mllm = Counting(max_cache_tokens=1200)
    await mllm.start()
    _, runtime = build(CAR, mllm=mllm)
    runs = streams(runtime, 2)
    await asyncio.gather(*(watch_stream(run, ScriptedSource(seconds(SECONDS)), runtime) for run in runs))
    await mllm.close()
    assert mllm.kept.evicted == 0
    assert min(restarts(runtime, run, "pressure") for run in runs) >= 1
    assert max(run.context.tokens for run in runs) <= 0.9 * 1200 / 2
    assert [run.counts.skipped for run in runs] == [0, 0]
    for run in runs:
        assert run.counts.spent <= RATE.tokens_per_s * SECONDS + RATE.burst_tokens
    assert sum(mllm.encoded) <= sum(run.counts.spent for run in runs)


async def test_without_that_they_would_drive_each_other_out() -> None:
    """What the test above is about does happen: contexts that grow regardless lose their prefixes all the time."""
    mllm = Counting(max_cache_tokens=1200)
    await mllm.start()
    for second in range(1, 9):
        for name in "ab":
            shown = (segment(mllm.info.grid, float(s), 8, 10) for s in range(second))
            await mllm.ask(context(*shown, stream_id=name), [CAR])
    await mllm.close()
    assert mllm.kept.evicted >= 3


async def test_a_stream_alone_may_use_what_nobody_else_does() -> None:
    mllm = Counting(max_cache_tokens=1200)
    await mllm.start()
    _, runtime = build(CAR, mllm=mllm)
    (run,) = streams(runtime, 1)
    largest = 0
    for second in range(20):
        await watch_stream(run, ScriptedSource(seconds(1, start=second)), runtime)
        largest = max(largest, run.context.tokens)
    await mllm.close()
    assert 0.5 * 1200 < largest <= 0.9 * 1200


async def test_a_prompt_never_outgrows_the_checkpoints_longest() -> None:
    mllm = Counting(max_prompt_tokens=900)
    await mllm.start()
    _, runtime = build(CAR, mllm=mllm)
    (run,) = streams(runtime, 1)
    await watch_stream(run, ScriptedSource(seconds(SECONDS)), runtime)
    await mllm.close()
    assert run.counts.skipped == 0
    assert restarts(runtime, run, "pressure") >= 1


async def test_one_that_is_too_long_all_the_same_is_refused_with_the_numbers() -> None:
    mllm = Counting(max_prompt_tokens=900)
    await mllm.start()
    shown = context(segment(mllm.info.grid, 0.0, 28, 28))
    long = WatchQuery("long", "Is there a very big red boat " + "at the far end of the other dock " * 40 + "?")
    try:
        assert len((await mllm.ask(shown, [CAR])).answers) == 1
        mllm.forget(shown.stream_id)
        for asked in (mllm.ask(shown, [CAR, long]), mllm.say(shown, ["What?"], 300)):
            with pytest.raises(MLLMUnavailable, match=r"a prompt of 8\d\d tokens, with \d+ .* into 900") as refusal:
                await asked
            assert not refusal.value.sent
            assert mllm.pending(shown) == shown.tokens
    finally:
        await mllm.close()


@pytest.fixture
def server() -> AsyncIterator[MLLMServer]:  # type: ignore[misc]
    with serving() as running:
        yield running  # type: ignore[misc]


async def watched(server: MLLMServer) -> tuple[StreamRun, Runtime]:
    """A stream, watched through the server."""
    mllm = OpenAIMLLM(server.url, MODEL, OpenAIConfig(use="openai:test"))
    await mllm.start()
    _, runtime = build(CAR, mllm=mllm)  # type: ignore[arg-type]
    (run,) = streams(runtime, 1)
    await watch_stream(run, ScriptedSource(seconds(SECONDS)), runtime)
    await mllm.close()
    return run, runtime


async def test_a_server_that_takes_fewer_pictures_is_refused_by_once_and_then_asked_for_as_many(
    server: MLLMServer,
) -> None:
    server.habits.max_images = 10
    run, runtime = await watched(server)
    assert run.counts.skipped == 1
    assert run.counts.answers == SECONDS - 1
    assert restarts(runtime, run, "pressure") >= 1


async def test_a_server_that_takes_shorter_prompts_is_asked_for_shorter_ones_from_the_next_frames_on(
    server: MLLMServer,
) -> None:
    server.habits.max_model_len = 600
    run, runtime = await watched(server)
    assert 1 <= run.counts.skipped <= 3
    assert run.counts.answers == SECONDS - run.counts.skipped
    assert restarts(runtime, run, "pressure") >= 1


async def test_with_far_too_many_streams_for_the_cache_each_still_sees_something() -> None:
    mllm = Counting(max_cache_tokens=600)
    await mllm.start()
    _, runtime = build(CAR, mllm=mllm)
    runs = streams(runtime, 4)
    for second in range(3):
        for run in runs:
            await watch_stream(run, ScriptedSource(seconds(1, start=second)), runtime)
    await mllm.close()
    assert mllm.kept.evicted > 0
    assert min(run.counts.answers for run in runs) >= 2  # what was driven out is read again as the budget allows


def test_what_others_leave_is_free_and_an_equal_share_is_kept_for_each() -> None:
    kept: KeptPrefixes[None] = KeptPrefixes(max_streams=64, max_tokens=1000)

    def put(name: str, tokens: int) -> None:
        kept.put(name, Kept(0, 0.0, (), tokens, None))

    now = context(stream_id="a")
    assert kept.room(now) == 900
    put("a", 800)
    assert kept.room(now) == 900, "what it has itself does not count"
    put("b", 100)
    assert kept.room(now) == 800
    put("b", 300)
    assert kept.room(now) == 600
    put("b", 700)
    assert kept.room(now) == 450
    put("c", 100)
    assert kept.room(now) == 300
