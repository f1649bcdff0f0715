"""`resadapt models`: supported checkpoints, the memory they need, the frames that fit, and how they were tested."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.errors import ConfigError
from pipeline.mllm.checkpoints import CHECKPOINTS, MemoryPlan, facts_of, plan_memory

EXAMPLE = "Example: resadapt models --memory 24 --size 1920x1080"

LARGEST_SIDE = 16_384


def models(
    checkpoint: Annotated[
        list[str] | None, typer.Argument(help="Folders of checkpoints, in the place of the published ones.")
    ] = None,
    memory: Annotated[float, typer.Option(help="GiB of the GPU, or of the machine where none is.")] = 24.0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the cameras' pictures in px.")] = "1920x1080",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON lines.")] = False,
) -> None:
    """Checkpoints by memory: GiB that each needs, vision tokens of a frame, frames that fit beside it.

    Computed from published shapes in bfloat16, not measured; `resadapt bench mllm` measures on your machine.
    """
    if not memory > 0:
        raise ConfigError(f"--memory is {memory:g}; expected GiB above 0")
    width, height = _size(size)
    known = [facts_of(one) for one in checkpoint] if checkpoint else CHECKPOINTS
    plans = [plan_memory(one, memory, (height, width)) for one in known]
    if as_json:
        for plan in plans:
            typer.echo(json.dumps(_as_json(plan)))
        return
    table = Table(title=f"With {memory:g} GiB and pictures of {width} x {height} px", title_justify="left", box=None)
    for name in ("checkpoint", "needs GiB", "tokens a frame", "native frames", "at a tenth", "tested"):
        table.add_column(name, justify="left" if name in ("checkpoint", "tested") else "right", overflow="fold")
    for plan in plans:
        fits = plan.native_frames > 0
        frames = (f"{plan.native_frames}", f"{plan.tenth_frames}") if fits else ("does not fit", "-")
        about = plan.checkpoint
        table.add_row(escape(about.name), f"{plan.needs_gib:.1f}", f"{plan.frame_tokens}", *frames, about.tested)
    Console().print(table)


def _size(text: str) -> tuple[int, int]:
    """Width and height in px. Raises ConfigError."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) <= LARGEST_SIDE for part in parts):
        raise ConfigError(f"--size is {text!r}; expected WIDTHxHEIGHT in px, such as 1920x1080")
    return int(parts[0]), int(parts[1])


def _as_json(plan: MemoryPlan) -> dict[str, str | float | int]:
    about = plan.checkpoint
    return {
        "name": about.name,
        "family": about.family,
        "needs_gib": round(plan.needs_gib, 1),
        "frame_tokens": plan.frame_tokens,
        "native_frames": plan.native_frames,
        "tenth_frames": plan.tenth_frames,
        "tested": about.tested,
    }
