"""`resadapt plan`: how well a site and a machine fit."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import EXIT_FAILED, SiteFile
from pipeline.cli.output import Output, ScreenColumn, fitted, print_line, set_up
from pipeline.config.site import load_site
from pipeline.core.sizing import TIGHT, Need
from pipeline.errors import ConfigError
from pipeline.service.plan import ACCELERATORS, CameraShape, fits, machine_of, measured, plan, verdict

EXAMPLE = "Example: resadapt plan -c site.yaml --gpu h100 --size 1920x1080 --fps 25"

_COLUMNS = (
    ScreenColumn("part", text=True),
    ScreenColumn("needs", 5),
    ScreenColumn("there is", 4),
    ScreenColumn("used", 6),
    ScreenColumn("by", 1, text=True),
)


def plan_site(
    config: SiteFile,
    gpu: Annotated[str, typer.Option(help=f"Where the MLLM computes: {', '.join(ACCELERATORS)}.")] = "cpu",
    measured_by: Annotated[
        list[Path] | None,
        typer.Option("--measured", help="What `resadapt bench ... --json` printed there; may be repeated."),
    ] = None,
    size: Annotated[str, typer.Option(help="Pictures of a camera, in px.")] = "1920x1080",
    fps: Annotated[float, typer.Option(help="Pictures a second of a camera.")] = 25.0,
    cores: Annotated[int | None, typer.Option(help="Cores of the machine; else those of this one.")] = None,
    memory: Annotated[float | None, typer.Option(help="GiB of its memory; without --cores that of this one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Does a site fit a machine, what gives first, and what to change? By data sheets, or what was measured there. Exit
    code 3: it does not fit."""
    set_up("error")
    site = load_site(config)
    machine = machine_of(gpu, site, _at_least_one(cores), None if memory is None else int(memory * 2**30))
    needs = plan(site, measured(machine, measured_by or ()), _shape(size, fps))
    if as_json:
        parts = [{**asdict(need), "share": need.share} for need in needs]
        print_line(json.dumps({"fits": fits(needs), "verdict": verdict(needs), "parts": parts}))
    else:
        console = Output()
        console.print(fitted(_COLUMNS, [_row(need) for need in needs], console.width))
        console.print(f"On {gpu}, {machine.cores} cores: {verdict(needs)}.", markup=False, highlight=False)
        for need in needs:
            if need.share > TIGHT:
                console.print(f"{need.part}: {need.change}", markup=False, highlight=False)
        for need in needs:
            if need.has is None:
                console.print(f"{need.part} is not known here: {_HINTS[need.part]}", markup=False, highlight=False)
    if not fits(needs):
        raise typer.Exit(EXIT_FAILED)


_HINTS = {
    "MLLM": "resadapt bench mllm --mllm SPEC --json > mllm.json where it runs, then --measured mllm.json",
    "memory": "--memory GIB",
}
"""What there is of these is not in a data sheet of a GPU."""


def _row(need: Need) -> tuple[str, ...]:
    has = "?" if need.has is None else f"{need.has:.4g} {need.unit}"
    used = "?" if need.has is None else f"{need.share:.0%}"
    return need.part, f"{need.needs:.3g} {need.unit}", has, used, need.source


def _shape(size: str, fps: float) -> CameraShape:
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size)
    if not found:
        raise ConfigError(f"--size is {size!r}; expected WIDTHxHEIGHT in px, such as 1920x1080")
    if not 0 < fps <= 240:
        raise ConfigError(f"--fps is {fps:g}; expected more than 0 and at most 240")
    return CameraShape(int(found[1]), int(found[2]), fps)


def _at_least_one(cores: int | None) -> int | None:
    if cores is not None and not 1 <= cores <= 4096:
        raise ConfigError(f"--cores is {cores}; expected 1 to 4096")
    return cores
