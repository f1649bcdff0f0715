"""Rebuild the yard's MLLM from nothing: `python -m samples.yard.train --work DIR`.

Stopped at any moment, the same command goes on where it was. Takes about three hours on two cores.
"""

import argparse
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from pipeline.errors import ConfigError, EngineMismatch
from samples.yard.checkpoint import TIMES, save, tokenizer, untrained, vision_weights
from samples.yard.hashes import of_source, of_weights
from samples.yard.train import stages
from samples.yard.train.calibration import calibrate
from samples.yard.train.packing import Packer
from samples.yard.train.run import B, Stage, run
from samples.yard.train.start import embed_words, widen
from samples.yard.train.text import TaughtMeaning, TaughtText
from samples.yard.train.vision import TaughtVision, embed_patches_by_product

_PLANNED = 1.25  # steps that the rate of the stage `text` is planned for, per step that is taken

log = logging.getLogger("samples.yard.train")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps of each stage, and episodes that the text part learns from."""

    sheets: int = 800
    scenes: int = 7500
    moments: int = 3400
    rare: int = 1800
    episodes: int = 1100
    text: int = 1600
    present: int = 700

    def times(self, factor: float) -> "Recipe":
        """The same recipe, shorter or longer."""
        return Recipe(**{name: max(2, round(number * factor)) for name, number in asdict(self).items()})


def train(work: Path, out: Path, recipe: Recipe, device: str = "cpu", begin: Path | None = None) -> None:
    """All stages, one after the other; those that are done are only loaded. Writes the checkpoint to `out`.

    `begin` is a checkpoint whose vision part takes the place of the first two stages.
    """
    vision = TaughtVision(stages.SEED).to(device)
    if begin is None:
        _run(stages.sheets(vision, recipe.sheets), work)
        _run(stages.scenes(vision, recipe.scenes), work)
    else:
        vision.visual.load_state_dict(vision_weights(begin))
    vision.forget_heads()
    _run(stages.moments(vision, recipe.moments), work)
    _run(stages.rare(vision, recipe.rare), work)
    seen = of_weights(vision.visual)
    episodes = stages.training_episodes(recipe.episodes)
    log.info("stage look: %d episodes", len(episodes))
    folder = work / f"episodes-{seen}-{of_source('world', 'truth')}"
    files = stages.look(vision, episodes, folder)
    apart = stages.look(vision, stages.calibration_episodes(), folder)
    words = tokenizer()
    model = TaughtText(untrained(words, stages.SEED), stages.SEED)
    begin_text(model.mllm.model.language_model, words)
    model.mllm.model.visual.load_state_dict(vision.visual.state_dict())
    embed_patches_by_product(model.mllm.model.visual)
    torch.nn.Module.to(model, device)
    # The next stage goes on before the learning rate has fallen.
    planned = round(recipe.text * _PLANNED)
    _run(stages.text(model, Packer(words), files, planned, seen), work, stop_at=recipe.text)
    meant = TaughtMeaning(model, stages.SEED)
    _run(stages.present(meant, Packer(words), files, recipe.present, seen), work)
    temperature = calibrate(model.mllm, Packer(words), apart)
    log.info("temperature %.3f", temperature)
    torch.nn.Module.to(model, "cpu")
    save(model.mllm, words, out)


def _run(stage: Stage[B], work: Path, stop_at: int | None = None) -> None:
    log.info("stage %s: %d steps", stage.name, stop_at or stage.steps)
    run(stage, work, stop_at=stop_at)


def begin_text(text: torch.nn.Module, words: PreTrainedTokenizerBase) -> None:
    """Draw the weights that the text part begins with."""
    times = {float(time): words.encode(time, add_special_tokens=False)[0] for time in TIMES}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stages.SEED)
        widen(text)
        embed_words(text.get_parameter("embed_tokens.weight"), times)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m samples.yard.train", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for states and curves; resumed if it has some")
    parser.add_argument("--out", type=Path, required=True, help="folder that the checkpoint is written to")
    parser.add_argument("--begin", type=Path, help="a checkpoint whose vision part stands for the first two stages")
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
        train(given.work, given.out, Recipe().times(given.factor), given.device, given.begin)
    except (ConfigError, EngineMismatch) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
