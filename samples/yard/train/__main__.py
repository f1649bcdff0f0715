"""Rebuild the yard's MLLM from nothing: `python -m samples.yard.train --work DIR`.

Stopped at any moment, the same command goes on where it was. Takes about two hours on two cores.
"""

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.errors import ConfigError, EngineMismatch
from samples.yard.checkpoint import save, tokenizer, untrained
from samples.yard.hashes import of_source, of_weights
from samples.yard.train import stages
from samples.yard.train.calibration import calibrate
from samples.yard.train.packing import Packer
from samples.yard.train.run import run
from samples.yard.train.start import widen
from samples.yard.train.vision import TaughtVision, embed_patches_by_product

log = logging.getLogger("samples.yard.train")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps of each stage, and episodes that the text part learns from."""

    sheets: int = 800
    scenes: int = 7500
    episodes: int = 450
    text: int = 1800

    def times(self, factor: float) -> "Recipe":
        """The same recipe, shorter or longer."""
        sheets, scenes, episodes, text = (
            max(2, round(number * factor)) for number in (self.sheets, self.scenes, self.episodes, self.text)
        )
        return Recipe(sheets, scenes, episodes, text)


def train(work: Path, out: Path, recipe: Recipe, device: str = "cpu") -> None:
    """All stages, one after the other; those that are done are only loaded. Writes the checkpoint to `out`."""
    vision = TaughtVision(stages.SEED).to(device)
    for stage in (stages.sheets(vision, recipe.sheets), stages.scenes(vision, recipe.scenes)):
        log.info("stage %s: %d steps", stage.name, stage.steps)
        run(stage, work)
    seen = of_weights(vision.visual)
    episodes = stages.training_episodes(recipe.episodes)
    log.info("stage look: %d episodes", len(episodes))
    folder = work / f"episodes-{seen}-{of_source('world', 'truth')}"
    files = stages.look(vision, episodes, folder)
    apart = stages.look(vision, stages.calibration_episodes(), folder)
    words = tokenizer()
    model = untrained(words, stages.SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stages.SEED)
        widen(model.model.language_model)
    model.model.visual.load_state_dict(vision.visual.state_dict())
    embed_patches_by_product(model.model.visual)
    torch.nn.Module.to(model, device)
    log.info("stage text: %d steps", recipe.text)
    run(stages.text(model, Packer(words), files, recipe.text, seen), work)
    temperature = calibrate(model, Packer(words), apart)
    log.info("temperature %.3f", temperature)
    torch.nn.Module.to(model, "cpu")
    save(model, words, out)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m samples.yard.train", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for states and curves; resumed if it has some")
    parser.add_argument("--out", type=Path, required=True, help="folder that the checkpoint is written to")
    parser.add_argument("--factor", type=float, default=1.0, help="multiplies the steps of every stage")
    parser.add_argument("--device", default="cpu", help="a torch device")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads of the model; data has a process of its own"
    )
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.threads)
    try:
        if not given.factor > 0:
            raise ConfigError(f"--factor is {given.factor}; expected more than 0")
        train(given.work, given.out, Recipe().times(given.factor), given.device)
    except (ConfigError, EngineMismatch) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
