"""A short training that makes an engine of a site's clips: from a general start, checked, whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from allocator_engine.errors import EngineFailed
from allocator_engine.manifest import SHIPPED, mark_of
from pipeline.errors import ConfigError
from pipeline.lab.footage import Clip, SiteClips
from pipeline.lab.remembered import RememberedReader
from pipeline.lab.training import OpenMLLM

if TYPE_CHECKING:
    from allocator_engine.check import Finding
    from allocator_engine.train.progress import Record

CHECKPOINT = "allocator.safetensors"

GENERAL = SHIPPED / CHECKPOINT
"""The weights that a site's training begins with."""


@dataclass(frozen=True, slots=True)
class ShortTraining:
    """The size of a training: steps of grounding and of CAPO, prompts of a step, and allocations of a prompt.
    `general`: it begins from the shipped engine. `listens` off: it learns to allocate without queries."""

    grounding: int = 60
    steps: int = 80
    prompts: int = 3
    group: int = 6
    seed: int = 1
    general: bool = True
    listens: bool = True

    def __post_init__(self) -> None:
        if self.grounding < 1 or self.steps < 1:
            raise ConfigError(f"a training of {self.grounding} and {self.steps} steps; expected at least one of each")


@dataclass(frozen=True, slots=True)
class MadeEngine:
    """An engine's folder, the findings of its check, and remarks on its training."""

    folder: Path
    findings: "tuple[Finding, ...]"
    remarks: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """True if every finding of the check is healthy."""
        return all(finding.healthy for finding in self.findings)


def make_engine(
    clips: Sequence[Clip],
    asked: OpenMLLM,
    training: ShortTraining,
    work: Path,
    out: Path,
    on_step: "Callable[[Sequence[Record], int], None]" = lambda records, steps: None,
) -> MadeEngine:
    """Train on the clips, which name their questions, and write the engine into `out`: whole, or not at all.

    State is kept in `work`, from which the same call goes on. Raises ConnectionError where the MLLM does not answer,
    EngineMissing where a package is not installed.
    """
    from allocator_engine.check import examine
    from allocator_engine.export import export
    from allocator_engine.model.checkpoint import Checkpoint, save
    from allocator_engine.train.capo import train
    from allocator_engine.train.recipes import RECIPES, without_text
    from allocator_engine.train.start import begin

    recipe = RECIPES["site"]() if training.listens else without_text(RECIPES["site"]())
    config = replace(
        recipe.config,
        grounding=(training.grounding,),
        steps=training.grounding + training.steps,
        prompts_per_step=training.prompts,
        prompts_per_update=min(training.prompts, recipe.config.prompts_per_update),
        group=training.group,
        seed=training.seed,
        grounding_rate=recipe.config.grounding_rate / (3 if training.general else 1),
    )
    learner, remark = begin(recipe.shape, training.seed, GENERAL if training.general else None)
    reader = RememberedReader(asked.reader)
    material = asked.material(SiteClips(clips, (), reader, asked.answerer, training.prompts), _named(clips))
    records = train(config, learner, material.outside, work, on_step=lambda one: on_step(one, config.steps))
    notes = {"recipe": "adapt", "steps": str(len(records)), "seed": str(training.seed), "start": _start(training)}
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save(Checkpoint(learner.network.eval(), learner.encoder, notes | dict(material.notes)), partial / CHECKPOINT)
        export(partial / CHECKPOINT)
        findings = tuple(examine(partial))
        replace_folder(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return MadeEngine(out, findings, (remark, *material.remarks))


def replace_folder(made: Path, out: Path) -> None:
    """Put a folder that is complete in the place of an engine. Raises EngineFailed where `out` holds something else."""
    if out.exists():
        if not out.is_dir() or (any(out.iterdir()) and not (out / "engine.json").exists()):
            raise EngineFailed(f"{out} holds something else than an engine; name another --out")
        kept = out.with_name(f".{out.name}.before")
        shutil.rmtree(kept, ignore_errors=True)
        os.replace(out, kept)
        os.replace(made, out)
        shutil.rmtree(kept, ignore_errors=True)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    os.replace(made, out)


def _start(training: ShortTraining) -> str:
    return mark_of(SHIPPED) if training.general and (SHIPPED / "engine.json").exists() else "nothing"


def _named(clips: Sequence[Clip]) -> Mapping[str, str]:
    """Notes on the clips: a hash of their files' names, times and questions."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(f"{clip.file.name} {clip.start_s:g} {clip.end_s:g} {clip.questions}\0".encode())
    return {"clips": digest.hexdigest()[:12]}
