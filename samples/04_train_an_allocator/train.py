"""Train a small allocator on the yard for a short while and show the curve. See README.md beside this file."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from allocator_engine.errors import EngineError, EngineMissing
from allocator_engine.model.checkpoint import Checkpoint, save
from allocator_engine.model.network import Shape, StreamNetwork
from allocator_engine.model.query import QueryEncoder
from allocator_engine.train.capo import train
from allocator_engine.train.curves import draw
from allocator_engine.train.learner import StreamLearner
from allocator_engine.train.progress import Record
from allocator_engine.train.recipes import yard
from pipeline.lab.yard import yard as yard_material

SMALL = Shape(stem=(12, 24, 32), width=48, heads=4, mixers=1, readers=1, head_width=64)
BAR = 40


class Curve:
    """Prints a line for every tenth of the steps."""

    def __init__(self, steps: int) -> None:
        self._every = max(1, steps // 10)

    def __call__(self, records: Sequence[Record]) -> None:
        if len(records) % self._every:
            return
        newest = records[-self._every :]
        if newest[-1]["phase"] == "grounding":
            print(f"step {len(records):4}  grounding: loss {mean(newest, 'loss'):.3f}")
            return
        reward, cost = mean(newest, "reward"), mean(newest, "cost")
        print(f"step {len(records):4}  reward {reward:.3f} {'#' * round(reward * BAR):{BAR}} cost {cost:.3f} of native")


def mean(records: Sequence[Record], name: str) -> float:
    known = [float(record[name]) for record in records if name in record]
    return sum(known) / max(1, len(known))


def learn(steps: int, work: Path) -> None:
    config = replace(
        yard().config, steps=steps, grounding=(max(1, steps // 3),), prompts_per_step=2, prompts_per_update=2, group=4
    )
    torch.manual_seed(config.seed)
    learner = StreamLearner(StreamNetwork(SMALL), QueryEncoder(buckets=2048, width=48))
    with yard_material(config.prompts_per_step, threads=2, device="cpu") as material:
        records = train(config, learner, material.outside, work, on_step=Curve(steps))
    notes = {**material.notes, "recipe": "sample", "steps": str(steps)}
    save(Checkpoint(learner.network, learner.encoder, notes), work / "allocator.safetensors")
    try:
        draw(records, work / "curves.png")
    except EngineMissing as error:
        print(error)
    weights = sum(weight.numel() for weight in learner.parameters())
    print(f"{work}: allocator.safetensors, {weights} weights, after {len(records)} steps; capo.jsonl; curves.png")


if __name__ == "__main__":  # the clips are rendered in a process that imports this file
    torch.set_num_threads(1)
    given = sys.argv[1:]
    folder = Path(given[1]) if len(given) > 1 else Path(tempfile.mkdtemp(prefix="resadapt-train-"))
    try:
        learn(int(given[0]) if given else 60, folder)
    except EngineError as error:  # such as a folder that holds the state of other steps
        sys.exit(str(error))
