"""`resadapt-allocator evaluate`: allocators compared at equal realised tokens or rates, as table, plot and JSON."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from allocator_engine.errors import EngineFailed, EngineMissing
from allocator_engine.evaluate.frontier import Difference, Estimate, Frontier, FrontierPoint
from allocator_engine.evaluate.run import ALLOCATORS, Equal
from allocator_engine.evaluate.tasks import FAMILIES, parse_seeds
from allocator_engine.manifest import FILE_NAME, SHIPPED
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config.mllm import MLLMConfig

T = TypeVar("T", bound=str)

SECONDS = (2.0, 600.0)
"""Shortest and longest episode of the yard."""

MOST_WATCHES = 8
"""Watches of an episode of the yard."""

_CACHE_TOKENS = 4_000_000
_AT: dict[Equal, str] = {"tokens": "At equal realised tokens", "rates": "At equal rates"}
_COLUMNS = ("watch_f1", "watch_f1 coarse", "watch_f1 fine", "qa", "grounding", "image")


def evaluate(
    tasks: Annotated[str, typer.Option(help="yard, yard-distracted, or a video-QA file (.jsonl, .parquet).")] = "yard",
    seeds: Annotated[str, typer.Option(help="Episodes of the yard: A:B, from A up to B without B.")] = "800000:800200",
    budgets: Annotated[str, typer.Option(help="Shares of the native tokens.")] = "0.05,0.1,0.25,0.5,1",
    allocators: Annotated[str | None, typer.Option(help=f"Some of {', '.join(ALLOCATORS)}; all by default.")] = None,
    families: Annotated[str | None, typer.Option(help=f"Some of {', '.join(FAMILIES)}; all by default.")] = None,
    engine: Annotated[Path | None, typer.Option(help="engine.json of `learned`, or its folder.")] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="NAME=ENGINE: another engine, compared as `learned:NAME`. Repeatable.")
    ] = None,
    mllm: Annotated[str, typer.Option(help="Who answers: a folder, or as for `resadapt run`.")] = "yard",
    device: Annotated[str | None, typer.Option(help="Where an embedded one computes: auto, cpu, cuda.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder that keeps what was found out, to go on from it.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to write; by default frontier.png in --resume.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of an episode of the yard.")] = 32.0,
    watches: Annotated[int, typer.Option(help="Watches of the yard that stand together, 1 to 8.")] = MOST_WATCHES,
    equal: Annotated[str, typer.Option(help="tokens: all spend the same; rates: all are granted the same.")] = "tokens",
    jobs: Annotated[int, typer.Option(help="Processes at work; each loads the MLLM.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the last line only: the points as JSON.")] = False,
) -> None:
    """Compare allocators at equal tokens (or rates): accuracy by budget, with paired 95 % intervals over episodes."""
    from pipeline.lab.comparison import Comparison, compare  # loads torch

    console = Console(stderr=True)
    if jobs < 1:
        raise ConfigError(f"--jobs is {jobs}; expected 1 or more")
    if not SECONDS[0] <= seconds <= SECONDS[1]:
        raise ConfigError(f"--seconds is {seconds:g}; expected {SECONDS[0]:g} to {SECONDS[1]:g}")
    if not 1 <= watches <= MOST_WATCHES:
        raise ConfigError(f"--watches is {watches}; expected 1 to {MOST_WATCHES}")
    if plot and (plot.suffix.lower() != ".png" or plot.is_dir() or not plot.absolute().parent.is_dir()):
        raise ConfigError(f"--plot is {plot}; expected a file .png in a folder that is there")
    if engine is None and (SHIPPED / FILE_NAME).exists():
        engine = SHIPPED
    comparison = Comparison(
        tasks=tasks,
        seeds=parse_seeds(seeds),
        seconds=seconds,
        budgets=_budgets(budgets),
        allocators=_allocators(allocators, engine, console),
        families=_some("--families", families, FAMILIES),
        engine=engine,
        mllm=_mllm(mllm, device),
        watches=watches,
        equal=_equal(equal),
        against=_against(against or ()),
    )
    try:
        with Progress(console=console, transient=True) as progress:
            found, hashes = compare(comparison, resume, jobs, _ProgressBar(progress))
    except ConnectionError as error:
        again = "the same command goes on where it was" if resume else "with --resume FOLDER it could be gone on with"
        raise EngineFailed(f"{error}; {again}") from error
    drawn = "frontier.png" if comparison.equal == "tokens" else "frontier_at_rates.png"
    if not as_json:
        _print(found, comparison.equal)
    _draw(found, plot or (resume / drawn if resume else None), console)
    about = {"tasks": tasks, "seeds": seeds, "watches": watches, "equal": equal, "hashes": hashes}
    typer.echo(json.dumps(about | found.as_json(), allow_nan=False))


def _allocators(text: str | None, engine: Path | None, console: Console) -> tuple[str, ...]:
    """Those that are named; by default all that can be had, with a word about the others."""
    chosen = _some("--allocators", text, ALLOCATORS)
    unable = [name for name in chosen if name.startswith("learned") and engine is None]
    if unable and text is not None:
        raise ConfigError(f"the allocator {unable[0]} needs an engine, and none is shipped; name one with --engine")
    if unable:
        console.print(f"without {' and '.join(unable)}: no engine is shipped; name one with --engine", highlight=False)
    return tuple(name for name in chosen if name not in unable)


def _against(texts: Sequence[str]) -> dict[str, Path]:
    """Engines by the names of their allocators."""
    engines: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        allocator = f"learned:{name}"
        if not name or not path:
            raise ConfigError(f"--against is {text!r}; expected NAME=ENGINE, such as before=old/engine.json")
        if allocator in engines:
            raise ConfigError(f"--against names {name!r} twice; give each engine a name of its own")
        engines[allocator] = Path(path)
    return engines


def _some(option: str, text: str | None, known: Sequence[T]) -> tuple[T, ...]:
    """The known ones that an option names, in their own order; all of them without it."""
    names = [name.strip() for name in text.split(",")] if text is not None else known
    if strange := [name for name in names if name not in known]:
        raise ConfigError(f"{option} names {strange[0]!r}; expected some of {', '.join(known)}")
    return tuple(one for one in known if one in names)


def _equal(text: str) -> Equal:
    for known in _AT:
        if text == known:
            return known
    raise ConfigError(f"--equal is {text!r}; expected one of {', '.join(_AT)}")


def _budgets(text: str) -> tuple[float, ...]:
    try:
        budgets = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        budgets = ()
    if not budgets or not all(0 < budget <= 1 for budget in budgets):
        raise ConfigError(f"--budgets is {text!r}; expected shares above 0 up to 1, such as 0.05,0.1,0.25,0.5,1")
    return budgets


def _mllm(text: str, device: str | None) -> "MLLMConfig":
    from pipeline.config.mllm import CachedConfig, patient
    from pipeline.config.one_stream import given
    from pipeline.config.site import parse_site
    from pipeline.lab.patience import PATIENCE_S

    use = f"transformers:{text}" if Path(text).is_dir() else text
    config = patient(parse_site({"mllm": given(use=use, device=device)}).mllm, PATIENCE_S)
    return replace(config, max_cache_tokens=_CACHE_TOKENS) if isinstance(config, CachedConfig) else config


class _ProgressBar:
    """Progress: bars on a terminal, one for each kind of work; elsewhere a line at every tenth."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, of: int) -> None:
        """See Told."""
        if not self._progress.console.is_terminal:
            if 10 * done // of > 10 * (done - 1) // of:
                self._progress.console.print(f"{what}: {done} of {of}", highlight=False)
            return
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what)
        self._progress.update(self._bars[what], completed=done, total=of)


def _draw(found: Frontier, picture: Path | None, console: Console) -> None:
    if not picture:
        return
    from allocator_engine.evaluate.plot import plot

    try:
        plot(found, picture)
        console.print(f"the frontier is drawn in {escape(str(picture))}", highlight=False, soft_wrap=True)
    except EngineMissing as error:
        console.print(escape(str(error)), highlight=False, soft_wrap=True)


def _print(found: Frontier, equal: Equal) -> None:
    """The tables."""
    wide = Console(width=200)
    wide.print(points_table(found.points, equal))
    wide.print(differences_table(found.differences, equal))
    if any(point.retention for point in found.points):
        wide.print(retention_table(found.points))


def points_table(points: Sequence[FrontierPoint], equal: Equal) -> Table:
    """A row for each allocator at each budget; shares and figures in per cent, with their intervals."""
    caption = "* does not spend that much" if equal == "tokens" else "* spends another share than the budget"
    table = Table(title=_AT[equal], title_justify="left", caption=caption)
    table.add_column("budget")
    table.add_column("allocator")
    costs = ("at rate", "realised", "frames", "tokens/s", "MLLM s", "ms/frame", "onset p50", "p95")
    for name in (*_COLUMNS, *costs):
        table.add_column(name, justify="right")
    for before, point in zip((None, *points), points, strict=False):
        if before is not None and before.budget != point.budget:
            table.add_section()
        figures = dict(point.splits) | {str(family): one for family, one in point.figures.items()}
        table.add_row(
            f"{point.budget:g}",
            point.allocator,
            *(_percent(figures.get(name)) for name in _COLUMNS),
            f"{100 * point.at_rate:.1f}",
            f"{100 * point.realised:.1f}{'*' if point.missed else ''}",
            f"{100 * point.shown:.0f}",
            f"{point.tokens_per_s:.1f}",
            f"{point.mllm_s:.2f}",
            f"{point.allocator_ms:.2f}",
            *(
                f"{delay_s:+.1f} s" if delay_s is not None else "-"
                for delay_s in (point.onset_p50_s, point.onset_p95_s)
            ),
        )
    return table


def differences_table(differences: Sequence[Difference], equal: Equal) -> Table:
    """How much better the first allocator is than each other: families across, in points."""
    first = differences[0].allocator if differences else ""
    table = Table(title=f"{first} minus the others, episode by episode, {_AT[equal].lower()}", title_justify="left")
    table.add_column("budget")
    table.add_column("minus")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    rows: dict[tuple[float, str], dict[str, Estimate]] = {}
    for one in differences:
        rows.setdefault((one.budget, one.other), {})[one.family] = one.estimate
    for (budget, other), estimates in rows.items():
        table.add_row(f"{budget:g}", other, *(_percent(estimates.get(name), signed=True) for name in _COLUMNS))
    return table


def retention_table(points: Sequence[FrontierPoint]) -> Table:
    """Figures in per cent of those at native size: families across."""
    table = Table(title="Retention: per cent of the figure of every frame at native size", title_justify="left")
    table.add_column("budget")
    table.add_column("allocator")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for point in points:
        kept = (_percent(point.retention.get(name)) for name in _COLUMNS)
        table.add_row(f"{point.budget:g}", point.allocator, *kept)
    return table


def _percent(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return "-"
    value, lo, hi = (100 * one for one in (estimate.value, estimate.lo, estimate.hi))
    return f"{value:+.1f} [{lo:+.1f}, {hi:+.1f}]" if signed else f"{value:.1f} [{lo:.0f}, {hi:.0f}]"
