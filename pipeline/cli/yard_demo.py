"""`resadapt demo`: two yard cameras play as live streams, six watches stand on them, and the truth is known.

The cameras are filmed first, so that rendering takes nothing from the MLLM; then everything is as in any other run.
"""

import asyncio
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console

from pipeline.build import YARD, allocator_name, build_allocator, build_mllm
from pipeline.cli.demo_misses import HopSeen, explained
from pipeline.cli.demo_report import REPORT, DemoLog, write_demo_report
from pipeline.cli.output import Output, ScreenColumn, fitted, notices, plain, print_line, shown
from pipeline.cli.play import Played, play
from pipeline.cli.screen import Screen
from pipeline.clock import Clock, SystemClock
from pipeline.config.site import parse_site
from pipeline.errors import ConfigError
from pipeline.lab.report import FigureTable
from pipeline.redact import redact_mllm
from pipeline.service.service import Service
from pipeline.sinks.base import Sink
from pipeline.sinks.jsonl import TextSink
from pipeline.sinks.memory import MemorySink
from pipeline.types import Event
from samples.yard.demo import (
    UNDERSTOOD,
    Camera,
    LastingWatch,
    Miss,
    Totals,
    choose_watches,
    film,
    misses,
    score,
    totals,
)
from samples.yard.questions.grammar import YardWatch
from samples.yard.questions.matching import CLEAR_AT, CONFIRM, OPEN_AT, WatchScore
from samples.yard.shape import grid
from samples.yard.world.facts import HEIGHT, WIDTH

SECONDS = (4.0, 600.0)
"""Shortest and longest demo."""

SAMPLE_FPS = 2.0
FRAMES_PER_SEGMENT = 2
WATCHES = 6
AMPLE = 100.0
"""The budget, as a multiple of the native tokens, of a demo that has none: more than can be spent."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The settings of a demo. `budget` is a share of the native vision tokens, None for no limit; `mllm` as in
    `MLLMConfig`, `engine` as in `EngineConfig`; with `page` it is in a browser too, which is `opened` if wanted.
    Without an `allocator` it is `learned` where an engine fits the MLLM, else `fixed`.

    Raises ConfigError for a value out of range.
    """

    seconds: float = 60.0
    seed: int = 800001
    allocator: str | None = None
    budget: float | None = None
    mllm: str = "yard"
    engine: str | None = None
    page: bool = False
    opened: bool = False

    def __post_init__(self) -> None:
        if not SECONDS[0] <= self.seconds <= SECONDS[1]:
            raise ConfigError(f"--seconds is {self.seconds:g}; expected {SECONDS[0]:g} to {SECONDS[1]:g}")
        if self.seed < 0:
            raise ConfigError(f"--seed is {self.seed}; expected 0 or more")
        if self.budget is not None and not 0 < self.budget <= 1:
            raise ConfigError(f"--budget is {self.budget:g}; expected a share of the native tokens, above 0 to 1")

    @property
    def seeds(self) -> tuple[int, int]:
        """Those of the two cameras: neighbours of which the first is even, so that they are of the same thousands."""
        return self.seed & ~1, self.seed | 1


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The result of a demo: each watch's figures, missed events, overall figures, the cost, and the seconds of each
    stream that were decided."""

    watches: tuple[YardWatch, ...]
    scores: tuple[WatchScore, ...]
    missed: tuple[Miss, ...]
    totals: Totals
    tokens_per_s: float
    realtime_factor: float
    mllm_share: float
    seconds: Mapping[str, float]
    wall_s: float
    tokens: int

    def summary(self) -> dict[str, float | None]:
        """In numbers: F1, precision, recall and median onset delay (s) of the events, vision tokens spent per second of
        playing, stream seconds decided and seconds of MLLM work per second of playing."""
        cost = {name: getattr(self, name) for name in ("tokens_per_s", "realtime_factor", "mllm_share")}
        return asdict(self.totals) | cost


async def show(demo: Demo, json_lines: bool) -> None:
    """Play the demo. For a person: notices on stderr, events and a table on stdout; else events and summary as JSON
    lines."""
    clock, console = SystemClock(), notices()
    with tempfile.TemporaryDirectory(prefix="resadapt-demo-") as name:
        folder = Path(name)
        # Refused before anybody waits for the films.
        site = parse_site(_described(demo, (), (), folder))
        build_allocator(site, clock)
        _ = build_mllm(site.mllm, clock).info
        if not json_lines:
            _introduce(demo, console)
        began_s = clock.monotonic_s()
        cameras = await film(demo.seeds, demo.seconds, SAMPLE_FPS, folder)
        watches = choose_watches(cameras, demo.seed, WATCHES)
        if not json_lines:
            took_s = clock.monotonic_s() - began_s
            console.print(f"[dim]filmed in {took_s:.0f} s; loading {shown(redact_mllm(demo.mllm))}[/]", highlight=False)
        log, screen = DemoLog(cameras, watches), None if json_lines else Screen(Output())
        described = _described(demo, cameras, watches, folder)
        output = screen or TextSink(sys.stdout, name="stdout")
        outcome = await _play(demo, described, cameras, watches, clock, log, output)
    if json_lines:
        await asyncio.to_thread(print_line, json.dumps({"summary": outcome.summary()}))
    else:
        _report(outcome, log.hops, Output())
        await asyncio.to_thread(_write_report, outcome, log, Output())


async def _play(
    demo: Demo,
    described: dict[str, object],
    cameras: tuple[Camera, ...],
    watches: tuple[YardWatch, ...],
    clock: Clock,
    log: DemoLog,
    output: Screen | TextSink,
) -> DemoResult:
    memory = MemorySink()
    sinks: list[Sink] = [memory, output]
    if demo.page:
        from pipeline.cli.run_page import RunPage, with_page  # FastAPI, which a demo in the terminal does not need

        site, described = with_page(described)
        page = RunPage(site, described, clock, sinks, log.add, notices(), demo.opened)
        played = await play(page.service, clock, output, page)
    else:
        service = Service(parse_site(described), clock, sinks, insist=False, observe=log.add)
        played = await play(service, clock, output)
    return compare(memory.events, played, cameras, watches)


def compare(
    events: list[Event], played: Played, cameras: tuple[Camera, ...], watches: tuple[YardWatch, ...]
) -> DemoResult:
    """The events of what was played against the truth, up to where each stream was decided."""
    onsets_s: dict[str | None, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for event in {event.id: event for event in events}.values():
        if event.type == "watch.opened":
            onsets_s[event.watch_id][event.stream_id].append(float(str(event.data["onset_s"])))
    decided_s = {slug: run.decided_s for slug, run in played.runs.items()}
    scores = tuple(score(watch, cameras, onsets_s[watch.slug], decided_s) for watch in watches)
    spent = sum(run.counts.spent for run in played.runs.values())
    wall_s = max(played.wall_s, 1e-9)
    return DemoResult(
        watches=watches,
        scores=scores,
        missed=tuple(miss for watch in watches for miss in misses(watch, cameras, onsets_s[watch.slug], decided_s)),
        totals=totals(scores),
        tokens_per_s=round(spent / wall_s, 1),
        realtime_factor=round(sum(decided_s.values()) / max(len(decided_s), 1) / wall_s, 3),
        mllm_share=round(played.mllm_s / wall_s, 3),
        seconds=decided_s,
        wall_s=wall_s,
        tokens=spent,
    )


def _described(
    demo: Demo, cameras: tuple[Camera, ...], watches: tuple[YardWatch, ...], folder: Path
) -> dict[str, object]:
    native = grid().tokens(HEIGHT, WIDTH)
    rate = (demo.budget or AMPLE) * native * SAMPLE_FPS / FRAMES_PER_SEGMENT
    engine = {"path": demo.engine}
    by_itself = allocator_name(parse_site({"mllm": demo.mllm, "engine": engine}))
    return {
        "defaults": {
            "sample_fps": SAMPLE_FPS,
            "hop_s": 1.0,
            "allocator": demo.allocator or ("learned" if by_itself == "learned" else "fixed"),
            "budget": {"rate_tokens_per_s": rate},
        },
        "streams": {camera.slug: {"url": str(camera.film), "realtime": True} for camera in cameras},
        "watches": {
            watch.slug: {
                "question": watch.text,
                "open_at": OPEN_AT,
                "clear_at": CLEAR_AT,
                "confirm": list(CONFIRM),
                **(_lasting(watch) if isinstance(watch, LastingWatch) else {}),
            }
            for watch in watches
        },
        "mllm": {"use": demo.mllm, "frames_per_segment": FRAMES_PER_SEGMENT},
        "engine": engine,
        "sinks": {},
        "store": f"sqlite:///{folder}/demo.db",
        # Nobody looks at what a demo in the terminal would keep.
        **({"evidence": {"dir": f"{folder}/evidence"}} if demo.page else {}),
    }


def _lasting(watch: LastingWatch) -> dict[str, object]:
    """The settings of a watch that lasts: its seconds, and a name, since another watch asks the same."""
    return {"hold_s": watch.hold_s, "display_name": f"{watch.text.removesuffix('?')} for {watch.hold_s:g} s?"}


def _introduce(demo: Demo, console: Console) -> None:
    one, other = demo.seeds
    asked = "" if demo.mllm == "yard" else f", asked of {shown(redact_mllm(demo.mllm))}"
    console.print(f"Two yard cameras (seeds {one} and {other}) play for {demo.seconds:g} s{asked}.", highlight=False)
    if demo.mllm == "yard":
        console.print(f"The demo MLLM understands {UNDERSTOOD}, in this yard only; to anything else it says unknown.")
        console.print(f"[dim]What it can and cannot do: {shown(YARD / 'README.md')}[/]", soft_wrap=True)
    console.print("[dim]filming the cameras first, so that rendering takes nothing from the MLLM[/]")


_COLUMNS = (
    ScreenColumn("watch"),
    ScreenColumn("found", 5),
    ScreenColumn("missed", 4),
    ScreenColumn("false", 3),
    ScreenColumn("delay", 2),
    ScreenColumn("question", 1, text=True),
)


def _report(outcome: DemoResult, hops: Sequence[HopSeen], console: Console) -> None:
    rows = []
    for watch, one in zip(outcome.watches, outcome.scores, strict=True):
        name = f"{watch.slug} (fine)" if one.fine else watch.slug
        rows.append((name, *_cells(one), plain(watch.text)))
    console.print(fitted(_COLUMNS, rows, console.width))
    said = {key: "-" if value is None else f"{value:g}" for key, value in outcome.summary().items()}
    console.print(
        f"F1 {said['f1']}, precision {said['precision']}, recall {said['recall']};"
        f" {said['tokens_per_s']} vision tokens/s; {said['realtime_factor']} x real time,"
        f" the MLLM at work for {100 * outcome.mllm_share:.0f} % of it",
        highlight=False,
    )
    for line in _faults(outcome, hops):
        console.print(line, markup=False, highlight=False)
    console.print(
        "Your own camera next: resadapt run rtsp://CAMERA --watch 'is there a car in view?'"
        " --mllm transformers:Qwen/Qwen3-VL-2B-Instruct",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _cells(score: WatchScore) -> tuple[str, ...]:
    """The figures of a watch: found, missed, false, and the median delay."""
    delay = f"{median(score.delays_s):+.1f} s" if score.delays_s else "-"
    return (*map(str, (score.found, score.missed, score.false)), delay)


def _write_report(outcome: DemoResult, log: DemoLog, console: Console) -> None:
    try:
        figures = FigureTable(("found", "missed", "false", "delay"), tuple(_cells(one) for one in outcome.scores))
        write_demo_report(REPORT, log, outcome.seconds, outcome.wall_s, outcome.tokens, figures)
    except ConfigError as error:
        console.print(f"No report: {error}", markup=False, highlight=False)
        return
    said = f"What was seen, with pictures and scores: {shown(REPORT.resolve())}"
    console.print(said, markup=False, highlight=False, soft_wrap=True)


def _faults(outcome: DemoResult, hops: Sequence[HopSeen]) -> Iterator[str]:
    """The causes of missed and false events, in words."""
    if outcome.missed:
        yield f"Of {len(outcome.missed)} events missed:"
        yield from (f"- {line}" for line in explained(outcome.missed, hops, CONFIRM[0]))
    if false := sum(one.false for one in outcome.scores):
        yield f"{false} false: the MLLM said yes to what was not there; fine details are its weakness, as its card says"
