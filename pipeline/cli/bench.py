"""`resadapt bench`: parts of the pipeline, measured on this machine."""

import asyncio
import json
import re
from typing import Annotated

import typer
from rich.console import Console

from pipeline.build import build_mllm
from pipeline.cli.options import LogLevel, SiteFileIfAny
from pipeline.cli.output import Output, print_line, set_up
from pipeline.clock import SystemClock
from pipeline.config.mllm import patient
from pipeline.config.site import load_site, parse_site
from pipeline.errors import ConfigError

EXAMPLE = "Example: resadapt bench mllm --mllm yard --watches 1,16"

MACHINE_EXAMPLE = (
    "Example: resadapt bench machine --json > machine.json; resadapt plan -c site.yaml --measured machine.json"
)

app = typer.Typer(no_args_is_help=True, help="Measure a part of the pipeline on this machine.")


@app.command("mllm", epilog=EXAMPLE)
def bench_mllm(
    mllm: Annotated[str | None, typer.Option(help="Who answers, yard or else the site file's; see run.")] = None,
    streams: Annotated[int, typer.Option(help="Streams that ask at once.")] = 1,
    watches: Annotated[str, typer.Option(help="Numbers of watches, such as 1,16.")] = "1,16",
    hops: Annotated[int, typer.Option(help="Hops measured once the context has filled.")] = 4,
    sliding: Annotated[int, typer.Option(help="Seconds of stream against a sliding window.")] = 180,
    config: SiteFileIfAny = None,
    json_line: Annotated[bool, typer.Option("--json", help="One JSON line on stdout, last.")] = False,
    log_level: LogLevel = "error",
) -> None:
    """Tokens and time of asking: shared and growing prefixes against one full prompt per watch and hop."""
    set_up(log_level)
    from pipeline.cli.bench_mllm import PATIENCE_S, measure
    from pipeline.cli.bench_report import SHARES, BenchPlan, table

    if not re.fullmatch(r"[0-9]+(,[0-9]+)*", watches):
        raise ConfigError(f"--watches is {watches!r}; expected numbers such as 1,16")
    plan = BenchPlan(streams, tuple(map(int, watches.split(","))), hops, sliding)
    site = load_site(config) if config else parse_site({})
    asked = parse_site({"mllm": mllm}).mllm if mllm else site.mllm
    clock = SystemClock()
    report = asyncio.run(measure(build_mllm(patient(asked, PATIENCE_S), clock), clock, plan))
    Console(stderr=json_line, width=110).print(table(report))
    ratios = {**report.ratios(SHARES[0]), "sliding_saved": report.saving.saved}
    if json_line:
        print_line(json.dumps(report.as_json()))
    else:
        Output().print(", ".join(f"{name} {value:.3f}" for name, value in ratios.items()), highlight=False)


@app.command("machine", epilog=MACHINE_EXAMPLE)
def bench_machine(
    size: Annotated[str, typer.Option(help="Pictures of the clip that is decoded, in px.")] = "1280x720",
    seconds: Annotated[int, typer.Option(help="Seconds of that clip.")] = 10,
    config: SiteFileIfAny = None,
    json_line: Annotated[bool, typer.Option("--json", help="One JSON line on stdout, last.")] = False,
) -> None:
    """Seconds of a core for a stream beside the MLLM: decoding, allocating, committing. For `resadapt plan`."""
    set_up("error")
    from pipeline.cli.bench_machine import FPS, measure_machine

    found = re.fullmatch(r"([1-9]\d{1,3})x([1-9]\d{1,3})", size)
    if not found or int(found[1]) % 2 or int(found[2]) % 2:
        raise ConfigError(f"--size is {size!r}; expected WIDTHxHEIGHT in px, both even, such as 1280x720")
    if not 2 <= seconds <= 600:
        raise ConfigError(f"--seconds is {seconds}; expected 2 to 600")
    site = load_site(config) if config else parse_site({})
    width, height = int(found[1]), int(found[2])
    report = asyncio.run(measure_machine(site, SystemClock(), width, height, seconds))
    if json_line:
        print_line(json.dumps(report.as_json()))
        return
    streams = report.core_pixels_per_s / (width * height * FPS)
    Output().print(
        f"a core decodes {report.core_pixels_per_s / 1e6:.0f} Mpx/s, {streams:.1f} streams of {size} at {FPS} fps; the"
        f" allocator {report.allocator} takes {report.allocate_s * 1000:.2f} ms a frame, a hop's commit"
        f" {report.commit_s * 1000:.2f} ms",
        highlight=False,
        soft_wrap=True,
    )
