"""`resadapt-allocator evaluate`: allocators compared at equal realised tokens or rates, as table, plot and JSON."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID

from allocator_engine.errors import EngineFailed, EngineMissing
from allocator_engine.evaluate.frontier import Frontier
from allocator_engine.evaluate.run import ALLOCATORS, Equal
from allocator_engine.evaluate.tasks import FAMILIES, parse_seeds
from allocator_engine.manifest import FILE_NAME, SHIPPED
from pipeline.errors import ConfigError
from pipeline.lab.cli.real_tables import print_real_tables
from pipeline.lab.cli.tables import TITLES, print_tables

if TYPE_CHECKING:
    from pipeline.config.mllm import MLLMConfig
    from pipeline.lab.comparison import Comparison

T = TypeVar("T", bound=str)

SECONDS = (2.0, 600.0)
"""Shortest and longest episode of the yard."""

QUIET_S = (1.0, 600.0)
"""Shortest and longest quiet time before an episode of the yard."""

MOST_WATCHES = 8
"""Watches of an episode of the yard."""

BUDGETS, REAL_BUDGETS = "0.05,0.1,0.25,0.5,1", "0.02,0.05,0.1,0.25,1"
REAL_ALLOCATORS = "learned,fixed,motion,fewer,recent,codec,video,oracle"

_CACHE_TOKENS = 4_000_000
_DRAWN: dict[Equal, str] = {"tokens": "frontier.png", "rates": "frontier_at_rates.png"}


def evaluate(
    tasks: Annotated[
        str, typer.Option(help="yard, yard-distracted, real (see --footage), or a video-QA file (.jsonl, .parquet).")
    ] = "yard",
    footage: Annotated[
        Path | None, typer.Option(help="real: folder with clips/, real/clips/ and real/labels/, and real/models/.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Episodes of the yard: A:B, from A up to B without B.")] = "800000:800200",
    budgets: Annotated[
        str | None, typer.Option(help=f"Shares of the native tokens; by default {BUDGETS}, of real {REAL_BUDGETS}.")
    ] = None,
    allocators: Annotated[str | None, typer.Option(help=f"Some of {', '.join(ALLOCATORS)}; all by default.")] = None,
    families: Annotated[str | None, typer.Option(help=f"Some of {', '.join(FAMILIES)}; all by default.")] = None,
    engine: Annotated[Path | None, typer.Option(help="engine.json of `learned`, or its folder.")] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="NAME=ENGINE: another engine, compared as `learned:NAME`. Repeatable.")
    ] = None,
    mllm: Annotated[
        str | None, typer.Option(help="The MLLM: a folder, or as for `resadapt run`. yard; of real its detector.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where an embedded one computes: auto, cpu, cuda.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder that keeps what was found out, to go on from it.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to write; by default frontier.png in --resume.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of an episode of the yard.")] = 32.0,
    quiet_s: Annotated[
        float, typer.Option(help="Seconds of the yard in which nothing happens before each episode. Watches only.")
    ] = 0.0,
    watches: Annotated[int, typer.Option(help="Watches of the yard that stand together, 1 to 8.")] = MOST_WATCHES,
    equal: Annotated[str, typer.Option(help="tokens: all spend the same; rates: all are granted the same.")] = "tokens",
    jobs: Annotated[int, typer.Option(help="Processes at work; each loads the MLLM.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the last line only: the points as JSON.")] = False,
) -> None:
    """Compare allocators at equal tokens (or rates): accuracy by budget, with paired 95 % intervals over episodes.

    Of real footage the first 60 % of each camera's time trains `learned`, unless --engine names one; the rest tests.
    """
    from pipeline.lab.comparison import REAL, Comparison

    _check(jobs, seconds, watches, plot)
    families = _quiet(quiet_s, tasks, families)
    real = _real(tasks, footage)
    if real is not None:
        mllm = mllm or f"detector:{real / 'real' / 'models'}"
        if engine is None and (allocators is None or "learned" in allocators):
            engine = _trained(real, _mllm(mllm, device), resume, Console(stderr=True))
    elif engine is None and (SHIPPED / FILE_NAME).exists():
        engine = SHIPPED
    comparison = Comparison(
        tasks=tasks,
        seeds=parse_seeds(seeds),
        seconds=seconds,
        budgets=_budgets(budgets or (REAL_BUDGETS if real else BUDGETS)),
        allocators=_allocators(allocators or (REAL_ALLOCATORS if real else None), engine, Console(stderr=True)),
        families=_some("--families", families, FAMILIES),
        engine=engine,
        mllm=_mllm(mllm or "yard", device),
        watches=watches,
        equal=_equal(equal),
        against=_against(against or ()),
        footage=real,
        quiet_s=quiet_s,
    )
    tables = print_real_tables if tasks == REAL else print_tables
    _compare(comparison, seeds, resume, jobs, plot, None if as_json else tables)


def _compare(
    comparison: "Comparison",
    seeds: str,
    resume: Path | None,
    jobs: int,
    plot: Path | None,
    tables: Callable[[Frontier, Equal], None] | None,
) -> None:
    """Compare, show `tables` where there are any, draw the frontier, and print the points as a line of JSON."""
    from pipeline.lab.comparison import compare

    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True) as progress:
            found, hashes = compare(comparison, resume, jobs, _ProgressBar(progress))
    except ConnectionError as error:
        again = "the same command goes on where it was" if resume else "with --resume FOLDER it could be gone on with"
        raise EngineFailed(f"{error}; {again}") from error
    if tables:
        tables(found, comparison.equal)
    _draw(found, plot or (resume / _DRAWN[comparison.equal] if resume else None), console)
    about = {"tasks": comparison.tasks, "seeds": seeds, "watches": comparison.watches, "equal": comparison.equal}
    if comparison.quiet_s:
        about["quiet_s"] = comparison.quiet_s
    typer.echo(json.dumps(about | {"hashes": hashes} | found.as_json(), allow_nan=False))


def _real(tasks: str, footage: Path | None) -> Path | None:
    """The folder of real footage, if that is what is asked about. Raises ConfigError for one without the other."""
    if (tasks == "real") != (footage is not None):
        raise ConfigError(
            "--tasks real and --footage FOLDER go together: labelled recordings are needed, and nothing else"
        )
    if footage is not None and not (footage / "real" / "labels").is_dir():
        raise ConfigError(
            f"--footage {footage} has no real/labels; expected a folder with clips/, real/clips/, real/labels/"
        )
    return footage


def _trained(footage: Path, mllm: "MLLMConfig", resume: Path | None, console: Console) -> Path:
    """The engine that is trained on the first part of each camera's time; kept in `resume`."""
    from pipeline.lab.real_engine import trained_on

    work = resume / "learned" if resume else Path(tempfile.mkdtemp(prefix="resadapt-real-"))
    try:
        with Progress(console=console, transient=True) as progress:
            return trained_on(footage, mllm, work, _ProgressBar(progress))
    except ConnectionError as error:
        raise EngineFailed(f"{error}; the same command with --resume goes on from {work}") from error


def _check(jobs: int, seconds: float, watches: int, plot: Path | None) -> None:
    """Raise ConfigError for a number out of its range, or a picture that cannot be written."""
    if jobs < 1:
        raise ConfigError(f"--jobs is {jobs}; expected 1 or more")
    if not SECONDS[0] <= seconds <= SECONDS[1]:
        raise ConfigError(f"--seconds is {seconds:g}; expected {SECONDS[0]:g} to {SECONDS[1]:g}")
    if not 1 <= watches <= MOST_WATCHES:
        raise ConfigError(f"--watches is {watches}; expected 1 to {MOST_WATCHES}")
    if plot and (plot.suffix.lower() != ".png" or plot.is_dir() or not plot.absolute().parent.is_dir()):
        raise ConfigError(f"--plot is {plot}; expected a file .png in a folder that is there")


def _quiet(quiet_s: float, tasks: str, families: str | None) -> str | None:
    """The families that are asked with so much quiet time. Raises ConfigError where there can be none."""
    from pipeline.lab.yard import YARDS

    if not quiet_s:
        return families
    if not QUIET_S[0] <= quiet_s <= QUIET_S[1] or quiet_s % 1:
        raise ConfigError(f"--quiet-s is {quiet_s:g}; expected whole seconds from {QUIET_S[0]:g} to {QUIET_S[1]:g}")
    if tasks not in YARDS:
        raise ConfigError(f"--quiet-s is for --tasks {' and '.join(YARDS)}: {tasks} has its own times")
    if families not in (None, "watch_f1"):
        raise ConfigError(f"--families is {families}; expected watch_f1 alone with --quiet-s")
    return "watch_f1"


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
    for known in TITLES:
        if text == known:
            return known
    raise ConfigError(f"--equal is {text!r}; expected one of {', '.join(TITLES)}")


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
        """See OnProgress."""
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
