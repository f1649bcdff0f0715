"""`resadapt-allocator adapt`: from hours of a site's recordings to an engine that is verified, with a report."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from allocator_engine.errors import EngineFailed
from pipeline.clock import SystemClock
from pipeline.errors import ConfigError
from pipeline.redact import scrub

REPORT = "report.html"


def adapt(
    recordings: Annotated[Path, typer.Option(help="Folder of recordings; those of a camera in a folder of its name.")],
    watches: Annotated[Path, typer.Option(help="A site file, or its `watches:` alone.")],
    out: Annotated[Path, typer.Option(help="Folder of the engine that is made.")],
    mllm: Annotated[str | None, typer.Option(help="The MLLM that answers; the site file's by default.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV as truth of what is held out: watch,file,start_s,end_s, or of `label export`."),
    ] = None,
    budget: Annotated[float, typer.Option(help="Share of native's tokens that the verdict is about.")] = 0.1,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the training behind its grounding.")] = None,
    grounding: Annotated[int | None, typer.Option(min=1, help="Steps that learn what changes, before.")] = None,
    from_nothing: Annotated[
        bool, typer.Option("--from-nothing", help="Begin with new weights, not with the shipped engine's.")
    ] = False,
    work: Annotated[Path | None, typer.Option(help="Folder that keeps answers and state; by default OUT.work.")] = None,
    report: Annotated[Path | None, typer.Option(help="The report; by default OUT/report.html.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of budgets and actions.")] = 1,
    device: Annotated[str | None, typer.Option(help="Where an embedded MLLM computes: auto, cpu, cuda.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the last line only.")] = False,
) -> None:
    """Make an engine of a site's recordings, without labels, and say whether to use it.

    The last quarter of each camera's time is held out; there the engine is compared with `motion` and `fixed` at equal
    tokens. The same command goes on where it was stopped.
    """
    from pipeline.lab.adapt import AdaptPlan
    from pipeline.lab.adapt import adapt as run
    from pipeline.lab.adapt_report import json_of, write_adaptation
    from pipeline.lab.site_engine import ShortTraining
    from pipeline.logs import set_up_logs

    if not 0 < budget < 1:
        raise ConfigError(f"--budget is {budget:g}; expected a share above 0 and below 1")
    if not recordings.is_dir():
        raise ConfigError(f"--recordings {recordings} is no folder; expected one that holds recordings")
    set_up_logs("error")
    console = Console(stderr=True)
    usual = ShortTraining(seed=seed, general=not from_nothing)
    training = replace(usual, grounding=grounding or usual.grounding, steps=steps or usual.steps)
    plan = AdaptPlan(
        recordings, watches, mllm, out, work or out.with_name(f"{out.name}.work"), budget, labels, training, device
    )
    remark = _Remarks(console)
    try:
        with _progress(console) as progress:
            found = run(plan, _NamedBars(progress), remark)
    except ConnectionError as error:
        raise EngineFailed(f"{error}; the same command goes on from {plan.work}") from error
    place = report or out / REPORT
    write_adaptation(place, plan, found)
    if not as_json:
        _print_verdict(found.verdict.reason, found.verdict.missing, found.verdict.unnoticed)
        Console().print(f"report: {escape(str(place))}", highlight=False, soft_wrap=True)
    typer.echo(json.dumps(json_of(plan, found), allow_nan=False))


def _print_verdict(reason: str, missing: tuple[str, ...], unnoticed: float | None) -> None:
    console = Console()
    console.print(escape(reason), highlight=False, soft_wrap=True)
    for one in missing:
        console.print(f"missing: {escape(one)}", highlight=False, soft_wrap=True)
    free = (
        "no uniform saving went unnoticed" if unnoticed is None else f"fixed at {unnoticed:.0%} is not noticed either"
    )
    console.print(free, highlight=False, soft_wrap=True)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(12), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


class _Remarks:
    """Prints each remark once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: set[str] = set()

    def __call__(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._console.print(escape(scrub(text)), highlight=False, soft_wrap=True)


class _NamedBars:
    """Progress: a bar for each kind of work, whose name stands before a colon; elsewhere a line at every tenth, with
    the seconds that are left."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._clock = progress, SystemClock()
        self._bars: dict[str, TaskID] = {}
        self._began_s: dict[str, float] = {}

    def __call__(self, what: str, done: int, of: int) -> None:
        """See OnProgress."""
        name = what.partition(":")[0]
        began_s = self._began_s.setdefault(name, self._clock.monotonic_s())
        if not self._progress.console.is_terminal:
            if 10 * done // of > 10 * (done - 1) // of:
                left_s = (self._clock.monotonic_s() - began_s) / done * (of - done)
                self._progress.console.print(f"{what}, {done} of {of}, {left_s:.0f} s left", highlight=False)
            return
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(what)
        self._progress.update(self._bars[name], description=what, completed=done, total=of)
