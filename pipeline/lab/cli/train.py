"""`resadapt-allocator train`: a network learns from a frozen MLLM's answers; stopped at any moment, it goes on."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from allocator_engine.errors import EngineFailed, EngineMissing
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from allocator_engine.train.learner import Learner
    from allocator_engine.train.progress import Record
    from allocator_engine.train.recipes import Recipe
    from pipeline.lab.training import Material

CURVES_EVERY = 50
"""Steps between two drawings of the curves."""

_SHOWN = ("loss", "transitions", "reward", "cost", "pivot", "entropy", "tokens", "skipped")
_COUNTS = ("tokens", "skipped")
_CONFIGS = ("stream", "paper")


@dataclass(frozen=True, slots=True)
class Options:
    """The command line's choice of clips and answers, and of what learns from them."""

    recipe: str
    work: Path
    recordings: Path | None
    watches: Path | None
    labels: Path | None
    data: Path | None
    mllm: str | None
    config: str
    features: str | None
    encoder: str | None
    device: str | None
    threads: int
    seed: int


def train(
    recipe: Annotated[
        str, typer.Option(help="yard, site (recordings; labels if there are any) or qa (a video-QA file).")
    ],
    work: Annotated[Path, typer.Option(help="Folder for state, log and native answers; resumed if it has some.")],
    out: Annotated[Path, typer.Option(help="Folder for allocator.safetensors and curves.png.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in all; the recipe's own by default.")] = None,
    stop_at: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many steps and write what is there.")
    ] = None,
    ablation: Annotated[str | None, typer.Option(help="Leave one thing out, by name.")] = None,
    recordings: Annotated[Path | None, typer.Option(help="site: folder of recordings.")] = None,
    watches: Annotated[Path | None, typer.Option(help="site: a site file, or its `watches:` alone.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="site: CSV as truth: watch,file,start_s,end_s, or of `resadapt label export`.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="qa: .jsonl or .parquet; videos by path.")] = None,
    mllm: Annotated[str | None, typer.Option(help="site, qa: the MLLM that answers; see `resadapt run`.")] = None,
    config: Annotated[str, typer.Option(help="stream, or paper: SmolVLM2's features, for its curves.")] = "stream",
    features: Annotated[str | None, typer.Option(help="paper: folder or hub name of a SmolVLM2.")] = None,
    encoder: Annotated[str | None, typer.Option(help="A sentence encoder in place of the own one.")] = None,
    prompts: Annotated[int | None, typer.Option(min=1, help="Episodes of a step.")] = None,
    group: Annotated[int | None, typer.Option(min=2, help="Allocations of an episode.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights, budgets and actions.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="yard: threads that ask the MLLM.")] = 2,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
) -> None:
    """Train an allocator from a frozen MLLM's answers (CAPO). The same command goes on where it was stopped."""
    options = Options(
        recipe, work, recordings, watches, labels, data, mllm, config, features, encoder, device, threads, seed
    )
    chosen = _chosen(options, ablation, steps, prompts, group)
    _train(options, chosen, stop_at, out, Console(stderr=True))


def _train(options: Options, recipe: "Recipe", stop_at: int | None, out: Path, console: Console) -> None:
    """Train, and write the checkpoint and the curves into `out`."""
    import torch

    from pipeline.logs import set_up_logs
    from pipeline.mllm.transformers.loading import device_of

    set_up_logs("warning")
    options = replace(options, device=options.device and str(device_of(options.device)))
    out.mkdir(parents=True, exist_ok=True)  # rather than after hours
    torch.set_num_threads(1)  # each thread that asks has one of its own
    torch.manual_seed(options.seed)
    with _material(options, recipe) as material:
        for remark in material.remarks:
            console.print(escape(remark), highlight=False, soft_wrap=True)
        learner = _learner(options, recipe, material.slots)
        records = _run(recipe, learner, material, options.work, stop_at, console)
    notes = {
        "recipe": recipe.config.name,
        "steps": str(len(records)),
        "seed": str(options.seed),
        "reward": material.outside.answerer.reward_kind,
        **material.notes,
    }
    _write(learner, notes, out)
    _draw(records, out, console)
    console.print(escape(f"{out / 'allocator.safetensors'}: {_figures(records)}"), highlight=False, soft_wrap=True)


def _chosen(
    options: Options, ablation: str | None, steps: int | None, prompts: int | None, group: int | None
) -> "Recipe":
    """The recipe with what the command line changes. Raises ConfigError naming what is known, missing or too much."""
    from allocator_engine.train.recipes import ABLATIONS, OF_THE_NETWORK, RECIPES

    recipe = RECIPES[_known("--recipe", options.recipe, tuple(RECIPES))]()
    needed = {"yard": (), "site": ("recordings", "watches"), "qa": ("data", "mllm")}[options.recipe]
    of_site = ("recordings", "watches", "labels", "mllm")
    taken = {"yard": (), "site": of_site, "qa": ("data", "mllm", "watches")}[options.recipe]
    if lacking := [name for name in needed if getattr(options, name) is None]:
        raise ConfigError(f"--recipe {options.recipe} needs --{lacking[0]}")
    given = [name for name in (*of_site, "data") if getattr(options, name) is not None]
    if strange := [name for name in given if name not in taken]:
        raise ConfigError(f"--recipe {options.recipe} takes no --{strange[0]}")
    _known("--config", options.config, _CONFIGS)
    if (options.config == "paper") != (options.features is not None):
        raise ConfigError("--config paper needs --features, the folder or hub name of a SmolVLM2, and stream has none")
    if options.config == "paper" and (options.encoder or ablation in OF_THE_NETWORK):
        raise ConfigError(f"--config paper has its own text features and no {', '.join(OF_THE_NETWORK)}")
    if ablation is not None:
        recipe = ABLATIONS[_known("--ablation", ablation, tuple(ABLATIONS))](recipe)
    own = recipe.config
    wanted = steps or own.steps
    cycles = () if options.config == "paper" else [wanted * cycle // own.steps for cycle in own.grounding]
    changed = replace(own, steps=wanted, grounding=tuple(filter(None, cycles)), seed=options.seed)
    changed = replace(changed, group=group or own.group, prompts_per_step=prompts or own.prompts_per_step)
    return replace(recipe, config=replace(changed, prompts_per_update=min(own.prompts_per_update, prompts or 1024)))


def _known(option: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise ConfigError(f"{option} is {name!r}; expected one of {', '.join(known)}")
    return name


def _material(options: Options, recipe: "Recipe") -> "AbstractContextManager[Material]":
    from pipeline.lab import training

    prompts = recipe.config.prompts_per_step
    if options.recipe == "yard":
        from pipeline.lab.yard import yard

        return yard(prompts, options.threads, options.device or "cpu")
    site = training.site_of(options.watches, options.mllm, options.device)
    if options.recipe == "site":
        assert options.recordings is not None
        return training.site(options.recordings, site, options.work, prompts, options.labels)
    assert options.data is not None
    return training.qa(options.data, site, options.work, prompts)


def _learner(options: Options, recipe: "Recipe", slots: int) -> "Learner":
    """The learner, with its first weights, on its device."""
    import torch

    from allocator_engine.train.learner import StreamLearner

    device = options.device or "cpu"
    if options.features is not None:
        from allocator_engine.model.paper import PaperHead, PaperShape
        from allocator_engine.model.paper_features import SmolFeatures
        from allocator_engine.train.paper_learner import PaperLearner

        features = SmolFeatures(options.features, device)
        return PaperLearner(PaperHead(PaperShape(inputs=features.width)), features).to(device)
    from allocator_engine.model.network import StreamNetwork
    from allocator_engine.model.query import QueryEncoder
    from allocator_engine.model.sentence import PretrainedEncoder

    torch.manual_seed(options.seed)
    network = StreamNetwork(replace(recipe.shape, foresees=bool(recipe.config.grounding)))
    encoder = PretrainedEncoder(options.encoder) if options.encoder else QueryEncoder()
    return StreamLearner(network, encoder, slots).to(device)


def _run(
    recipe: "Recipe", learner: "Learner", material: "Material", work: Path, stop_at: int | None, console: Console
) -> "list[Record]":
    """Train under a progress bar; the curves so far are drawn into `work`."""
    from allocator_engine.train.capo import train as run

    figures = TextColumn("{task.fields[figures]}")
    with Progress(BarColumn(10), MofNCompleteColumn(), figures, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("", total=min(recipe.config.steps, stop_at or recipe.config.steps), figures="")

        def on_step(records: "Sequence[Record]") -> None:
            progress.update(bar, completed=len(records), figures=_figures(records))
            if len(records) % CURVES_EVERY == 0:
                _draw(records, work, console)

        try:
            return run(recipe.config, learner, material.outside, work, stop_at=stop_at, on_step=on_step)
        except ConnectionError as error:
            raise EngineFailed(f"{error}; the same command goes on from the state in {work}") from error


def _figures(records: "Sequence[Record]") -> str:
    """The newest figures of the log, in words."""
    newest = {name: float(record[name]) for record in records[-1:] for name in _SHOWN if name in record}
    if not newest.get("skipped"):
        newest.pop("skipped", None)
    return " ".join(f"{name} {value:.{0 if name in _COUNTS else 2}f}" for name, value in newest.items())


def _write(learner: "Learner", notes: dict[str, str], out: Path) -> None:
    from allocator_engine.model import paper
    from allocator_engine.model.checkpoint import Checkpoint, save
    from allocator_engine.train.learner import StreamLearner
    from allocator_engine.train.paper_learner import PaperLearner

    file = out / "allocator.safetensors"
    if isinstance(learner, StreamLearner):
        save(Checkpoint(learner.network, learner.encoder, notes), file)
    elif isinstance(learner, PaperLearner):
        features = learner.features
        paper.save(learner.head, notes | {"features": features.name, "weights": features.weights}, file)


def _draw(records: "Sequence[Record]", folder: Path, console: Console) -> None:
    from allocator_engine.train.curves import draw

    try:
        draw(records, folder / "curves.png")
    except EngineMissing as error:
        console.print(escape(str(error)), highlight=False, soft_wrap=True)
