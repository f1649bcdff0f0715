"""Evaluates the yard's MLLM on episodes that nobody trained on: `python -m samples.yard.card.evaluate --seeds A:B`.

Prints a table and, as the last line, JSON: by setting and family the value, lo, hi, n and majority. Figures are means
of all answers with a 95 % bootstrap interval over episodes. With `--cache`, a stopped run goes on where it was.
"""

import argparse
import asyncio
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from allocator_engine.evaluate.tasks import parse_seeds
from pipeline.build import YARD
from pipeline.config.mllm import YardConfig
from pipeline.errors import ConfigError, EngineMismatch
from pipeline.mllm.card import read_card
from pipeline.mllm.transformers.backend import TransformersMLLM
from samples.yard.card.replay import SETTINGS, Record, Setting, replay
from samples.yard.card.score import ScoredShare, calibration_error, families, reliability
from samples.yard.versions import Subject, of_file, version

_RECORD = TypeAdapter(Record)
_PARTS: tuple[Subject, ...] = ("world", "grammar", "truth", "evaluation")


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one setting: by family, the calibration of its watch scores (see `score`), realised share of
    native tokens, and seconds of the MLLM per episode."""

    setting: str
    families: dict[str, ScoredShare]
    calibration_error: float
    reliability: list[tuple[float, float, int]]
    tokens: float
    mllm_s: float


def hashes(checkpoint: Path) -> dict[str, str]:
    """The versions and weights that the figures were measured on."""
    return {part: version(part) for part in _PARTS} | {"weights": of_file(checkpoint / "model.safetensors")}


async def records(seeds: Iterable[int], setting: Setting, checkpoint: Path, cache: Path | None) -> list[Record]:
    """The record of each episode, from the cache where it holds one of the same hashes and setting."""
    file = kept_file(cache, setting, checkpoint) if cache else None
    known = _read(file) if file else {}
    mllm = TransformersMLLM(checkpoint, YardConfig(threads=torch.get_num_threads(), max_cache_tokens=1_000_000))
    await mllm.start()
    found = []
    try:
        for seed in seeds:
            if seed not in known:
                known[seed] = await replay(seed, setting, mllm)
                _append(file, known[seed])
            found.append(known[seed])
    finally:
        await mllm.close()
    return found


def kept_file(cache: Path, setting: Setting, checkpoint: Path) -> Path:
    """The file that keeps the records of a setting."""
    return cache / f"{setting.name}-{'-'.join(hashes(checkpoint).values())}.jsonl"


def _read(file: Path) -> dict[int, Record]:
    if not file.exists():
        return {}
    # A line that was cut off by a stop has no end: its episode is replayed.
    lines = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    file.write_text("".join(lines), encoding="utf-8")
    return {record.seed: record for record in map(_RECORD.validate_json, lines)}


def _append(file: Path | None, record: Record) -> None:
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(_RECORD.dump_json(record).decode() + "\n")


def measure(setting: str, found: Sequence[Record]) -> Measured:
    """The figures of one setting."""
    opinions = [opinion for record in found for opinion in record.opinions]
    scores, truths = [opinion.score for opinion in opinions], [opinion.truth for opinion in opinions]
    return Measured(
        setting,
        families(found),
        calibration_error(scores, truths),
        reliability(scores, truths),
        sum(record.tokens for record in found) / sum(record.native_tokens for record in found),
        sum(record.mllm_s for record in found) / len(found),
    )


def table(measured: Sequence[Measured]) -> Table:
    """Families down, settings across."""
    drawn = Table(title="The yard's MLLM", title_justify="left")
    drawn.add_column("family")
    for one in measured:
        drawn.add_column(f"{one.setting}\n{one.tokens:.1%} of native tokens", justify="right")
    drawn.add_column("majority", justify="right")
    for name in measured[0].families:
        cells = [one.families[name].text() for one in measured]
        drawn.add_row(name, *cells, f"{100 * measured[0].families[name].majority:.1f}")
    drawn.add_row("calibration error of watches", *(f"{one.calibration_error:.3f}" for one in measured), "")
    drawn.add_row("MLLM seconds per episode", *(f"{one.mllm_s:.2f}" for one in measured), "")
    return drawn


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m samples.yard.card.evaluate", description=__doc__)
    parser.add_argument("--seeds", default="800000:800200", help="A:B, from A up to B without B")
    parser.add_argument("--settings", default="native,quarter", help=f"some of {', '.join(SETTINGS)}")
    parser.add_argument("--scale", type=float, help="one linear scale for every frame, instead of --settings")
    parser.add_argument("--mllm", type=Path, default=YARD, help="folder of the checkpoint")
    parser.add_argument("--cache", type=Path, help="folder that keeps the records of episodes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="only the last line")
    given = parser.parse_args()
    try:
        seeds = parse_seeds(given.seeds)
        settings = [_setting(name) for name in given.settings.split(",")]
        measured = _measured(seeds, settings, given)
    except (ConfigError, EngineMismatch) as error:
        parser.error(str(error))
    if not given.json:
        Console(width=140).print(table(measured))
    summary = {one.setting: asdict(one) for one in measured}
    print(json.dumps({"seeds": given.seeds, "hashes": hashes(given.mllm), "settings": summary}, allow_nan=False))


def _setting(name: str) -> Setting:
    """One of SETTINGS, or `scale S`."""
    kind, _, scale = name.partition(" ")
    if kind == "scale" and scale.replace(".", "", 1).isdecimal() and 0 < float(scale) <= 1:
        return Setting(name, scale=float(scale))
    if name not in SETTINGS:
        raise ConfigError(f"there is no setting {name!r}; expected some of {', '.join(SETTINGS)}, or --scale 0 to 1")
    return SETTINGS[name]


def _measured(seeds: range, settings: Sequence[Setting], given: argparse.Namespace) -> list[Measured]:
    logging.getLogger().setLevel(logging.WARNING)
    torch.set_num_threads(given.threads)
    if given.scale is not None:
        settings = [_setting(f"scale {given.scale:g}")]
    # The card's errors come before the hashes', which need the weights.
    read_card(str(given.mllm))
    if not (given.mllm / "model.safetensors").exists():
        raise ConfigError(f"{given.mllm} holds no model.safetensors; expected the folder of a trained checkpoint")
    return [
        measure(setting.name, asyncio.run(records(seeds, setting, given.mllm, given.cache))) for setting in settings
    ]


if __name__ == "__main__":
    main()
