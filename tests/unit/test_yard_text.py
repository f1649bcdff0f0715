"""What the text part is trained on is what it meets in service."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import ConfigError
from pipeline.mllm.card import read_card
from pipeline.mllm.prompt import looks, opening, suffix
from pipeline.mllm.transformers.loading import load
from pipeline.types import Segment
from samples.yard.questions.grammar import Question
from samples.yard.shape import FAMILY
from samples.yard.train.__main__ import StageSteps, begin_text, train
from samples.yard.train.checkpoint import save, tokenizer, untrained, vision_weights
from samples.yard.train.episodes import Looked, Viewing, encode, keep, recall, sizes
from samples.yard.train.packing import IGNORED, Packer, PlacedQuestion
from samples.yard.train.text import read
from samples.yard.world.facts import FrameFacts, Thing

GATE = Question("gate_open_now", "coarse", "is the gate open?", "yes")
PLATE = Question("plate_read_now", "fine", "what does the plate read?", "A7K")
ODD = Question("unknown", "unknown", "do elephants dance?", "unknown")


@pytest.fixture(scope="module")
def words():
    return tokenizer()


@pytest.fixture(scope="module")
def model(words):
    made = untrained(words, 3)
    # Larger weights, so that a difference in what is read makes a difference in what is said.
    for weight in made.parameters():
        weight.data.mul_(3 if weight.ndim > 1 else 1)
    return made.eval()


def viewing(frames: int = 1) -> Viewing:
    rng = np.random.default_rng(5)
    shapes = [(2, 3), (1, 1), (4, 7)]
    pixels = tuple(rng.integers(0, 256, (frames, r * 32, c * 32, 3), np.uint8) for r, c in shapes)
    pts_s = tuple(tuple(10.0 + second + index / 2 for index in range(frames)) for second in range(3))
    gate = (True, False, None)
    facts = tuple(
        tuple(FrameFacts(time_s, "day", False, is_open, True) for time_s in at)
        for at, is_open in zip(pts_s, gate, strict=True)
    )
    return Viewing("5-0", pixels, pts_s, facts)


@pytest.mark.parametrize("frames", [1, 2])
def test_training_and_serving_read_the_same(tmp_path: Path, model, words, frames):
    save(model, words, tmp_path)
    reader = load(str(tmp_path), read_card(str(tmp_path)), "cpu", "float32")
    seen = viewing(frames)
    packed = Packer(words).pack(
        encode(model.model.visual, seen), [PlacedQuestion(3, GATE), PlacedQuestion(3, PLATE), PlacedQuestion(3, ODD)]
    )
    with torch.inference_mode():
        trained = read(model, packed).said
        prefix = reader.empty()
        segments = [
            Segment(pts_s, pixels, pixels.shape[1] * pixels.shape[2] // 1024, str(pts_s))
            for pts_s, pixels in zip(seen.pts_s, seen.pixels, strict=True)
        ]
        reader.extend(prefix, [opening(FAMILY), *looks(segments, segments[0].pts_s[0])])
        served = reader.last_logits(prefix, [reader.tokens(suffix(q.text, FAMILY).text) for q in (GATE, PLATE, ODD)])
    owner = packed.owner[packed.targets != IGNORED]
    first = [int((owner == question).nonzero()[0]) for question in range(3)]
    # The vision tokens are kept in half precision between the stages.
    assert torch.allclose(trained[first], served, atol=0.02 * float(served.abs().max()))
    assert served.std(dim=0).max() > 0.05, "the questions are answered alike: this model cannot tell"


def test_what_should_be_said_is_the_answer_and_the_end_of_the_turn(words):
    looked = [Looked(np.zeros((1, 192), np.float16), 1, 1, (0.0,), viewing().facts[0])]
    packed = Packer(words).pack(looked, [PlacedQuestion(1, PLATE)])
    said = packed.targets[packed.targets != IGNORED].tolist()
    assert words.decode(said) == "A7K<|im_end|>"


def test_what_was_seen_is_kept_whole(tmp_path, model):
    looked = encode(model.model.visual, viewing())
    thing = Thing(7, "car", (1, 2, 3, 4), 50.0, 0.9, 33.0, "dock", colour="red", plate="A7", plate_px=11.0)
    looked[1] = dataclasses.replace(looked[1], facts=(dataclasses.replace(looked[1].facts[0], things=(thing,)),))
    keep(tmp_path / "one.npz", looked)
    back = recall(tmp_path / "one.npz")
    assert [dataclasses.replace(one, vision=None) for one in back] == [
        dataclasses.replace(one, vision=None) for one in looked
    ]
    assert all((one.vision == other.vision).all() for one, other in zip(back, looked, strict=True))
    assert not list(tmp_path.glob("*.partial"))


def test_a_checkpoint_to_begin_from_gives_its_vision_part_or_is_refused_by_name(tmp_path, model, words):
    save(model, words, tmp_path)
    assert vision_weights(tmp_path).keys() == model.model.visual.state_dict().keys()
    with pytest.raises(ConfigError, match=r"no model\.safetensors"):
        vision_weights(tmp_path / "nowhere")
    weights = tmp_path / "model.safetensors"
    save_file({"language.weight": torch.zeros(1)}, weights)
    with pytest.raises(ConfigError, match=r"holds no model\.visual"):
        vision_weights(tmp_path)
    save_file({"model.visual.strange": torch.zeros(1)}, weights)
    with pytest.raises(ConfigError, match="not that of a yard's MLLM"):
        train(tmp_path / "work", tmp_path / "out", StageSteps().times(1e-6), begin=tmp_path)
    weights.write_bytes(weights.read_bytes()[:20])
    with pytest.raises(ConfigError, match="is damaged"):
        vision_weights(tmp_path)
    assert not (tmp_path / "out").exists()


def test_times_stay_what_they_are_while_other_words_are_learned(words):
    text = untrained(words, 3).model.language_model
    begin_text(text, words)
    table = text.get_parameter("embed_tokens.weight")
    time, word = (words.encode(said, add_special_tokens=False)[0] for said in ("12.5", " gate"))
    table.square().sum().backward()
    assert not table.grad[time].any()
    assert table.grad[word].any()


@pytest.mark.parametrize("seed", range(10))
def test_sizes_are_of_every_kind_and_never_beyond_native(seed):
    chosen = sizes(np.random.default_rng(seed), 32)
    assert len(chosen) == 32
    assert all(1 <= rows <= 8 and 1 <= columns <= 14 for rows, columns in chosen)
