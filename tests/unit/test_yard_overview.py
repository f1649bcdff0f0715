"""The upper layers of the vision part: they begin by changing nothing, and learn what a picture shows as a whole."""

import dataclasses

import numpy as np
import pytest
import torch

from samples.yard.episodes.vision import tokens
from samples.yard.questions.grammar import ask_if, only_answer
from samples.yard.questions.truth import GATE_OPEN, PERSON
from samples.yard.shape import HIDDEN
from samples.yard.train import overview as taught
from samples.yard.train.episodes import Viewing
from samples.yard.train.notes import CONDITIONS
from samples.yard.train.overview import CHOICES, TaughtOverview, overview_batch, overview_loss
from samples.yard.train.vision import TaughtVision
from samples.yard.world.facts import FrameFacts, Thing

CAR = Thing(7, "car", (96, 96, 96, 64), 64.0, 1.0, 60.0, "road", colour="red", plate="A7K", plate_px=14.0)


@pytest.fixture
def viewings(monkeypatch):
    """Episodes of three pictures each: a red car near the camera, seen large, and nothing."""

    def view(seed: int, turn: int) -> Viewing:
        rng = np.random.default_rng((seed, turn))
        shapes = [(8, 14), (2, 3), (1, 1)]
        pixels = tuple(rng.integers(0, 256, (2, rows * 32, columns * 32, 3), np.uint8) for rows, columns in shapes)
        times = [(float(second), second + 0.5) for second in range(3)]
        facts = tuple(
            tuple(FrameFacts(at_s, "day", False, False, True, (CAR,) if second == 0 else ()) for at_s in pair)
            for second, pair in enumerate(times)
        )
        return Viewing(f"{seed}-{turn}", pixels, tuple(times), facts)

    monkeypatch.setattr(taught.episodes, "view", view)
    taught.viewed.cache_clear()
    yield view
    taught.viewed.cache_clear()


@pytest.fixture
def batch(viewings):
    return overview_batch(range(100, 140), 0, np.random.default_rng(0))


def test_upper_layers_begin_by_changing_nothing(batch):
    seeing = TaughtVision(1)
    grown = TaughtOverview(seeing, 1)
    with torch.no_grad():
        seen, before = grown(batch)
        lower = tokens(seeing.visual, batch.patches, batch.grid_thw)
    assert torch.allclose(seen, lower, atol=1e-5)
    assert torch.allclose(before, lower, atol=1e-5)


def test_only_upper_layers_learn(batch):
    grown = TaughtOverview(TaughtVision(1), 1)
    before = {name: weight.clone() for name, weight in grown.visual.state_dict().items()}
    optimizer = torch.optim.SGD([weight for weight in grown.parameters() if weight.requires_grad], lr=0.1)
    for _ in range(2):
        loss, figures = overview_loss(grown, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = {name for name, weight in grown.visual.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved
    assert all(name.startswith(("blocks.4.", "blocks.5.", "merger.")) for name in moved)
    assert any(name.startswith("blocks.4.attn.qkv") for name in moved)
    assert {"holds", "kept", "plate", *CHOICES} <= figures.keys()


def test_each_picture_comes_with_what_it_shows(batch):
    large = batch.cells == 112
    assert int(large.sum()) >= 1
    colours = batch.choices[:, list(CHOICES).index("colour_near_now")]
    assert set(colours[large].tolist()) == {0}, "red"
    assert set(colours[~large].tolist()) == {-1}
    assert (batch.plate[large] >= 0).all()
    assert (batch.plate[~large] == -1).all()
    assert batch.holds.shape == (len(batch.cells), len(CONDITIONS))
    drawn = taught.EPISODES_PER_STEP * taught.PICTURES_PER_EPISODE
    assert set(batch.holds[:drawn, CONDITIONS.index(GATE_OPEN)].tolist()) == {0}
    assert len(batch.holds) == drawn + taught.SHEETS_BESIDE + taught.CROWDED_SHEETS
    assert (batch.holds[drawn:] == -1).all(), "of sheets nothing is asked"
    assert int(batch.cells.sum()) * 4 == len(batch.patches)


def test_a_batch_is_a_function_of_its_step(viewings):
    one, other = (overview_batch(range(100, 140), 7, np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(one.patches, other.patches)
    assert torch.equal(one.holds, other.holds)


def test_what_each_cell_says_can_be_learned(batch):
    grown = TaughtOverview(TaughtVision(1), 1)
    optimizer = torch.optim.AdamW([weight for weight in grown.parameters() if weight.requires_grad], lr=3e-3)
    losses = []
    for _ in range(10):
        loss, _ = overview_loss(grown, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert grown.heads.weight.shape[1] == HIDDEN


def test_a_condition_is_asked_for_in_other_words_than_a_watch_stands_in():
    frames = [FrameFacts(0.0, "day", False, False, True, (CAR,))]
    rng = np.random.default_rng(0)
    texts = {
        (question.text.casefold().removesuffix("?"), question.answer)
        for question in (ask_if(GATE_OPEN, frames, rng) for _ in range(60))
        if question
    }
    assert {answer for _, answer in texts} == {"no"}
    assert len(texts) > 5
    assert "is the gate open" not in {text for text, _ in texts}
    undecided = [dataclasses.replace(frames[0], gate_open=None)]
    assert ask_if(GATE_OPEN, undecided, rng) is None
    assert ask_if(PERSON, frames, rng).answer == "no"


def test_what_has_one_answer_only():
    near = [FrameFacts(0.0, "day", False, False, True, (CAR,))]
    assert only_answer("colour_near_now", near) == "red"
    assert only_answer("plate_read_now", near) == "A7K"
    assert only_answer("count_people_now", near) == "0"
    assert only_answer("helmet_nearest_now", near) is None, "nobody is there"
