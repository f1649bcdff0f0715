"""What is new in streams that wait goes through the vision encoder together."""

import asyncio
from collections.abc import Sequence

import pytest

from pipeline.core.context import Context
from pipeline.errors import MLLMUnavailable
from pipeline.mllm.transformers import backend, reader, vision
from pipeline.mllm.transformers.backend import TransformersMLLM
from pipeline.types import Segment
from tests.checkpoints import FAMILIES, context, segment
from tests.flow.test_transformers import QUERIES, Gate, Hurried, mixed, scores, started


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Segments in each call of the encoder."""
    counts: list[int] = []
    encode = vision.VisionEncoder.encode

    def spy(encoder: vision.VisionEncoder, segments: Sequence[Segment]) -> list[vision.Encoded]:
        counts.extend([len(segments)] if segments else [])
        return encode(encoder, segments)

    monkeypatch.setattr(vision.VisionEncoder, "encode", spy)
    return counts


def streams(mllm: TransformersMLLM, count: int) -> list[Context]:
    """Streams of one segment each."""
    return [context(segment(mllm.info.grid, float(n)), stream_id=f"stream-{n}") for n in range(count)]


class Queue:
    """A backend whose thread stands still until all of these asks wait for it, and the one that goes first."""

    def __init__(self, mllm: TransformersMLLM, gate: Gate) -> None:
        self.mllm, self.gate = mllm, gate

    async def ask(self, contexts: Sequence[Context], **options: object) -> list[object]:
        first = context(segment(self.mllm.info.grid, 0.0), stream_id="first")
        self.gate.open.clear()
        asks = [asyncio.create_task(self.mllm.ask(first, []))]
        asks += [asyncio.create_task(self.mllm.ask(one, QUERIES, **options)) for one in contexts]  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        self.gate.open.set()
        return list((await asyncio.gather(*asks, return_exceptions=True))[1:])


@pytest.mark.parametrize("family", FAMILIES)
async def test_waiting_streams_share_a_call_of_the_encoder_and_get_the_same_answers(
    family: str, calls: list[int]
) -> None:
    gate = Gate()
    async with started(family, clock=gate) as mllm:
        contexts = [context(*mixed(mllm, n), stream_id=f"stream-{n}") for n in range(4)]
        alone = [scores(await mllm.ask(one, QUERIES)) for one in contexts]
        for one in contexts:
            mllm.forget(one.stream_id)
        calls.clear()
        together = await Queue(mllm, gate).ask(contexts)
        assert calls == [1 + 4 * 3]
        for single, joined in zip(alone, together, strict=True):
            assert scores(joined) == pytest.approx(single, abs=1e-4)  # type: ignore[arg-type]
        assert [joined.usage.encoded_tokens for joined in together] == [one.tokens for one in contexts]  # type: ignore[attr-defined]


async def test_what_is_shown_aside_is_encoded_together_too(calls: list[int]) -> None:
    gate = Gate()
    async with started(clock=gate) as mllm:
        contexts, aside = streams(mllm, 2), [segment(mllm.info.grid, 9.0, 3, 4)]
        alone = [scores(await mllm.ask(one, QUERIES, aside=aside)) for one in contexts]
        for one in contexts:
            mllm.forget(one.stream_id)
        calls.clear()
        together = await Queue(mllm, gate).ask(contexts, aside=aside)
        assert calls == [1 + 2 * 2]
        for single, joined in zip(alone, together, strict=True):
            assert scores(joined) == pytest.approx(single, abs=1e-4)  # type: ignore[arg-type]


async def test_a_call_of_the_encoder_stays_within_one_pass(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "MAX_ENCODED_TOKENS", 3 * 6)
    gate = Gate()
    async with started(clock=gate) as mllm:
        calls.clear()
        await Queue(mllm, gate).ask(streams(mllm, 5))
        assert calls == [3, 3]


async def test_what_is_over_its_limit_is_not_encoded_with_others(calls: list[int]) -> None:
    gate = Gate()
    async with started(clock=gate) as mllm:
        contexts = streams(mllm, 3)
        calls.clear()
        refusals = await Queue(mllm, gate).ask(contexts, limit=5)
        assert calls == [1]
        for refusal, one in zip(refusals, contexts, strict=True):
            assert isinstance(refusal, MLLMUnavailable)
            assert not refusal.sent
            assert mllm.pending(one) == one.tokens


async def test_an_ask_says_how_long_it_waited_and_when_its_first_answer_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_PACKED_TOKENS", 1)  # each question is a pass of its own
    async with started(clock=Hurried()) as mllm:
        usage = (await mllm.ask(*streams(mllm, 1), QUERIES)).usage
        assert usage.queued_s == 1.0
        assert 0 < usage.first_answer_s < usage.seconds - usage.queued_s
