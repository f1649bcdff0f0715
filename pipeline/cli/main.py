"""Watch camera streams with a frozen multimodal LLM under a token budget."""

import asyncio
import importlib.metadata
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from allocator_engine.errors import not_installed
from pipeline.build import build_mllm
from pipeline.cli import apply, event, init, key, sink, status, stream, watch
from pipeline.cli.ending import UNREAD_BY_OTHERS, Signals, Unread, end_unread, run_to_end, started
from pipeline.cli.play import play
from pipeline.cli.screen import Screen
from pipeline.clock import SystemClock
from pipeline.config.mllm import MLLM_CHOICES, patient
from pipeline.config.one_stream import given, named_sinks, site_of_one
from pipeline.config.site import SiteConfig, load_site, parse_site, read_yaml
from pipeline.config.values import resolve
from pipeline.errors import ConfigError, ResadaptError, SinkUnavailable
from pipeline.logs import set_up_logs
from pipeline.redact import redact_mllm, redact_url, scrub
from pipeline.service.doctor import examine
from pipeline.service.reconciler import Reconciler
from pipeline.service.service import Service
from pipeline.sinks.jsonl import TextSink
from pipeline.sources.probe import probe as probe_source
from pipeline.waiting import first, stop, supervise

EXIT_REFUSED = 2
"""Exit code when what was asked for is wrong: an unknown key, a missing file, an empty question."""
EXIT_FAILED = 3
"""Exit code when it is right but does not work: a camera that does not answer, a broker that is away."""

_NONE_NAMED = (
    "[yellow]No MLLM is named: yard answers, a small one that knows its own demo world only (see resadapt demo).[/]"
)

log = structlog.get_logger()
app = typer.Typer(
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=__doc__,
)

_REST = {"allow_extra_args": True}  # of the commands that take a stream, see _require_one
LogLevel = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]
SiteFileIfAny = Annotated[Path | None, typer.Option("--config", "-c", help="A site file (YAML).")]
SiteFile = Annotated[Path, typer.Option("--config", "-c", help="The site file (YAML).")]


@app.callback()
def about(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Watch camera streams with a frozen multimodal LLM under a token budget."""
    if version:
        print(importlib.metadata.version("resadapt-stream"))  # noqa: T201 - the command's output
        raise typer.Exit


@app.command(context_settings=_REST)
def run(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="rtsp(s)://, rtmp://, srt://, http(s)://, FILE, v4l2:DEVICE, synthetic:")
    ],
    watch: Annotated[list[str] | None, typer.Option(help="A standing yes/no question; may be repeated.")] = None,
    mllm: Annotated[
        str | None, typer.Option(help=f"{MLLM_CHOICES}. Without it: yard, which knows only its demo world.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="A site file with defaults.")] = None,
    sink: Annotated[list[str] | None, typer.Option(help="jsonl:PATH, kafka://HOST:PORT/TOPIC or http(s)://...")] = None,
    allocator: Annotated[
        str | None, typer.Option(help="learned (the default with an engine for the MLLM), motion (else) or fixed.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Of the allocator learned: its engine.json or folder.")] = None,
    rate: Annotated[float | None, typer.Option(help="Vision tokens per second of stream.")] = None,
    burst: Annotated[int | None, typer.Option(help="Vision tokens that may be saved up.")] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Play a file at the pace of a live camera.")] = False,
    stall_s: Annotated[
        float | None, typer.Option(help="Seconds without a packet after which a live stream is lost (5).")
    ] = None,
    first_picture_s: Annotated[
        float | None, typer.Option(help="Seconds in which its packets must show a first picture (30).")
    ] = None,
    store: Annotated[str | None, typer.Option(help="Keep state here, and go on where it ended.")] = None,
    name: Annotated[str | None, typer.Option(help="Slug of the stream; by default made from SOURCE.")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="Events as CloudEvents JSON lines on stdout.")] = False,
    log_level: LogLevel = "warning",
) -> None:
    """Watch one stream until it ends, or until Ctrl-C."""
    set_up_logs(log_level)
    _require_one(context)
    raw = read_yaml(config) if config else {}
    own = given(
        allocator=allocator,
        budget=given(rate_tokens_per_s=rate, burst_tokens=burst),
        stall_s=stall_s,
        first_picture_s=first_picture_s,
    )
    named = given(mllm=mllm, engine=engine, store=store, sinks=named_sinks(sink or []))
    site = parse_site(site_of_one(raw, source, name, watch or [], realtime, own) | named)
    scratch = None if "store" in raw or store else _make_scratch()
    if scratch:
        site = replace(site, store=f"sqlite:///{scratch}/run.db")
    if json_lines and not sink and "sinks" not in raw:
        site = replace(site, sinks={})
    console = Console(stderr=True)
    if not mllm and "mllm" not in raw:
        console.print(_NONE_NAMED, highlight=False)
    run_to_end(_run(site, console, json_lines, scratch))


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(help="How long the cameras play, 4 to 600.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Which yards: this seed's and its neighbour's.")] = 800001,
    json_lines: Annotated[bool, typer.Option("--json", help="Events as JSON lines on stdout, a summary last.")] = False,
    allocator: Annotated[
        str | None, typer.Option(help="learned (the default with an engine for the MLLM), fixed (else) or motion.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Of the allocator learned; see run.")] = None,
    budget: Annotated[float | None, typer.Option(help="Share of the native vision tokens, such as 0.1.")] = None,
    mllm: Annotated[str, typer.Option(help="Who answers; see run.")] = "yard",
    log_level: LogLevel = "warning",
) -> None:
    """Two generated cameras play live, six watches stand on them, and the events are compared with the truth."""
    set_up_logs(log_level)
    try:
        from pipeline.cli.demo import Demo, show  # the yard's renderer, which nothing else needs
    except ModuleNotFoundError as error:
        raise ConfigError(f"for the demo {not_installed(str(error.name), 'embedded')}") from error

    run_to_end(show(Demo(seconds, seed, allocator, budget, mllm, engine), json_lines))


app.add_typer(stream.app, name="stream")
app.add_typer(watch.app, name="watch")
app.add_typer(event.app, name="event")
app.add_typer(key.app, name="key")
app.add_typer(sink.app, name="sink")
app.command(epilog=apply.EXAMPLE)(apply.apply)
app.command(epilog=status.EXAMPLE)(status.status)
app.command(epilog=init.EXAMPLE)(init.init)

bench = typer.Typer(no_args_is_help=True, help="Measure a part of the pipeline on this machine.")
app.add_typer(bench, name="bench")


@bench.command("mllm")
def bench_mllm(
    mllm: Annotated[str | None, typer.Option(help="Who answers, yard or else the site file's; see run.")] = None,
    streams: Annotated[int, typer.Option(help="Streams that ask at once.")] = 1,
    watches: Annotated[str, typer.Option(help="Numbers of watches, such as 1,16.")] = "1,16",
    hops: Annotated[int, typer.Option(help="Hops measured once the context has filled.")] = 4,
    sliding: Annotated[int, typer.Option(help="Seconds of stream against a sliding window.")] = 180,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="A site file, for its `mllm`.")] = None,
    json_line: Annotated[bool, typer.Option("--json", help="One JSON line on stdout, last.")] = False,
    log_level: LogLevel = "error",
) -> None:
    """Tokens and time of asking: shared and growing prefixes against one full prompt per watch and hop."""
    set_up_logs(log_level)
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
        print(json.dumps(report.as_json()))  # noqa: T201 - the command's output
    else:
        Console().print(", ".join(f"{name} {value:.3f}" for name, value in ratios.items()), highlight=False)


@app.command()
def serve(config: SiteFileIfAny = None, log_level: LogLevel = "info") -> None:
    """Watch what the registry and a site file want, and offer the API, until SIGTERM drains. SIGHUP reads the file
    again."""
    set_up_logs(log_level)
    run_to_end(_serve(config))


@app.command(context_settings=_REST)
def probe(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="Any stream that `run` takes.")],
    seconds: Annotated[float, typer.Option(help="How long to look at it.")] = 4.0,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object on stdout.")] = False,
) -> None:
    """Open a stream and say what it is, what its clock is worth and what to do about it."""
    set_up_logs("error")
    _require_one(context)
    if url.startswith("synthetic:"):
        raise ConfigError(f"{url} is generated here, as its parameters say; there is nothing to probe")
    if not seconds > 0:
        raise ConfigError(f"--seconds is {seconds:g}; expected more than 0")
    found = asdict(probe_source(resolve(url), clock=SystemClock(), read_s=seconds))
    if as_json:
        print(json.dumps(found, default=str))  # noqa: T201 - the command's output
        return
    advice = found.pop("advice")
    table = Table(box=None, show_header=False)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), "-" if value is None else escape(str(value)))
    console = Console()
    console.print(f"[bold]{escape(redact_url(url))}[/]", table)
    for line in advice or ("nothing to change",):
        console.print(f"- {line}", markup=False)


@app.command()
def check(config: SiteFile) -> None:
    """The doctor: try every stream, the MLLM, the allocator, every sink and the store of a site file, one line each."""
    set_up_logs("error")
    console = Console()
    healthy = True
    for finding in asyncio.run(examine(load_site(config), SystemClock())):
        mark = "[green]ok  [/]" if finding.healthy else "[red]FAIL[/]"
        console.print(
            f"{mark} {escape(finding.what):<24} {escape(scrub(finding.detail))}", highlight=False, soft_wrap=True
        )
        healthy &= finding.healthy
    if not healthy:
        raise typer.Exit(EXIT_FAILED)


async def _run(site: SiteConfig, console: Console, json_lines: bool, scratch: Path | None) -> None:
    clock = SystemClock()
    screen = Screen(console)
    lines = TextSink(sys.stdout, name="stdout")
    if not json_lines:
        console.print(f"[dim]loading {escape(redact_mllm(site.mllm.use))}[/]")
    service = Service(site, clock, [lines if json_lines else screen], insist=False)
    try:
        await play(service, clock, None if json_lines else screen, lines)
    finally:
        store = _settle(scratch, service.left) or site.store
    if service.left:
        waiting = ", ".join(f"{count} events could not be delivered to {sink}" for sink, count in service.left.items())
        raise SinkUnavailable(f"{waiting}; they are kept: run again with the same --sink and --store {store}")
    if lines.broken.is_set():
        raise Unread("nobody reads the standard output any more")


def _settle(scratch: Path | None, left: Mapping[str, int]) -> str | None:
    """Remove a run's own store, or, if events still wait in it, bring it to the working folder and return its URL. It
    stays where it is if it cannot be brought there."""
    if scratch and left:
        kept = Path.cwd() / scratch.name
        try:
            shutil.move(scratch, kept)
        except OSError:
            shutil.rmtree(kept, ignore_errors=True)
            kept = scratch
        return f"sqlite:///{kept}/run.db"
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)
    return None


def _make_scratch() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="resadapt-"))
    except OSError as error:
        raise ConfigError(
            f"no folder for the state of this run can be made: {error.strerror}; name a place with --store, or with the"
            " environment variable TMPDIR"
        ) from error


async def _serve(path: Path | None) -> None:
    from pipeline.api.server import Serving  # FastAPI, which the other commands do not need

    clock = SystemClock()
    signals = Signals(clock, reload_on_hangup=path is not None)
    serving = Serving(Reconciler(path, clock), clock)
    service = serving.reconciler.service
    reloading = None
    try:
        async with started(serving, signals):
            log.info("serving", streams=sorted(service.site.streams), watches=sorted(service.site.watches))
            reload = partial(_reload_when_asked, serving.reconciler, signals)
            reloading = asyncio.create_task(supervise("reload", reload, clock), name="reload")
            broken = asyncio.create_task(service.broken())
            await first(signals.stop.wait(), asyncio.wait({broken}))
            log.info("draining", at_most_s=service.site.drain_s)
        if broken.done():
            await broken
        await stop([broken])
    finally:
        if reloading:
            await stop([reloading])
    log.info("stopped")


async def _reload_when_asked(reconciler: Reconciler, signals: Signals) -> None:
    while True:
        await signals.hangup.wait()
        signals.hangup.clear()
        if signals.stop.is_set():
            log.info("not_reloaded", reason="the service is draining")
            continue
        try:
            await reconciler.reload()
            site = reconciler.service.site
            log.info("reloaded", streams=sorted(site.streams), watches=sorted(site.watches))
        except ResadaptError as error:
            log.error("not_reloaded", reason=scrub(str(error)))


def _require_one(context: typer.Context) -> None:
    """Refuse what stands behind a stream without repeating it, as the library would: it may hold a password."""
    if context.args:
        raise ConfigError(
            f"expected one stream, and got {len(context.args)} more; put one that has spaces in quotes, and several"
            " into a site file for `resadapt serve`"
        )


def main() -> None:
    """Entry point of the command. What a person has to know is one line on stderr and an exit code."""
    try:
        app()
    except Unread:
        end_unread()
    except SystemExit as end:
        if end.code == UNREAD_BY_OTHERS:
            end_unread()
        raise
    except ResadaptError as error:
        Console(stderr=True).print(f"[red]resadapt:[/] {escape(scrub(str(error)))}", highlight=False, soft_wrap=True)
        sys.exit(EXIT_REFUSED if isinstance(error, ConfigError) else EXIT_FAILED)
