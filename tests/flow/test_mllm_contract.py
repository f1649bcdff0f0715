"""What every multimodal LLM backend keeps to, shown on each."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pipeline.context import Context, ContextRules
from pipeline.mllm.base import MLLM
from pipeline.mllm.null import NullMLLM
from pipeline.mllm.transformers import TransformersMLLM
from pipeline.types import WatchQuery
from tests.checkpoints import FAMILIES, context, segment, tiny

GATE = WatchQuery("gate", "Is the gate open?")
BOAT = WatchQuery("boat", "Is there a boat at the dock?")


def make(kind: str) -> MLLM:
    return NullMLLM() if kind == "null" else TransformersMLLM(tiny(kind), name="tiny")


@pytest.fixture(params=["null", *FAMILIES])
async def mllm(request: pytest.FixtureRequest) -> AsyncIterator[MLLM]:
    backend = make(request.param)
    await backend.start()
    yield backend
    await backend.close()


def growing(mllm: MLLM, seconds: int, stream_id: str = "yard") -> Context:
    return context(*(segment(mllm.info.grid, float(s)) for s in range(seconds)), stream_id=stream_id)


async def test_there_is_one_answer_per_query_in_the_order_asked(mllm: MLLM) -> None:
    answers = await mllm.ask(growing(mllm, 2), [BOAT, GATE])
    assert [answer.watch_id for answer in answers.answers] == ["boat", "gate"]
    for answer in answers.answers:
        assert 0.0 <= answer.score <= 1.0
        assert 0.0 <= answer.mass <= 1.0


async def test_pending_says_exactly_what_the_next_ask_encodes(mllm: MLLM) -> None:
    short, long = growing(mllm, 2), growing(mllm, 5)
    assert mllm.pending(short) == short.tokens
    assert (await mllm.ask(short, [GATE])).usage.encoded_tokens == short.tokens
    assert mllm.pending(short) == 0
    assert mllm.pending(long) == long.tokens - short.tokens
    usage = (await mllm.ask(long, [GATE, BOAT])).usage
    assert usage.encoded_tokens == long.tokens - short.tokens
    assert usage.cached_tokens >= short.tokens
    assert mllm.pending(long) == 0


async def test_a_restarted_context_is_pending_as_a_whole(mllm: MLLM) -> None:
    rules = ContextRules(max_s=4.0, keep_s=2.0)
    now = Context.empty("yard", rules)
    for second in range(12):
        before, now = now, now.append([segment(mllm.info.grid, float(second))])
        expected = now.segments if now.epoch != before.epoch else now.segments[len(before.segments) :]
        assert mllm.pending(now) == sum(one.tokens for one in expected)
        await mllm.ask(now, [GATE])
    assert now.epoch > 1


async def test_a_forgotten_stream_is_pending_as_a_whole_and_unknown_ones_are_fine(mllm: MLLM) -> None:
    context = growing(mllm, 3)
    await mllm.ask(context, [GATE])
    mllm.forget("yard")
    mllm.forget("never seen")
    assert mllm.pending(context) == context.tokens


async def test_answers_depend_on_context_and_question_and_not_on_what_is_kept(mllm: MLLM) -> None:
    long = growing(mllm, 4)
    for seconds in (1, 2, 3):
        await mllm.ask(growing(mllm, seconds), [GATE])
    warm = await mllm.ask(long, [GATE, BOAT])
    mllm.forget("yard")
    cold = await mllm.ask(long, [GATE, BOAT])
    for one, other in zip(warm.answers, cold.answers, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)


async def test_streams_may_ask_at_once_and_do_not_mix(mllm: MLLM) -> None:
    contexts = [growing(mllm, 1 + number, f"stream-{number}") for number in range(5)]
    alone = [await mllm.ask(one, [GATE]) for one in contexts]
    for one in contexts:
        mllm.forget(one.stream_id)
    together = await asyncio.gather(*(mllm.ask(one, [GATE]) for one in contexts))
    for single, joined in zip(alone, together, strict=True):
        assert single.answers[0].score == pytest.approx(joined.answers[0].score, abs=1e-4)


async def test_asking_nothing_is_answered_with_nothing(mllm: MLLM) -> None:
    assert (await mllm.ask(growing(mllm, 1), [])).answers == ()


async def test_starting_and_closing_may_be_repeated(mllm: MLLM) -> None:
    await mllm.start()
    await mllm.close()
    await mllm.close()
