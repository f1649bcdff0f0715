"""Rebuild the yard's MLLM from nothing: `python -m samples.yard.train --work DIR --out DIR`.

Stopped at any moment, the same command goes on where it was. Takes about seven hours on two cores. Several processes
train together on larger batches: `torchrun --nproc-per-node 2 -m samples.yard.train ...`.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from allocator_engine.digests import of_weights
from pipeline.errors import ConfigError, EngineMismatch
from samples.yard.episodes.vision import embed_patches_by_product
from samples.yard.shape import VISION_LAYERS
from samples.yard.train import stages, together
from samples.yard.train.calibration import calibrate
from samples.yard.train.checkpoint import TIMES, save, tokenizer, untrained, vision_weights
from samples.yard.train.overview import TaughtOverview, grown
from samples.yard.train.packing import Packer
from samples.yard.train.run import B, TrainingStage, run
from samples.yard.train.start import embed_words, hold, widen
from samples.yard.train.text import TaughtText
from samples.yard.train.vision import TaughtVision
from samples.yard.versions import version

_PLANNED = 1.25  # steps that the rate of the stage `present` is planned for, per step that is taken

log = logging.getLogger("samples.yard.train")


@dataclass(frozen=True, slots=True)
class StageSteps:
    """Steps of each stage, and episodes that the text part learns from."""

    sheets: int = 800
    scenes: int = 7500
    moments: int = 3400
    rare: int = 1800
    crowds: int = 5000
    overview: int = 1400
    episodes: int = 1100
    present: int = 1000
    text: int = 3000

    def times(self, factor: float) -> "StageSteps":
        """The same recipe, shorter or longer."""
        return StageSteps(**{name: max(2, round(number * factor)) for name, number in asdict(self).items()})


def train(work: Path, out: Path, recipe: StageSteps, device: str = "cpu", begin: Path | None = None) -> None:
    """All stages, one after the other; those that are done are only loaded. Writes the checkpoint to `out`.

    `begin` is a checkpoint whose vision part takes the place of the stages that teach as many layers as it has.
    """
    words = tokenizer()
    model = TaughtText(untrained(words, stages.SEED), stages.SEED)
    begin_text(model.mllm.model.language_model, words)
    episodes = stages.training_episodes(recipe.episodes)
    visual = model.mllm.model.visual
    visual.load_state_dict(_vision(work, recipe, episodes, device, begin))
    embed_patches_by_product(visual)
    torch.nn.Module.to(model, device)
    seen = of_weights(visual)
    log.info("stage look: %d episodes", len(episodes))
    folder = work / f"episodes-{seen}-{version('world', 'truth')}"
    files = stages.look(visual, episodes, folder)
    apart = stages.look(visual, stages.calibration_episodes(), folder)
    # The next stage goes on before the learning rate has fallen.
    planned = round(recipe.present * _PLANNED)
    _run(stages.present(model, Packer(words), files, planned, seen), work, stop_at=recipe.present)
    _run(stages.text(model, Packer(words), files, recipe.text, seen), work)
    temperature = calibrate(model.mllm, Packer(words), apart)
    log.info("temperature %.3f", temperature)
    torch.nn.Module.to(model, "cpu")
    if together.place()[0] == 0:
        save(model.mllm, words, out)


def _vision(
    work: Path, recipe: StageSteps, episodes: Sequence[tuple[int, int]], device: str, begin: Path | None
) -> dict[str, torch.Tensor]:
    """The weights of the vision part, trained."""
    vision = TaughtVision(stages.SEED).to(device)
    if begin is not None:
        given = vision_weights(begin)
        whole = any(name.startswith(f"blocks.{VISION_LAYERS - 1}.") for name in given)
        try:
            (grown(vision.visual) if whole else vision.visual).load_state_dict(given)
        except RuntimeError as error:
            raise ConfigError(f"the vision part of {begin} is not that of a yard's MLLM: {error}") from error
        if whole:
            return given
    else:
        _run(stages.sheets(vision, recipe.sheets), work)
        _run(stages.scenes(vision, recipe.scenes), work)
        vision.forget_heads()
        _run(stages.moments(vision, recipe.moments), work)
        _run(stages.rare(vision, recipe.rare), work)
        _run(stages.crowds(vision, recipe.crowds), work)
    overview = TaughtOverview(vision, stages.SEED).to(device)
    _run(stages.overview(overview, recipe.overview, [seed for seed, _ in episodes]), work)
    return overview.visual.state_dict()


def _run(stage: TrainingStage[B], work: Path, stop_at: int | None = None) -> None:
    log.info("stage %s: %d steps", stage.name, stop_at or stage.steps)
    run(stage, work, stop_at=stop_at)


def begin_text(text: torch.nn.Module, words: PreTrainedTokenizerBase) -> None:
    """Draw the weights that the text part begins with."""
    times = {float(time): words.encode(time, add_special_tokens=False)[0] for time in TIMES}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stages.SEED)
        widen(text)
        embed_words(text.get_parameter("embed_tokens.weight"), times)
    hold(text.get_parameter("embed_tokens.weight"), list(times.values()))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m samples.yard.train", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for states and curves; resumed if it has some")
    parser.add_argument("--out", type=Path, required=True, help="folder that the checkpoint is written to")
    parser.add_argument("--begin", type=Path, help="a checkpoint whose vision part is kept")
    parser.add_argument("--factor", type=float, default=1.0, help="multiplies the steps of every stage")
    parser.add_argument("--device", default="cpu", help="a torch device")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads of the model; data has a process of its own"
    )
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.threads)
    together.join()
    try:
        if not given.factor > 0:
            raise ConfigError(f"--factor is {given.factor}; expected more than 0")
        train(given.work, given.out, StageSteps().times(given.factor), given.device, given.begin)
    except (ConfigError, EngineMismatch) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
