"""Make, prove and measure allocator engines."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from allocator_engine.errors import not_installed
from pipeline.clock import SystemClock
from pipeline.errors import ConfigError, ResadaptError
from pipeline.lab.cli.adapt import adapt
from pipeline.lab.cli.evaluate import evaluate
from pipeline.lab.cli.train import train
from pipeline.redact import scrub

EXIT_REFUSED = 2
"""Exit code when what was asked for is wrong: a missing file, an unknown name, a package that is not installed."""
EXIT_FAILED = 3
"""Exit code when it is right but does not work: an engine that does not fit, answers that differ."""

EMBEDDED = ("cv2", "torch", "transformers", "safetensors", "tokenizers")
"""Packages of the extra `embedded`, which training and making engines need."""

BATCHES = (1, 4, 16, 64)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

app.command()(adapt)
app.command()(evaluate)
app.command()(train)

EngineFile = Annotated[Path, typer.Argument(help="engine.json, or its folder.")]


@app.callback()
def about() -> None:
    """Make, prove and measure allocator engines."""


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="The trained weights (.safetensors).")],
    only_encoder: Annotated[
        bool, typer.Option("--only-encoder", help="Add the query encoder to the engine beside it; other files stay.")
    ] = False,
) -> None:
    """Write a checkpoint's network and query encoder as ONNX, and the engine's manifest, beside it."""
    from allocator_engine.export import add_encoder
    from allocator_engine.export import export as export_engine

    folder = checkpoint.parent
    manifest = add_encoder(folder) if only_encoder else export_engine(checkpoint)
    proofs = {"onnxruntime": "golden hops", "encoder": "golden questions"}
    proved = [
        f"{name} within {manifest.parity[name].largest:.2g} of the network on {manifest.parity[name].hops} {inputs}"
        for name, inputs in proofs.items()
        if name in manifest.parity
    ]
    _say(f"{folder / 'engine.json'}: {', '.join(proved)}")


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
    device: Annotated[str, typer.Option(help="cpu, one core of it, or cuda.")] = "cpu",
    batches: Annotated[str, typer.Option(help="Hops per call.")] = ",".join(map(str, BATCHES)),
    rounds: Annotated[int, typer.Option(min=2, help="Measured calls of each backend and batch.")] = 50,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Measure torch.compile too.")] = True,
) -> None:
    """Measure an engine on this machine: a table, and the same as one line of JSON, last."""
    from allocator_engine.bench import measure

    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device is {device!r}; expected cpu or cuda")
    if not re.fullmatch(r"[1-9][0-9]*(,[1-9][0-9]*)*", batches):
        raise ConfigError(f"--batches is {batches!r}; expected numbers such as 1,16")
    clock = SystemClock()
    now_s = clock.cpu_s if device == "cpu" else clock.monotonic_s
    report = measure(engine, device, [int(batch) for batch in batches.split(",")], rounds, now_s, compiled)
    table = Table("backend", "hops per call", "ms per frame", "p95", "times eager")
    for row in report.rows:
        table.add_row(row.backend, str(row.batch), f"{row.median_ms:.3g}", f"{row.p95_ms:.3g}", f"{row.ratio:.2f}")
    Console().print(table)
    for line in report.remarks:
        _say(line)
    print(json.dumps(report.as_json()))  # noqa: T201 - the command's output


def _say(text: str) -> None:
    Console().print(escape(text), highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the command. What a person has to know is one line on stderr and an exit code."""
    try:
        app()
    except (ResadaptError, OSError) as error:  # OSError: a folder that cannot be written, a full disk
        said = escape(scrub(str(error)))
        Console(stderr=True).print(f"[red]resadapt-allocator:[/] {said}", highlight=False, soft_wrap=True)
        sys.exit(EXIT_REFUSED if isinstance(error, ConfigError) else EXIT_FAILED)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in EMBEDDED:
            raise
        Console(stderr=True).print(
            f"[red]resadapt-allocator:[/] {escape(not_installed(str(error.name), 'embedded'))}", soft_wrap=True
        )
        sys.exit(EXIT_REFUSED)
