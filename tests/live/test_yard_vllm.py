"""The yard's MLLM through vLLM and through transformers: the same prompts, the same answers.

TEST_VLLM_PYTHON   the Python of an environment with vLLM, which wants another transformers than this package
"""

import asyncio
import functools
import json
import math
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import samples.yard.checkpoint
from pipeline.context import Context
from pipeline.mllm.prompt import (
    IMAGE_PAD,
    VIDEO_PAD,
    answer_tokens,
    looks,
    markup,
    opening,
    prefix,
    read_answer,
    suffix,
)
from pipeline.mllm.transformers import TransformersMLLM
from pipeline.types import Answer, Segment, WatchQuery
from samples.yard.codec import surveillance
from samples.yard.grammar import Question, ask
from samples.yard.scene import Scene
from samples.yard.segments import told
from samples.yard.shape import FAMILY
from samples.yard.train.episodes import SAMPLE_FPS, SECONDS, shrunk, sizes
from tests.checkpoints import context
from tests.services import require

pytestmark = pytest.mark.timeout(300)

CHECKPOINT = Path(samples.yard.checkpoint.__file__).with_name("mllm")
SCRIPT = Path(__file__).with_name("vllm_answers.py")
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
    """One answer: the tokens of its prompt, what it says in words, and how it is read where yes or no was asked."""

    ids: list[int]
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


async def through_transformers(shown: Sequence[Shown]) -> list[Said]:
    mllm = TransformersMLLM(CHECKPOINT, name="yard", device="cpu")
    await mllm.start()
    found = []
    try:
        for one in shown:
            texts = [question.text for question in one.questions]
            answers = await mllm.ask(one.context, [WatchQuery(text, text) for text in texts])
            words = await mllm.say(one.context, texts, LONGEST)
            ids = [read_by_us(one.context, text) for text in texts]
            found += map(Said, ids, words, answers.answers)
    finally:
        await mllm.close()
    return found


def through_vllm(shown: Sequence[Shown], python: str, folder: Path) -> list[Said]:
    yes, no = answer_tokens(tokens)
    pictures, prompts, texts = {}, [], []
    for one in shown:
        names = [segment.content_id for segment in one.context.segments]
        for name, segment in zip(names, one.context.segments, strict=True):
            pictures[name] = segment.pixels
            pictures[name + "@"] = np.array(segment.pts_s) - one.context.anchor_s
        for question in one.questions:
            prompts.append({"text": written_for_vllm(one.context, question.text), "pictures": names})
            texts.append(question.text)
    np.savez(folder / "pictures.npz", **pictures)
    asked = {"checkpoint": str(CHECKPOINT), "most": LONGEST, "watched": sorted(yes | no), "prompts": prompts}
    (folder / "asked.json").write_text(json.dumps(asked))
    run(python, folder)
    return [
        Said(
            one["ids"],
            str(tokenizer().decode(one["said"], skip_special_tokens=True)).strip(),
            read_answer(text, *(log_sum(one["log_shares"][str(token)] for token in group) for group in (yes, no))),
        )
        for text, one in zip(texts, json.loads((folder / "answers.json").read_text()), strict=True)
    ]


def read_by_us(shown: Context, question: str) -> list[int]:
    """The tokens of a prompt, part by part, as a growing context is read."""
    parts = (*prefix(shown, FAMILY), suffix(question, FAMILY))
    return [token for part in parts for token in tokens(markup([part], expanded=True))]


def written_for_vllm(shown: Context, question: str) -> str:
    """The prompt with a placeholder per picture. Around a video's, vLLM writes the time and the markers by itself."""
    text = opening(FAMILY).text
    for segment in shown.segments:
        single = len(segment.pts_s) == 1
        text += markup(looks([segment], shown.anchor_s), expanded=False) if single else VIDEO_PAD
    return text + suffix(question, FAMILY).text


def tokens(text: str) -> list[int]:
    ids: list[int] = tokenizer().encode(text, add_special_tokens=False)
    return ids


@functools.cache
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(CHECKPOINT)


def log_sum(shares: Iterable[float]) -> float:
    return math.log(sum(map(math.exp, shares)))


def run(python: str, folder: Path) -> None:
    """The script, in a temporary folder of its own; its output is shown when it fails."""
    done = subprocess.run(
        [python, str(SCRIPT), str(folder)],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def vllm_python() -> str:
    python = os.environ.get("TEST_VLLM_PYTHON")
    require(bool(python), "TEST_VLLM_PYTHON is the Python of an environment with vLLM")
    assert python
    return python


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> list[Both]:
    """Every question on every episode, answered by both backends."""
    python = vllm_python()
    require(
        (CHECKPOINT / "model.safetensors").exists(), f"no weights in {CHECKPOINT}; see python -m samples.yard.train"
    )
    wanted = [(count, frames) for frames, counts in COUNTS.items() for count in counts]
    shown = [show(FIRST_SEED + index, *one) for index, one in enumerate(wanted)]
    ours = asyncio.run(through_transformers(shown))
    theirs = through_vllm(shown, python, tmp_path_factory.mktemp("vllm"))
    asked = [(frames, question) for (_, frames), one in zip(wanted, shown, strict=True) for question in one.questions]
    return [Both(*one, *said) for one, said in zip(asked, zip(ours, theirs, strict=True), strict=True)]


@pytest.fixture(params=COUNTS)
def both(answered: list[Both], request: pytest.FixtureRequest) -> list[Both]:
    """Those on segments of one frame, which are images, or of two, which are videos."""
    return [one for one in answered if one.frames == request.param]


def test_the_model_reads_the_same_prompt(both: list[Both]) -> None:
    assert [one.theirs.ids for one in both] == [one.ours.ids for one in both]


def test_a_small_picture_costs_as_little_as_it_is_large(both: list[Both]) -> None:
    """Cells of 32 px: the published configuration would blow a picture of one cell up to 64."""
    pads = {*tokens(IMAGE_PAD), *tokens(VIDEO_PAD)}
    costs = {sum(token in pads for token in one.theirs.ids) for one in both}
    assert min(costs) < 64 < max(costs)


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
