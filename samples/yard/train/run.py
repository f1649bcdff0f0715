"""A stage of training that can be stopped at any moment and goes on as if it had not been.

Every batch is a function of the stage and the step alone, so a run that resumes sees what it would have seen. Where
several processes train together, each takes its turn of the batches, and a step learns from one of each.
"""

import json
import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import EngineMismatch
from samples.yard.train import together
from samples.yard.train.muon import Muon

B = TypeVar("B")

_WARM_UP = 100
_CLIP = 1.0
_DECAY = 0.02
_OUTER = {"pos_embed", "embed_tokens", "lm_head", "heads"}
_DECAY_FROM = 0.6  # part of the steps after which the learning rate falls
_LOWEST = 0.05  # of the peak, at the last step


@dataclass(frozen=True, slots=True)
class TrainingStage(Generic[B]):
    """`steps` of Muon and AdamW at `peak_lr`. `batch` makes the batch of a step in another process; `loss` gives the
    loss and figures for the log. `recipe` names what the outcome depends on; a state of another one is refused."""

    name: str
    recipe: str
    steps: int
    peak_lr: float
    module: torch.nn.Module
    batch: Callable[[int], B]
    loss: Callable[[B], tuple[torch.Tensor, Mapping[str, float]]]
    workers: int = 1


class _Batches(Dataset[B]):
    def __init__(self, batch: Callable[[int], B], first: int, last: int) -> None:
        self._batch, self._first, self._last = batch, first, last
        self._place, self._processes = together.place()

    def __len__(self) -> int:
        return self._last - self._first

    def __getitem__(self, index: int) -> B:
        return self._batch((self._first + index) * self._processes + self._place)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, a plateau, and a cosine down to a twentieth."""
    if step < _WARM_UP:
        return peak * (step + 1) / _WARM_UP
    done = max(0.0, step / steps - _DECAY_FROM) / (1 - _DECAY_FROM)
    return peak * (_LOWEST + (1 - _LOWEST) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def run(
    stage: TrainingStage[B], work: Path, *, save_every: int = 200, stop_at: int | None = None
) -> list[dict[str, float]]:
    """Train the stage's module to its last step (or `stop_at`) and return its curve, one entry per step.

    The state is saved to `work/NAME.state` every `save_every` steps and at the end, by the first of the processes that
    train together; the curve is of its own batches. Raises EngineMismatch for a state that is damaged or belongs to
    another recipe.
    """
    work.mkdir(parents=True, exist_ok=True)
    file = work / f"{stage.name}.state"
    optimizers = _optimizers(stage.module, stage.peak_lr)
    curve = _resume(file, stage, optimizers) if file.exists() else []
    last = min(stage.steps, stop_at or stage.steps)
    for step, batch in enumerate(_prefetched(stage, len(curve), last), start=len(curve)):
        rate = learning_rate(step, stage.steps, stage.peak_lr)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        loss, figures = stage.loss(batch)
        stage.module.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        together.average(stage.module)
        norm = torch.nn.utils.clip_grad_norm_(stage.module.parameters(), _CLIP)
        if torch.isfinite(norm):
            for optimizer in optimizers:
                optimizer.step()
        curve.append({"step": step, "loss": float(loss.detach()), **figures})
        if together.place()[0] == 0 and ((step + 1) % save_every == 0 or step + 1 == last):
            _save(file, stage, optimizers, curve)
            _log(work / f"{stage.name}.jsonl", curve, save_every)
    return curve


def _optimizers(module: torch.nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside, AdamW for embeddings, heads, norms and biases."""
    learned = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    inner = {name for name, weight in learned.items() if weight.ndim == 2 and not _OUTER & set(name.split("."))}
    matrices = [learned[name] for name in sorted(inner)]
    rest = [weight for name, weight in sorted(learned.items()) if name not in inner]
    groups = [
        {"params": [weight for weight in rest if weight.ndim > 1], "weight_decay": _DECAY},
        {"params": [weight for weight in rest if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))]
    return [Muon(matrices, rate, _DECAY), *found] if matrices else found


def _prefetched(stage: TrainingStage[B], first: int, last: int) -> Iterator[B]:
    batches = _Batches(stage.batch, first, last)
    if last <= first:
        return iter(())
    workers = stage.workers
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=alone,
            prefetch_factor=4 if workers else None,
        )
    )


def alone(_: int) -> None:
    """One thread for a process that makes data beside the training."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _recipe(stage: TrainingStage[B]) -> str:
    _, processes = together.place()
    return f"{stage.name}: {stage.recipe}" + (f", {processes} processes" if processes > 1 else "")


def _save(
    file: Path, stage: TrainingStage[B], optimizers: list[torch.optim.Optimizer], curve: list[dict[str, float]]
) -> None:
    state = {
        "recipe": _recipe(stage),
        "curve": curve,
        "module": stage.module.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    beside = file.with_suffix(".partial")
    torch.save(state, beside)
    beside.replace(file)


def _resume(file: Path, stage: TrainingStage[B], optimizers: list[torch.optim.Optimizer]) -> list[dict[str, float]]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise EngineMismatch(f"{file} is damaged ({error}); delete it to begin this stage again") from error
    ours = _recipe(stage)
    theirs = state.get("recipe") if isinstance(state, dict) else None
    if theirs != ours:
        raise EngineMismatch(f"{file} is of the recipe {theirs!r}; expected {ours!r}. Train into another folder")
    try:
        stage.module.load_state_dict(state["module"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        curve: list[dict[str, float]] = state["curve"]
    except (KeyError, RuntimeError, ValueError) as error:
        raise EngineMismatch(f"{file} does not fit this model ({error}); train into another folder") from error
    return curve


def _log(file: Path, curve: list[dict[str, float]], window: int) -> None:
    """Means over `window` steps, one line each."""
    lines = []
    for first in range(0, len(curve), window):
        part = curve[first : first + window]
        names = {name for entry in part for name in entry} - {"step"}
        means = {
            name: round(sum(values) / len(values), 4)
            for name in sorted(names)
            if (values := [entry[name] for entry in part if not math.isnan(entry.get(name, math.nan))])
        }
        lines.append(json.dumps({"step": part[-1]["step"], **means}))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
