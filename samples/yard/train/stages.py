"""The stages of the recipe, in order: what each trains, on what, and for how long.

1. `sheets`: the vision part reads characters; 2. `scenes`: it learns the yard, one cell at a time, while sheets go on;
3. `moments`: the same where something happens; 4. `rare`: small and rare things weigh more; 5. `crowds`: what people
wear and carry; 6. `overview`: every cell learns what the whole picture shows; 7. `look`: the outputs for many episodes
are kept; then the text part learns to answer from them, 8. `present`: about the newest second, and 9. `text`: about all
that a context shows.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch.nn import Module
from torch.utils.data import DataLoader

from samples.yard.shape import TRAINING_SEEDS
from samples.yard.train import together
from samples.yard.train.contexts import mixed_batch, present_batch
from samples.yard.train.crowds import crowd_sight, crowded_sheet, part_by_part
from samples.yard.train.episodes import SECONDS, Viewings, encode, keep
from samples.yard.train.overview import OverviewBatch, TaughtOverview, overview_batch, overview_loss
from samples.yard.train.packing import Packed, Packer
from samples.yard.train.pictures import VisionBatch, gather, turns
from samples.yard.train.plated import plated, plates_of
from samples.yard.train.run import TrainingStage, alone
from samples.yard.train.scenes import CROP_CELLS, Sight, crop, happening, sight, whole
from samples.yard.train.sheets import sheet
from samples.yard.train.text import TaughtText, answer_loss
from samples.yard.train.vision import TaughtVision, dense_loss
from samples.yard.versions import version
from samples.yard.world.happenings import make_script
from samples.yard.world.layout import make_layout

SEED = 1

SHEETS_PER_STEP = 12
EASY_UNTIL = (60, 600)

SCENES_PER_STEP, SIGHTS_PER_SCENE, SCENE_STEPS = 4, 2, 12
SHEETS_BESIDE = 2
NATIVE_UNTIL, NATIVE_ZOOMS = 0.45, (0.8, 1.25)
PAIRS = 0.5
CROPS_PER_SIGHT = 4

EVENTFUL, MOMENT_WHOLES = 0.8, 4
RARE = {"BagRole", "DogRole", "SmokeRole"}
STRESS = {"kind": 4.0, "person": 3.0, "any": 3.0}
"""Heads of the stage `rare`: how much more they weigh."""

CROWDS_PER_STEP, CROWD_STEPS, PLAIN_SIGHTS = 2, 8, 1
CROWDED_SHEETS = 6
CROWD_STRESS = {"kind": 3.0, "person": 8.0}

CALIBRATION_EPISODES = 40


def sheet_batch(step: int) -> VisionBatch:
    """Sheets only: easy ones first, since from hard ones nothing is learned for a long time."""
    hardness = float(np.interp(step, EASY_UNTIL, (0, 1)))
    return gather([sheet(np.random.default_rng((SEED, 1, step, index)), hardness) for index in range(SHEETS_PER_STEP)])


def sheets(model: TaughtVision, steps: int) -> TrainingStage[VisionBatch]:
    """Characters first: they are too few in scenes to be learned there."""
    recipe = f"seed {SEED}, {steps} steps"
    return TrainingStage("sheets", recipe, steps, 2.5e-3, model, sheet_batch, lambda batch: dense_loss(model, batch))


def scene_batch(step: int, steps: int) -> VisionBatch:
    """Crops near native size with a few whole frames; later as many whole frames, of any size. Always some sheets.

    A scene serves several steps.
    """
    rng = np.random.default_rng((SEED, 2, step))
    seen = _sights(step, 3, rng)
    if step < NATIVE_UNTIL * steps:
        examples = [whole(seen[step % len(seen)], rng.uniform(0.6, 1), rng)]
        examples += [crop(one, CROP_CELLS[0], rng, NATIVE_ZOOMS) for one in seen for _ in range(CROPS_PER_SIGHT)]
    else:
        examples = [whole(one, scale, rng) for one, scale in zip(seen, _scales(len(seen), rng), strict=True)]
        examples += [crop(one, CROP_CELLS[rng.integers(len(CROP_CELLS))], rng) for one in seen]
    examples += [sheet(rng) for _ in range(SHEETS_BESIDE)]
    return gather(examples)


def _sights(step: int, lot: int, rng: np.random.Generator, eventful: float = 0.0, rare: bool = False) -> list[Sight]:
    """Moments of a step's scenes, one frame or two."""
    seeds = [seed for seed in _scene_seeds(step, lot, rare) for _ in range(SIGHTS_PER_SCENE)]
    return [sight(seed, 1 + int(rng.random() < PAIRS), rng, eventful) for seed in seeds]


def _scene_seeds(step: int, lot: int, rare: bool, places: int = SCENES_PER_STEP, steps: int = SCENE_STEPS) -> list[int]:
    """Scenes of a stage's `lot` that change in turn: building one costs as much as ten pictures of it."""
    changed = turns(step, places, steps)
    return [_scene_seed((SEED, lot, index, turn), rare) for index, turn in enumerate(changed)]


@lru_cache(maxsize=64)
def _scene_seed(key: tuple[int, ...], rare: bool) -> int:
    """The seed of a scene, if wanted of the first that has two rare kinds of things."""
    rng = np.random.default_rng(key)
    seed = int(rng.integers(TRAINING_SEEDS))
    while rare and len(RARE & happening(make_script(seed, SECONDS, make_layout(seed))).keys()) < 2:
        seed = int(rng.integers(TRAINING_SEEDS))
    return seed


def _scales(count: int, rng: np.random.Generator) -> list[float]:
    """One native picture, the others of any size."""
    return [1.0, *np.exp(rng.uniform(np.log(0.1), np.log(0.8), count - 1)).tolist()]


def scenes(model: TaughtVision, steps: int) -> TrainingStage[VisionBatch]:
    """The yard, cell by cell."""
    recipe = f"seed {SEED}, {steps} steps, world {version('world', 'truth')}"
    return TrainingStage(
        "scenes",
        recipe,
        steps,
        2.5e-3,
        model,
        lambda step: scene_batch(step, steps),
        lambda batch: dense_loss(model, batch),
    )


def moment_batch(step: int) -> VisionBatch:
    """Whole frames, two of them native, and crops; mostly of moments at which something happens."""
    rng = np.random.default_rng((SEED, 7, step))
    return _moments(_sights(step, 8, rng, EVENTFUL), step, rng)


def _moments(seen: Sequence[Sight], step: int, rng: np.random.Generator) -> VisionBatch:
    scales = [1.0, *_scales(MOMENT_WHOLES - 1, rng)]
    examples = [whole(seen[(step + index) % len(seen)], scale, rng) for index, scale in enumerate(scales)]
    sizes = [CROP_CELLS[0], CROP_CELLS[rng.integers(len(CROP_CELLS))]]
    examples += [crop(one, size, rng, (0.8, 1.4)) for one in seen for size in sizes]
    examples += [sheet(rng) for _ in range(SHEETS_BESIDE)]
    return gather(examples)


def moments(model: TaughtVision, steps: int) -> TrainingStage[VisionBatch]:
    """Rare things: in `scenes`, smoke, dogs and bags were a few of a hundred pictures."""
    recipe = f"seed {SEED}, {steps} steps, world {version('world', 'truth')}"
    return TrainingStage("moments", recipe, steps, 1.5e-3, model, moment_batch, lambda batch: dense_loss(model, batch))


def rare_batch(step: int) -> VisionBatch:
    """As `moment_batch`, of scenes in which at least two rare kinds of things come."""
    rng = np.random.default_rng((SEED, 9, step))
    return _moments(_sights(step, 10, rng, EVENTFUL, rare=True), step, rng)


def rare(model: TaughtVision, steps: int) -> TrainingStage[VisionBatch]:
    """Small and rare things, each weighing as much as all that is common."""
    recipe = f"seed {SEED}, {steps} steps, {STRESS}, world {version('world', 'truth')}"
    return TrainingStage(
        "rare", recipe, steps, 1.5e-3, model, rare_batch, lambda batch: dense_loss(model, batch, STRESS)
    )


def crowd_batch(step: int) -> VisionBatch:
    """Crowded sheets and yards, beside moments of usual yards, and sheets of plates."""
    rng = np.random.default_rng((SEED, 15, step))
    seeds = _scene_seeds(step, 15, False, CROWDS_PER_STEP, CROWD_STEPS)
    crowds = [crowd_sight(seed, 1 + int(rng.random() < PAIRS), rng) for seed in seeds]
    scales = 1.0, float(rng.uniform(0.4, 1))
    examples = [whole(one, scale, rng, part_by_part) for one, scale in zip(crowds, scales, strict=True)]
    examples += [crowded_sheet(rng) for _ in range(CROWDED_SHEETS)]
    plain = _sights(step, 16, rng, EVENTFUL, rare=True)
    examples += [whole(one, scale, rng) for one, scale in zip(plain, _scales(PLAIN_SIGHTS, rng), strict=False)]
    examples += [crop(one, CROP_CELLS[0], rng, (0.8, 1.4)) for one in plain[PLAIN_SIGHTS:]]
    examples += [sheet(rng) for _ in range(SHEETS_BESIDE)]
    return gather(examples)


def crowds(model: TaughtVision, steps: int) -> TrainingStage[VisionBatch]:
    """Things that people wear and carry."""
    recipe = f"seed {SEED}, {steps} steps, {CROWD_STRESS}, world {version('world', 'truth')}"
    return TrainingStage(
        "crowds", recipe, steps, 1.5e-3, model, crowd_batch, lambda batch: dense_loss(model, batch, CROWD_STRESS)
    )


def overview(model: TaughtOverview, steps: int, seeds: Sequence[int]) -> TrainingStage[OverviewBatch]:
    """The whole picture's contents, in each of its cells."""
    recipe = f"seed {SEED}, {steps} steps, {len(seeds)} episodes, world {version('world', 'truth')}"

    def batch(step: int) -> OverviewBatch:
        return overview_batch(seeds, step, np.random.default_rng((SEED, 12, step)))

    return TrainingStage("overview", recipe, steps, 1.5e-3, model, batch, lambda batch: overview_loss(model, batch))


def look(visual: Module, wanted: Sequence[tuple[int, int]], folder: Path) -> list[Path]:
    """Keep what the vision part sees of episodes (seed, turn) that `folder` does not hold yet, and of pictures of them
    with plates. Returns the episodes' files.

    Processes that train together share the work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place, processes = together.place()
    mine = wanted[place::processes]
    missing = [(seed, turn) for seed, turn in mine if not (folder / f"{seed}-{turn}.npz").exists()]
    visual.eval()
    viewings = DataLoader(Viewings(missing), batch_size=None, num_workers=1, worker_init_fn=alone, prefetch_factor=2)
    for episode, viewing in zip(missing, viewings, strict=True):
        file = folder / f"{viewing.name}.npz"
        if (stuck := plated(viewing, np.random.default_rng((SEED, 17, *episode)))) is not None:
            keep(plates_of(file), encode(visual, stuck))
        keep(file, encode(visual, viewing))
    together.wait()
    return [folder / f"{seed}-{turn}.npz" for seed, turn in wanted]


def present(
    model: TaughtText, packer: Packer, files: Sequence[Path], steps: int, seen: str
) -> TrainingStage[list[Packed]]:
    """Questions about the newest second, thousands of each kind."""

    def batch(step: int) -> list[Packed]:
        return present_batch(files, packer, np.random.default_rng((SEED, 11, step)))

    return _answering("present", 2e-3, model, batch, files, steps, seen)


def text(
    model: TaughtText, packer: Packer, files: Sequence[Path], steps: int, seen: str
) -> TrainingStage[list[Packed]]:
    """Questions about all that contexts of any length show, the present among them."""

    def batch(step: int) -> list[Packed]:
        return mixed_batch(files, packer, np.random.default_rng((SEED, 14, step)))

    return _answering("text", 1.5e-3, model, batch, files, steps, seen)


def _answering(
    name: str,
    rate: float,
    model: TaughtText,
    batch: Callable[[int], list[Packed]],
    files: Sequence[Path],
    steps: int,
    seen: str,
) -> TrainingStage[list[Packed]]:
    """Answers from what the vision part saw; its weights, which `seen` names, stay as they are."""
    model.requires_grad_(True)
    model.mllm.model.visual.requires_grad_(False)
    recipe = f"seed {SEED}, {steps} steps, {len(files)} files of {seen}, grammar {version('grammar')}"
    return TrainingStage(name, recipe, steps, rate, model, batch, lambda batch: answer_loss(model, batch))


def training_episodes(count: int) -> list[tuple[int, int]]:
    """(seed, turn) of the episodes that the text part learns from."""
    return [(int(seed), 0) for seed in _text_seeds()[CALIBRATION_EPISODES : CALIBRATION_EPISODES + count]]


def calibration_episodes() -> list[tuple[int, int]]:
    """(seed, turn) of episodes that are not learned from, but that the temperature is fitted to."""
    return [(int(seed), 0) for seed in _text_seeds()[:CALIBRATION_EPISODES]]


def _text_seeds() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng((SEED, 6)).permutation(TRAINING_SEEDS)
