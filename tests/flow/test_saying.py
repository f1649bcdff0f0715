"""The embedded backend in words: the clever path against the plain one, and JSON schemas."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import torch

from pipeline.clock import Clock, SystemClock
from pipeline.config.mllm import TinyConfig
from pipeline.core.context import Context
from pipeline.errors import ConfigError, MLLMOverloaded, MLLMTimeout
from pipeline.mllm.prompt import prefix, suffix
from pipeline.mllm.transformers import reader
from pipeline.mllm.transformers.backend import TransformersMLLM
from pipeline.types import WatchQuery
from tests.checkpoints import FAMILIES, context, segment, tiny, untrained_yard
from tests.flow.test_transformers import Hurried
from tests.services import require

QUESTIONS = ["What colour is the boat?", "How many are there?", "Which gate stood open for longer than a minute?"]

REPORT = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "dark green", "white"]},
        "plate": {"type": "string", "maxLength": 4},
        "seen": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 2},
        "sure": {"type": "boolean"},
    },
    "required": ["colour", "plate", "seen", "sure"],
    "additionalProperties": False,
}


@pytest.fixture
def xgrammar() -> None:
    require(find_spec("xgrammar") is not None, "xgrammar keeps answers within a schema")


@asynccontextmanager
async def started(folder: Path, clock: Clock = SystemClock(), **options: object) -> AsyncIterator[TransformersMLLM]:
    mllm = TransformersMLLM(folder, TinyConfig(**options), clock)  # type: ignore[arg-type]
    try:
        await mllm.start()
        yield mllm
    finally:
        await mllm.close()


def shown(mllm: TransformersMLLM, stream_id: str = "yard") -> Context:
    return context(*(segment(mllm.info.grid, float(s)) for s in range(3)), stream_id=stream_id)


def plainly(mllm: TransformersMLLM, now: Context, question: str, most: int) -> str:
    """The whole prompt in one pass, for each token anew."""
    reader, said = mllm.reader, []
    assert reader
    with torch.inference_mode():
        while len(said) < most:
            seen = reader.empty()
            reader.extend(seen, prefix(now, mllm.info.family))
            token = int(reader.read_on(seen, [*reader.tokens(suffix(question, mllm.info.family).text), *said]).argmax())
            if token == reader.end:
                break
            said.append(token)
    return reader.text(said)


@pytest.mark.parametrize("folder", [*map(tiny, FAMILIES), untrained_yard()], ids=[*FAMILIES, "yard"])
async def test_answers_said_together_are_those_said_plainly(folder: Path) -> None:
    async with started(folder) as mllm:
        now = shown(mllm)
        plain = [plainly(mllm, now, question, 6) for question in QUESTIONS]
        assert await mllm.say(now, QUESTIONS, 6) == plain
        assert await mllm.say(now, QUESTIONS[1:2], 6) == plain[1:2]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("xgrammar")
async def test_what_was_said_is_not_kept(family: str) -> None:
    async with started(tiny(family)) as mllm:
        now, query = shown(mllm), WatchQuery("gate", "Is the gate open?")
        (before,) = (await mllm.ask(now, [query])).answers
        first = await mllm.say(now, QUESTIONS, 8, REPORT)
        (after,) = (await mllm.ask(now, [query])).answers
        assert after.score == pytest.approx(before.score, abs=1e-5)
        assert await mllm.say(now, QUESTIONS, 8, REPORT) == first


@pytest.mark.usefixtures("xgrammar")
async def test_questions_are_grouped_by_what_they_may_grow_to(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    read = reader.PromptReader.read_row

    def spy(reader: reader.PromptReader, row: object, more: dict[int, list[int]]) -> torch.Tensor:
        passes.append(len(more))
        return read(reader, row, more)  # type: ignore[arg-type]

    async with started(tiny()) as mllm:
        now = shown(mllm)
        together = await mllm.say(now, QUESTIONS, 4, REPORT)
        monkeypatch.setattr(reader, "MAX_PACKED_TOKENS", 400)
        monkeypatch.setattr(reader.PromptReader, "read_row", spy)
        assert await mllm.say(now, QUESTIONS, 4, REPORT) == together
        assert max(passes) == 3
        passes.clear()
        await mllm.say(now, QUESTIONS, 300, {"enum": ["a"]})
        assert max(passes) == 1


@pytest.mark.parametrize("folder", [*map(tiny, FAMILIES), untrained_yard()], ids=[*FAMILIES, "yard"])
@pytest.mark.usefixtures("xgrammar")
async def test_every_answer_follows_its_schema(folder: Path) -> None:
    async with started(folder) as mllm:
        said = await mllm.say(shown(mllm), QUESTIONS, 200, REPORT)
        for answer in map(json.loads, said):
            jsonschema.validate(answer, REPORT)
        assert await mllm.say(shown(mllm), QUESTIONS[:1], 200, {"enum": ["only this"]}) == ['"only this"']


@pytest.mark.usefixtures("xgrammar")
async def test_a_cut_answer_is_the_beginning_of_the_whole_one() -> None:
    async with started(tiny()) as mllm:
        (whole,) = await mllm.say(shown(mllm), QUESTIONS[:1], 200, REPORT)
        (cut,) = await mllm.say(shown(mllm), QUESTIONS[:1], 20, REPORT)
        assert whole.startswith(cut)
        assert 10 <= len(cut) < len(whole)


@pytest.mark.usefixtures("xgrammar")
async def test_no_chat_markup_is_ever_said_inside_a_string() -> None:
    async with started(tiny()) as mllm:
        reader = mllm.reader
        assert reader
        mask = reader.grammars.mask({"type": "string"}, 1)
        mask.accept(0, reader.tokens('"')[0])
        allowed = torch.isfinite(mask.apply(torch.zeros(1, 512), [0])[0]).nonzero().flatten().tolist()
        assert reader.tokens("a")[0] in allowed
        assert not {reader.tokens(special)[0] for special in ("<|im_end|>", "<|image_pad|>", "<think>")} & {*allowed}
        assert max(allowed) < len(reader.tokenizer)


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"enum": []}, {"$ref": "#/nowhere"}])
@pytest.mark.usefixtures("xgrammar")
async def test_a_schema_that_cannot_be_followed_is_refused_by_value_and_costs_nothing_kept(
    schema: dict[str, object],
) -> None:
    async with started(tiny()) as mllm:
        now = shown(mllm)
        with pytest.raises(ConfigError, match="cannot be followed") as refusal:
            await mllm.say(now, QUESTIONS, 8, schema)  # type: ignore[arg-type]
        assert repr(schema) in str(refusal.value)
        assert mllm.pending(now) == 0


async def test_without_the_package_a_schema_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgrammar", None)
    async with started(tiny()) as mllm:
        with pytest.raises(ConfigError, match="need the package xgrammar"):
            await mllm.say(shown(mllm), QUESTIONS, 8, REPORT)
        assert len(await mllm.say(shown(mllm), QUESTIONS, 8)) == 3


async def test_saying_waits_in_the_same_queue_as_asking() -> None:
    async with started(tiny(), max_queue=1) as mllm:
        first = asyncio.create_task(mllm.say(shown(mllm, "a"), QUESTIONS, 8))
        await asyncio.sleep(0)
        with pytest.raises(MLLMOverloaded, match="max_queue"):
            await mllm.say(shown(mllm, "b"), QUESTIONS, 8)
        with pytest.raises(MLLMOverloaded, match="max_queue"):
            await mllm.ask(shown(mllm, "b"), [])
        assert len(await first) == 3
        assert mllm.counters.refused == 2


@pytest.mark.usefixtures("xgrammar")
async def test_saying_for_too_long_times_out_between_two_tokens_and_keeps_the_context() -> None:
    async with started(tiny(), clock=Hurried(), timeout_s=6.0) as mllm:
        now = shown(mllm)
        with pytest.raises(MLLMTimeout):
            await mllm.say(now, QUESTIONS, 64, REPORT)
        assert mllm.pending(now) == 0
        assert len(await mllm.say(now, QUESTIONS, 3, REPORT)) == 3
