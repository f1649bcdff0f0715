"""The yard's MLLM through vLLM and through transformers: the same answers, in yes and no and in words."""

import asyncio
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import samples.yard.train.checkpoint
from pipeline.config.mllm import VllmConfig, YardConfig
from pipeline.core.context import Context
from pipeline.mllm.transformers.backend import TransformersMLLM
from pipeline.mllm.vllm.backend import VllmMLLM
from pipeline.types import Answer, Segment, WatchQuery
from samples.yard.questions.grammar import Question, ask
from samples.yard.train.episodes import SAMPLE_FPS, SECONDS, shrunk, sizes
from samples.yard.world.codec import surveillance
from samples.yard.world.scene import Scene
from samples.yard.world.segments import told
from tests.checkpoints import context
from tests.services import require

pytestmark = pytest.mark.timeout(300)

CHECKPOINT = Path(samples.yard.train.checkpoint.__file__).parents[1] / "mllm"
FIRST_SEED = 800_400
COUNTS = {1: (1, 3, 6, 8, 11, 14, 16, 19, 22, 24), 2: (1, 4, 8, 12, 18, 24)}
"""Segments in the context of each episode, by frames per segment."""
QUESTIONS = 20
LONGEST = 12
"""Tokens of the longest answer."""
VERDICTS = ("yes", "no", "unknown")


@dataclass(frozen=True)
class Shown:
    """A context of a held-out episode, and what is asked about it."""

    context: Context
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Said:
    """One answer: what it says in words, and how it is read where yes or no was asked."""

    words: str
    read: Answer


@dataclass(frozen=True)
class Both:
    """The same question, on segments of so many frames, answered by both backends."""

    frames: int
    question: Question
    ours: Said
    theirs: Said

    @property
    def agree(self) -> bool:
        if self.question.answer in VERDICTS:
            return self.ours.read.verdict == self.theirs.read.verdict
        return self.ours.words == self.theirs.words


def show(seed: int, count: int, frames: int) -> Shown:
    """`count` segments in a row out of an episode, at the sizes some allocator might have chosen."""
    rng = np.random.default_rng((seed, frames))
    scene = Scene(seed, SECONDS)
    first = int(rng.integers(int(SECONDS * SAMPLE_FPS) - count * frames + 1))
    looks = [scene.look((first + index) / SAMPLE_FPS) for index in range(count * frames)]
    pictures = surveillance([look.pixels for look in looks], SAMPLE_FPS, seed=seed)
    segments, facts = [], []
    for start, size in zip(range(0, len(looks), frames), sizes(rng, count), strict=True):
        group = range(start, start + frames)
        pixels = np.stack([shrunk(pictures[index], *size) for index in group])
        times = tuple(looks[index].facts.time_s for index in group)
        segments.append(Segment(times, pixels, size[0] * size[1], f"{seed}:{times}"))
        facts.append([looks[index].facts for index in group])
    made = context(*segments, stream_id=str(seed))
    return Shown(made, tuple(ask(told(facts, made.anchor_s), rng, count=QUESTIONS)))


async def answers_of(mllm: TransformersMLLM | VllmMLLM, shown: Sequence[Shown]) -> list[Said]:
    found = []
    try:
        await mllm.start()
        for one in shown:
            texts = [question.text for question in one.questions]
            answers = await mllm.ask(one.context, [WatchQuery(text, text) for text in texts])
            words = await mllm.say(one.context, texts, LONGEST)
            found += map(Said, words, answers.answers)
    finally:
        await mllm.close()
    return found


async def both_answer(shown: Sequence[Shown]) -> tuple[list[Said], list[Said]]:
    ours = await answers_of(TransformersMLLM(CHECKPOINT, YardConfig(device="cpu")), shown)
    theirs = await answers_of(
        VllmMLLM(CHECKPOINT, VllmConfig(use="vllm:yard", kv_cache_gib=0.25, max_prompt_tokens=8192)), shown
    )
    return ours, theirs


@pytest.fixture(scope="module")
def answered() -> list[Both]:
    """Every question on every episode, answered by both backends."""
    require(importlib.util.find_spec("vllm") is not None, "the package vllm")
    wanted = [(count, frames) for frames, counts in COUNTS.items() for count in counts]
    shown = [show(FIRST_SEED + index, *one) for index, one in enumerate(wanted)]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        environment.setenv("HF_HUB_OFFLINE", "1")
        said = zip(*asyncio.run(both_answer(shown)), strict=True)
    asked = [(frames, question) for (_, frames), one in zip(wanted, shown, strict=True) for question in one.questions]
    return [Both(*one, *two) for one, two in zip(asked, said, strict=True)]


@pytest.fixture(params=COUNTS)
def both(answered: list[Both], request: pytest.FixtureRequest) -> list[Both]:
    """Those on segments of one frame, which are images, or of two, which are videos."""
    return [one for one in answered if one.frames == request.param]


def test_the_answers_are_the_same(both: list[Both]) -> None:
    differing = [one for one in both if not one.agree]
    assert len(differing) <= 0.01 * len(both), differing[:5]


def test_the_scores_are_the_same(both: list[Both]) -> None:
    scored = [one for one in both if one.question.answer in VERDICTS]
    off = [one for one in scored if abs(one.ours.read.score - one.theirs.read.score) > 0.02]
    assert len(off) <= 0.01 * len(scored), off[:5]


def test_the_answers_are_worth_comparing(both: list[Both]) -> None:
    """Both verdicts and many words occur: a model that always says the same would agree with anything."""
    verdicts = {one.ours.read.verdict for one in both if one.question.answer in VERDICTS}
    words = {one.ours.words for one in both if one.question.answer not in VERDICTS}
    assert verdicts >= {"yes", "no"}
    assert len(words) >= 5
