import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import EngineMismatch
from samples.yard.train.calibration import best_temperature
from samples.yard.train.episodes import SECONDS
from samples.yard.train.muon import orthogonal
from samples.yard.train.pictures import gather
from samples.yard.train.run import TrainingStage, learning_rate, run
from samples.yard.train.scenes import happening, sight
from samples.yard.train.sheets import sheet
from samples.yard.train.vision import TaughtVision
from samples.yard.world.facts import GLYPHS, FrameFacts, Thing
from samples.yard.world.glyphs import draw_plate
from samples.yard.world.scene import Scene
from samples.yard.world.targets import BLANK, HEADS, ShownPart, Targets, either, spell, targets, unknown

FRAME = (0, 0, 448, 256)
NATIVE = ShownPart(FRAME, (8, 14), whole=True)


def line(name: str = "line", recipe: str = "a line", steps: int = 12) -> TrainingStage[torch.Tensor]:
    """A stage that fits a line, with batches that depend on the step alone."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)

    def batch(step: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng((3, step)).normal(size=(8, 2)).astype(np.float32))

    def loss(points: torch.Tensor):
        error = (model(points)[:, 0] - points.sum(dim=1)).square().mean()
        return error, {"error": float(error.detach())}

    return TrainingStage(name, recipe, steps, 0.1, model, batch, loss, workers=0)


def person(**changes) -> Thing:
    thing = Thing(
        1, "person", (64, 64, 32, 64), 64.0, 1.0, 60.0, "road", helmet=False, vest=True, bag=False, head_px=9.0
    )
    return dataclasses.replace(thing, **changes)


def frame(*things: Thing) -> tuple[np.ndarray, FrameFacts]:
    ids = np.zeros((256, 448), np.uint8)
    for thing in things:
        left, top, width, height = thing.box
        ids[top : top + height, left : left + width] = thing.id
    return ids, FrameFacts(0.0, "day", False, True, None, things)


def dense(*things: Thing, shown: ShownPart = NATIVE, plates=None):
    ids, facts = frame(*things)
    return targets(ids, facts, plates or {}, ((0, 0, 32, 32), (400, 200, 32, 32)), shown)


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, stop):
    whole = run(line(), tmp_path / "whole", save_every=4)
    run(line(), tmp_path / "halves", save_every=4, stop_at=stop)
    resumed = run(line(), tmp_path / "halves", save_every=4)
    assert resumed == whole
    assert len(whole) == 12


def test_a_run_killed_between_two_saves_repeats_only_what_was_not_saved(tmp_path):
    whole = run(line(), tmp_path / "whole", save_every=4)
    stage = line()
    calls = 0

    def failing(points):
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return stage.loss(points)

    with pytest.raises(KeyboardInterrupt):
        run(dataclasses.replace(stage, loss=failing), tmp_path / "killed", save_every=4)
    assert run(line(), tmp_path / "killed", save_every=4) == whole


def _beside(place: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=place, world_size=2)
    stage = line()
    run(stage, folder / "together", save_every=4)
    torch.save(stage.module.state_dict(), folder / f"{place}.weights")
    dist.destroy_process_group()


def test_processes_that_train_together_learn_as_one_that_sees_all_of_their_batches(tmp_path):
    torch.multiprocessing.spawn(_beside, (tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{place}.weights", weights_only=True) for place in (0, 1))
    stage = line()

    def both(step: int) -> torch.Tensor:
        return torch.cat([stage.batch(2 * step), stage.batch(2 * step + 1)])

    run(dataclasses.replace(stage, batch=both), tmp_path / "alone", save_every=4)
    for name, weight in stage.module.state_dict().items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], weight, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == ["line.jsonl", "line.state"]
    with pytest.raises(EngineMismatch, match=r"'line: a line, 2 processes'; expected 'line: a line'"):
        run(line(), tmp_path / "together")


def test_a_damaged_or_foreign_state_is_refused_by_name(tmp_path):
    run(line(), tmp_path)
    state = tmp_path / "line.state"
    with pytest.raises(EngineMismatch, match=r"line\.state is of the recipe 'line: a line'; expected 'line: another'"):
        run(line(recipe="another"), tmp_path)
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(EngineMismatch, match=r"line\.state is damaged"):
        run(line(), tmp_path)


def test_the_learning_rate_warms_up_stays_and_falls():
    rates = [learning_rate(step, 1000, 1.0) for step in range(1000)]
    assert rates[0] < 0.05
    assert rates[300] == rates[500] == 1.0
    assert rates[-1] == pytest.approx(0.05, abs=0.01)
    assert rates[600:] == sorted(rates[600:], reverse=True)


def test_a_person_is_known_to_its_cells_and_to_the_whole_picture():
    found = dense(person())
    kinds = found["kind"].reshape(8, 14, 7)
    assert kinds[2:4, 2, 3].tolist() == [1, 1]
    assert kinds[..., 3].sum() == 2
    assert found["person"].reshape(8, 14, 4)[2, 2].tolist() == [0, 1, 0, 0]
    assert (found["people"] == 1).all()
    assert set(found["any"][:, 7]) == {1}, "somebody without a helmet"
    assert set(found["ways"][:, 1]) == {-1}, "an undecided barrier teaches nothing"


@pytest.mark.parametrize(
    ("change", "head"), [({"fraction": 0.4}, "kind"), ({"head_px": 3.0}, "person"), ({"contrast": 11.0}, "kind")]
)
def test_the_border_of_what_can_be_seen_teaches_nothing(change, head):
    found = dense(person(**change))
    column = 3 if head == "kind" else 0
    assert found[head].reshape(8, 14, -1)[2, 2, column] == -1


def test_a_crop_knows_only_what_it_holds():
    left = dense(person(), shown=ShownPart((0, 0, 224, 128), (4, 7), whole=False))
    right = dense(person(), shown=ShownPart((224, 0, 224, 128), (4, 7), whole=False))
    part = dense(person(), shown=ShownPart((0, 0, 224, 96), (3, 7), whole=False))
    assert set(left["people"].ravel()) == {1}
    assert set(right["people"].ravel()) == {0}
    assert set(part["people"].ravel()) == {-1}, "half of a person is neither there nor not"


def test_a_plate_too_small_to_be_read_is_not_spelled():
    car = Thing(2, "car", (100, 100, 120, 100), 100.0, 1.0, 60.0, "road", colour="red", plate="A7K", plate_px=12.0)
    box = {2: (140, 170, 40, 20)}
    native = dense(car, plates=box)
    quarter = dense(car, plates=box, shown=ShownPart(FRAME, (2, 4), whole=True))
    assert spell("A7K").tolist() in native["plate"].tolist()
    assert (quarter["plate"] == -1).all()
    assert (quarter["legible"] == 1).any()


@given(st.text(GLYPHS, min_size=1, max_size=3))
def test_a_plate_is_spelled_with_blanks_behind_it(plate):
    classes = spell(plate).tolist()
    assert [GLYPHS[c] for c in classes if c != BLANK] == list(plate)
    assert classes[len(plate) :] == [BLANK] * (3 - len(plate))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_a_sheet_has_targets_where_it_has_plates(seed, hardness):
    example = sheet(np.random.default_rng(seed), hardness)
    assert example.pixels.shape == (1, 128, 224, 3)
    legible = example.targets["legible"][:, 0] == 1
    assert legible.any()
    assert not (example.targets["plate"][~legible] >= 0).any()


def test_moments_are_found_where_something_happens():
    scene = Scene(800_003, SECONDS)
    spans = happening(scene.script)
    assert {"gate", "barrier"} & set(spans)
    assert all(0 <= start <= end <= SECONDS for found in spans.values() for start, end in found)
    seen = [sight(800_003, 1, np.random.default_rng(seed), eventful=1.0).looks[0].facts.time_s for seed in range(20)]
    assert all(any(a <= time_s <= b for found in spans.values() for a, b in found) for time_s in seen)


def test_two_frames_that_differ_leave_choices_open():
    both = either(dense(person()), dense())
    assert set(both["people"].ravel()) == {-1}
    assert set(both["any"][:, 3]) == {1}, "one of them shows a person"


def test_who_is_in_a_cell_for_one_frame_only_is_still_described():
    nobody, somebody, another = (targets_of(helmet) for helmet in (-1, 0, 1))
    assert either(nobody, somebody)["person"][0, 0] == 0
    assert either(another, nobody)["person"][0, 0] == 1
    assert either(somebody, another)["person"][0, 0] == -1, "two people, of whom either may be meant"
    assert either(somebody, somebody)["person"][0, 0] == 0


def targets_of(helmet: int) -> Targets:
    """Of one cell, with somebody whose helmet is known (0, 1), or nobody (-1)."""
    found = unknown(1)
    found["person"][:, 0] = helmet
    return found


def test_a_batch_holds_the_cells_of_all_pictures():
    examples = [sheet(np.random.default_rng(index)) for index in range(3)]
    batch = gather(examples)
    assert batch.patches.shape == (3 * 28 * 4, 1536)
    assert batch.grid_thw.tolist() == [[1, 8, 14]] * 3
    assert {name: tuple(target.shape) for name, target in batch.targets.items()} == {
        name: (84, head.slots) for name, head in HEADS.items()
    }


def test_plates_are_as_tall_as_asked_and_refuse_strange_characters():
    assert draw_plate("A7K", 20).shape[0] == pytest.approx(20 * 1.6, abs=2)
    with pytest.raises(ValueError, match="'Q1'"):
        draw_plate("Q1", 12)


def test_the_temperature_is_that_which_made_the_answers():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(20_000, 5, generator=generator) * 2
    wanted = torch.multinomial(torch.softmax(logits / 1.5, dim=1), 1, generator=generator)[:, 0]
    assert best_temperature(logits, wanted) == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize("shape", [(8, 8), (4, 16), (16, 4)])
def test_an_update_of_muon_is_nearly_orthogonal_and_points_along_the_gradient(shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    update = orthogonal(gradient)
    sizes = torch.linalg.svdvals(update)
    assert update.shape == gradient.shape
    assert 0.5 < float(sizes.min()) <= float(sizes.max()) < 1.3
    assert float((update * gradient).sum()) > 0


def test_patches_begin_as_cosines_that_do_not_overlap():
    weight = TaughtVision(0).visual.get_parameter("patch_embed.proj.weight").flatten(1)
    overlap = weight @ weight.T
    assert torch.allclose(overlap, torch.eye(len(weight)) * overlap[0, 0], atol=1e-5)
