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
