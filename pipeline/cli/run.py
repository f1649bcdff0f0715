"""`resadapt run`: one stream, watched before a person until it ends."""

import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from pipeline.build import allocator_name, build_watch
from pipeline.cli.ending import run_to_end, unwritten
from pipeline.cli.options import LogLevel, PageOpened, PageWanted, require_one
from pipeline.cli.output import Output, notices, set_up, shown
from pipeline.cli.play import Played, play
from pipeline.cli.rules import Absent, Choices, CountRule, Hold, RuleSettings, SeverityOf, rule_settings
from pipeline.cli.screen import Screen
from pipeline.cli.summary import StreamSummary, report
from pipeline.clock import SystemClock
from pipeline.config.mllm import MLLM_CHOICES
from pipeline.config.one_stream import given, named_sinks, site_of_one
from pipeline.config.sinks import SINK_CHOICES
from pipeline.config.site import SiteConfig, parse_site, read_yaml
from pipeline.config.values import resolve_url
from pipeline.core.outcome import Outcome
from pipeline.core.tally import Tallies
from pipeline.errors import ConfigError, SinkUnavailable
from pipeline.redact import redact_mllm
from pipeline.service.memory import keep_steady
from pipeline.service.service import Service
from pipeline.service.unnamed import require_mllm_or_yard
from pipeline.sinks.jsonl import TextSink
from pipeline.sources.address import parse_address
from pipeline.types import Event

EXAMPLE = (
    "Example: resadapt run rtsp://10.0.0.7/stream1 --watch 'is there a car in view?'"
    " --mllm transformers:Qwen/Qwen3-VL-2B-Instruct"
)


def run(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="rtsp(s)://, rtmp://, srt://, http(s)://, FILE, v4l2:DEVICE, synthetic:")
    ],
    watch: Annotated[list[str] | None, typer.Option(help="A standing question; may be repeated.")] = None,
    mllm: Annotated[
        str | None,
        typer.Option(help=f"{MLLM_CHOICES}. To be named unless SOURCE is a recording of the demo's yard."),
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Of a server whose model's name does not tell it, such as qwen3_vl.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="A site file with defaults.")] = None,
    sink: Annotated[list[str] | None, typer.Option(help=f"{SINK_CHOICES}; may be repeated.")] = None,
    sink_secret: Annotated[
        str | None, typer.Option(help="Signs what goes to webhooks: a reference such as ${HOOK_SECRET}.")
    ] = None,
    open_at: Annotated[float | None, typer.Option(help="Score, 0 to 1, at which every watch opens.")] = None,
    clear_at: Annotated[float | None, typer.Option(help="Score, 0 to 1, at which every watch clears.")] = None,
    confirm: Annotated[
        str | None, typer.Option(help="K/N: so many of the last N known answers open or clear a watch.")
    ] = None,
    hold: Hold = None,
    absent: Absent = None,
    count: CountRule = None,
    choice: Choices = None,
    severity: SeverityOf = None,
    rule: RuleSettings = None,
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
    evidence: Annotated[
        str | None, typer.Option(help="Keep what events rest on in this folder, and its manifest in --store.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Slug of the stream; by default made from SOURCE.")] = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Events as CloudEvents JSON lines on stdout, and nothing else there.")
    ] = False,
    page: PageWanted = False,
    open_page: PageOpened = False,
    log_level: LogLevel = "warning",
) -> None:
    """Watch one stream until it ends, or until Ctrl-C. Ends with what each watch was answered and what it cost."""
    set_up(log_level, people=not json_lines)
    require_one(context)
    raw = read_yaml(config) if config else {}
    own = given(
        allocator=allocator,
        budget=given(rate_tokens_per_s=rate, burst_tokens=burst),
        stall_s=stall_s,
        first_picture_s=first_picture_s,
    )
    sinks = named_sinks(sink or [], sink_secret)
    named = given(mllm=mllm_of(raw.get("mllm"), mllm, family), engine=engine, store=store, sinks=sinks)
    rules = given(open_at=open_at, clear_at=clear_at, confirm=None if confirm is None else _confirm(confirm))
    rules |= rule_settings(hold, absent, count, choice, severity, rule)
    described = site_of_one(raw, source, name, watch or [], realtime, own, rules) | named
    site = _with_evidence(parse_site(described), evidence, bool(store or "store" in raw))
    _require_source(source)
    require_mllm_or_yard(described, site)
    scratch = None if "store" in raw or store else _make_scratch()
    if scratch:
        site = replace(site, store=f"sqlite:///{scratch}/run.db")
        if page or open_page:  # shown while it runs, and gone with the store
            site = replace(site, evidence=replace(site.evidence, enabled=True, dir=f"{scratch}/evidence"))
    if json_lines and not sink and "sinks" not in raw:
        site = replace(site, sinks={})
    paged = Paged(described, open_page) if page or open_page else None
    keep_steady(site.mllm)
    run_to_end(_run(site, json_lines, scratch, paged))


@dataclass(frozen=True, slots=True)
class Paged:
    """A page is wanted: the site as plain mappings, and whether it is opened in a browser."""

    described: Mapping[str, object]
    opened: bool


async def _run(site: SiteConfig, json_lines: bool, scratch: Path | None, paged: Paged | None) -> None:
    clock, console, tallies = SystemClock(), Output(), Tallies()
    output: Screen | TextSink = TextSink(sys.stdout, name="stdout") if json_lines else Screen(console)
    if not json_lines:
        notices().print(f"[dim]loading {shown(redact_mllm(site.mllm.use))}[/]", highlight=False)

    def observe(outcome: Outcome, events: Sequence[Event]) -> None:
        tallies.add(outcome.hop.stream_id, outcome.reply.answers.answers, events)

    beside = None
    if paged:
        from pipeline.cli.run_page import RunPage, with_page  # FastAPI, which a run in the terminal does not need

        served, described = with_page(paged.described)
        site = replace(site, api=served.api)
        beside = RunPage(site, described, clock, [output], observe, notices(), paged.opened)
    service = beside.service if beside else Service(site, clock, [output], insist=False, observe=observe)
    try:
        played = await play(service, clock, output, beside)
    finally:
        store = _settle(scratch, service.left) or site.store
    if not json_lines and not output.broken.is_set():
        _summarise(site, played, tallies, console)
    if service.left:
        waiting = ", ".join(f"{count} events could not be delivered to {sink}" for sink, count in service.left.items())
        raise SinkUnavailable(f"{waiting}; they are kept: run again with the same --sink and --store {store}")
    if output.broken.is_set():
        failure = output.failure
        raise unwritten(failure.__cause__ if failure else None)


def _summarise(site: SiteConfig, played: Played, tallies: Tallies, console: Output) -> None:
    watches = [build_watch(slug, watch) for slug, watch in site.watches.items()]
    for slug, run in played.runs.items():
        found = {watch.id: tallies.of(slug, watch.id) for watch in watches}
        rate = site.streams[slug].budget.rate
        report(StreamSummary(run, watches, found, rate, allocator_name(site)), console)


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


def _with_evidence(site: SiteConfig, folder: str | None, has_store: bool) -> SiteConfig:
    """The site, which keeps evidence where it is asked to on the command line, and nowhere else."""
    if folder and not has_store:
        raise ConfigError("--evidence needs --store, in which the manifest of the evidence is kept")
    site = replace(site, evidence=replace(site.evidence, enabled=bool(folder), dir=folder or site.evidence.dir))
    site.evidence.check(site.store)
    return site


def _make_scratch() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="resadapt-"))
    except OSError as error:
        raise ConfigError(
            f"no folder for the state of this run can be made: {error.strerror}; name a place with --store, or with the"
            " environment variable TMPDIR"
        ) from error


def mllm_of(known: object, use: str | None, family: str | None) -> object:
    """The MLLM of the command line over that of the site file. Another MLLM than the file names has none of the
    settings there: its key is not for others."""
    if use:
        own = dict(known) if isinstance(known, dict) and known.get("use", use) == use else {}
        return own | {"use": use, **given(family=family)}
    if family:
        return ({"use": known} if isinstance(known, str) else dict(known) if isinstance(known, dict) else {}) | {
            "family": family
        }
    return None


def _confirm(text: str) -> list[int]:
    """`K/N` as numbers. Raises ConfigError."""
    if not re.fullmatch(r"[0-9]{1,4}/[0-9]{1,4}", text):
        raise ConfigError(f"--confirm is {text!r}; expected K/N such as 2/3: so many of the last so many known answers")
    return [int(number) for number in text.split("/")]


def _require_source(source: str) -> None:
    """Refuse a file that is not there before anything is loaded."""
    if source.startswith("synthetic:"):
        return
    path = parse_address(resolve_url(source)).path
    if path is not None and not path.exists():
        raise ConfigError(f"{path} is not a file; expected a video file")
