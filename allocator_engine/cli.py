"""Make, prove and measure allocator engines."""

import statistics
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from allocator_engine.errors import EngineError, EngineMissing
from pipeline.clock import SystemClock
from pipeline.errors import ConfigError, ResadaptError

EXIT_REFUSED = 2
"""Exit code when what was asked for is wrong: a missing file, an unknown name, a package that is not installed."""
EXIT_FAILED = 3
"""Exit code when it is right but does not work: an engine that does not fit, answers that differ."""

BATCHES = (1, 4, 16)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

EngineFile = Annotated[Path, typer.Argument(help="engine.json, or its folder.")]


@app.callback()
def about() -> None:
    """Make, prove and measure allocator engines."""


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="The trained weights (.safetensors).")],
) -> None:
    """Write a checkpoint's network as ONNX, and the engine's manifest, beside it."""
    from allocator_engine.export import export as export_engine

    manifest = export_engine(checkpoint)
    _say(
        f"{checkpoint.parent / 'engine.json'}: within {manifest.parity['onnxruntime'].largest:.2g} of the network"
        f" on {manifest.parity['onnxruntime'].hops} golden hops"
    )


@app.command(name="compile")
def compile_(
    engine: EngineFile,
    precision: Annotated[str, typer.Option(help="fp16 or fp32.")] = "fp16",
    portable: Annotated[bool, typer.Option("--portable", help="For GPUs elsewhere; needs tensorrt_rtx.")] = False,
) -> None:
    """Add a TensorRT plan for this machine's GPU to an engine."""
    from allocator_engine.compile import compile_plan

    if precision not in ("fp16", "fp32"):
        raise ConfigError(f"--precision is {precision!r}; expected fp16 or fp32")
    manifest = compile_plan(engine, "fp16" if precision == "fp16" else "fp32", portable)
    plan, proof = manifest.plan, manifest.parity.get("tensorrt")
    assert plan is not None
    proved = f"within {proof.largest:.2g} of the network" if proof else "not run yet: check it on a machine with a GPU"
    _say(f"{plan.artifact.file} by {plan.library} {plan.version} for {plan.gpu or 'any GPU it accepts'}; {proved}")


@app.command()
def check(engine: EngineFile) -> None:
    """Is the engine whole, does it fit this machine, and does it answer as its network does? One line each."""
    from allocator_engine.check import examine

    findings = examine(engine)
    for finding in findings:
        mark = "[green]ok  [/]" if finding.healthy else "[red]FAIL[/]"
        Console().print(f"{mark} {escape(finding.what):<20} {escape(finding.detail)}", highlight=False, soft_wrap=True)
    if not all(finding.healthy for finding in findings):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def bench(
    engine: EngineFile,
    rounds: Annotated[int, typer.Option(help="Measured calls for each line.")] = 50,
) -> None:
    """Measure an engine on this machine: hops of 2 frames with 6 queries, by backend and batch."""
    from allocator_engine.check import crowd, latency
    from allocator_engine.runtime import load

    clock, table = SystemClock(), Table("backend", "batch", "ms per call", "ms per frame")
    for backend in ("torch", "onnxruntime", "tensorrt"):
        try:
            loaded = load(engine, backend)
        except EngineMissing:
            raise
        except EngineError as error:
            _say(f"without {backend}: {error}")
            continue
        for batch in BATCHES:
            call_ms = statistics.median(latency(loaded, crowd(batch), rounds, clock.monotonic_s)) * 1000
            table.add_row(backend, str(batch), f"{call_ms:.3g}", f"{call_ms / batch / 2:.3g}")
    Console().print(table)


def _say(text: str) -> None:
    Console().print(escape(text), highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the command. What a person has to know is one line on stderr and an exit code."""
    try:
        app()
    except (EngineError, ResadaptError) as error:
        Console(stderr=True).print(f"[red]resadapt-allocator:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(EXIT_REFUSED if isinstance(error, ValueError) else EXIT_FAILED)
