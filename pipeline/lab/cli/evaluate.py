"""`resadapt-allocator evaluate`: allocators compared at equal realised tokens or rates, as table, plot and JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID

from allocator_engine.errors import EngineFailed, EngineMissing
from allocator_engine.evaluate.frontier import Frontier
from allocator_engine.evaluate.run import ALLOCATORS, OFFLINE, WITHOUT_TEXT, Equal
from allocator_engine.evaluate.tasks import FAMILIES, parse_seeds
from allocator_engine.manifest import FILE_NAME, SHIPPED, read, verified
from pipeline.errors import ConfigError
from pipeline.lab.cli.real_options import RealOptions, minutes_of, real_folder, trained
from pipeline.lab.cli.real_tables import print_real_tables
from pipeline.lab.cli.tables import TITLES, print_tables
from pipeline.lab.trained_engines import TrainedEngines

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
    allocators: Annotated[
        str | None,
        typer.Option(
            help=f"Some of {', '.join(ALLOCATORS)}; all by default. Of a video-QA file also {OFFLINE}:CHECKPOINT, the"
            " paper's, which sees a clip as a whole."
        ),
    ] = None,
    families: Annotated[str | None, typer.Option(help=f"Some of {', '.join(FAMILIES)}; all by default.")] = None,
    engine: Annotated[Path | None, typer.Option(help="engine.json of `learned`, or its folder.")] = None,
    gaze: Annotated[
        Path | None, typer.Option(help="The engine of `gaze`, which was trained without text (`train --ablation`).")
    ] = None,
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
    minutes: Annotated[
        str | None,
        typer.Option(help="real: train on so many minutes too (1,2,3), from the shipped engine and nothing."),
    ] = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="real: `learned:general`, trained on the other cameras, for each.")
    ] = False,
    grounding: Annotated[
        int | None, typer.Option(min=1, help="real: steps of a training that learn what changes.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="real: steps of a training behind its grounding.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the last line only: the points as JSON.")] = False,
) -> None:
    """Compare allocators at equal tokens (or rates): accuracy by budget, with paired 95 % intervals over episodes.

    Of real footage the first 60 % of each camera's time trains `learned`, unless --engine names one, and `gaze` where
    it is among --allocators; the rest tests.
    """
    from pipeline.lab.comparison import REAL, Comparison

    _check(jobs, seconds, watches, plot)
    families = _quiet(quiet_s, tasks, families)
    options = RealOptions(minutes, leave_out, grounding, steps)
    real = real_folder(tasks, footage, options)
    asked = _mllm(mllm or (f"detector:{real / 'real' / 'models'}" if real else "yard"), device)
    names, paper = _offline(allocators or (REAL_ALLOCATORS if real else None), tasks)
    chosen = () if paper and not names else _some("--allocators", names, ALLOCATORS)
    shares = _budgets(budgets or (REAL_BUDGETS if real else BUDGETS))
    kinds, fair = _some("--families", families, FAMILIES), _equal(equal)
    engines = _named(engine, gaze, against or ())
    console = Console(stderr=True)
    if real is not None:
        with Progress(console=console, transient=True) as progress:
            engines = trained(real, asked, resume, chosen, options, engines, _ProgressBar(progress))
    elif engine is None and (SHIPPED / FILE_NAME).exists():
        engines = replace(engines, learned=SHIPPED)
    comparison = Comparison(
        tasks=tasks,
        seeds=parse_seeds(seeds),
        seconds=seconds,
        budgets=shares,
        allocators=_able(chosen, engines, console, named=allocators is not None),
        families=kinds,
        engine=engines.learned,
        mllm=asked,
        watches=watches,
        equal=fair,
        against=engines.others,
        footage=real,
        quiet_s=quiet_s,
        by_clip=engines.by_clip,
        paper=paper,
    )
    tables = partial(print_real_tables, minutes=minutes_of(minutes)) if tasks == REAL else print_tables
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


def _able(names: tuple[str, ...], engines: TrainedEngines, console: Console, *, named: bool) -> tuple[str, ...]:
    """Those that have an engine if they need one, with a word about the others, unless these were `named`."""
    unable = [name for name in names if name.startswith("learned") and engines.learned is None]
    unable += [name for name in names if name == WITHOUT_TEXT and name not in engines.others]
    if unable and named:
        option = "--gaze" if unable[0] == WITHOUT_TEXT else "--engine"
        raise ConfigError(f"the allocator {unable[0]} needs an engine, and none is shipped; name one with {option}")
    if unable:
        console.print(
            f"without {' and '.join(unable)}: no engine is shipped; name one with --engine or --gaze", highlight=False
        )
    return tuple(name for name in names if name not in unable)


def _named(engine: Path | None, gaze: Path | None, against: Sequence[str]) -> TrainedEngines:
    """The engines that the command line names, by their allocators. Raises ConfigError, also for an engine of `gaze`
    that listens to queries."""
    from allocator_engine.runtime import load_checkpoint

    others: dict[str, Path] = {}
    if gaze is not None:
        if load_checkpoint(verified(gaze, read(gaze).checkpoint)).network.shape.listens:
            raise ConfigError(
                f"--gaze is {gaze}, which listens to queries; expected an engine that was trained without them"
                " (`resadapt-allocator train --ablation without_text`), or learned-no-text among --allocators"
            )
        others[WITHOUT_TEXT] = gaze
    for text in against:
        name, _, path = text.partition("=")
        allocator = f"learned:{name}"
        if not name or not path:
            raise ConfigError(f"--against is {text!r}; expected NAME=ENGINE, such as before=old/engine.json")
        if allocator in others:
            raise ConfigError(f"--against names {name!r} twice; give each engine a name of its own")
        others[allocator] = Path(path)
    return TrainedEngines(engine, others)


def _offline(text: str | None, tasks: str) -> tuple[str | None, Path | None]:
    """The names of allocators without the paper's, and its checkpoint if it is among them."""
    from pipeline.lab.comparison import REAL
    from pipeline.lab.yard import YARDS

    names = [name.strip() for name in text.split(",")] if text is not None else []
    own = [name for name in names if name.partition(":")[0] == OFFLINE]
    if not own:
        return text, None
    found = [name.removeprefix(f"{OFFLINE}:") for name in own]
    if len(found) > 1 or not Path(found[0]).is_file():
        raise ConfigError(
            f"--allocators names {' and '.join(own)}; expected one checkpoint, as `resadapt-allocator train --config"
            f" {OFFLINE}` writes it: {OFFLINE}:FOLDER/allocator.safetensors"
        )
    if tasks in (*YARDS, REAL):
        raise ConfigError(
            f"--allocators names {OFFLINE}:{found[0]}, which sees a clip as a whole before it begins, and --tasks"
            f" {tasks} has watches that have to be answered while it plays; expected a video-QA file"
        )
    return ",".join(name for name in names if name not in own), Path(found[0])


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
