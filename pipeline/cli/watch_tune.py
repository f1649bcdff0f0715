"""`resadapt watch tune`: better settings and words of a watch, by what people said of its events."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.doors import Beside, BesideStore, door
from pipeline.cli.output import print_line, table
from pipeline.cli.remote import ApiKey, AsJson, Url
from pipeline.cli.tune_on import TuneOn
from pipeline.cli.watch_test import span_s
from pipeline.cli.wordings_on import SETTINGS, compare_on, figure_of, show_better, value_of
from pipeline.errors import ConfigError

EXAMPLE = (
    "Example: resadapt watch tune helmet --kept 48h --apply; resadapt watch tune helmet --on recordings/"
    ' --wording "is a person without a helmet in view?"'
)


def tune(
    slug: Annotated[str, typer.Argument(help="The watch's slug.")],
    kept: Annotated[str, typer.Option("--kept", help="Use the answers kept of this time: 90m, 24h, 7d.")] = "7d",
    apply: Annotated[bool, typer.Option("--apply", help="Give the watch what is proposed.")] = False,
    on: Annotated[Path | None, typer.Option("--on", help="Ask over a recording, or a folder of them, instead.")] = None,
    wording: Annotated[
        list[str] | None, typer.Option("--wording", help="With --on: compare this question too; may be repeated.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="With --on: CSV of file,start_s,end_s, or of `label export`; by default the labels kept."),
    ] = None,
    mllm: Annotated[str | None, typer.Option(help="With --on: as of `resadapt run`.")] = None,
    config: Beside = None,
    store: BesideStore = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Propose thresholds, confirmation, duration and cooldown that agree better with its labels, judged on the answers
    that are kept, without asking the MLLM; with --on, judged on recordings over which it is asked, other wordings side
    by side. What is expected comes from time that the settings were not chosen on. With --json the last line is
    JSON."""
    if on is None and (wording or labels or mllm):
        raise ConfigError("--wording, --labels and --mllm need recordings to ask over; expected --on FILE_OR_FOLDER")
    if on is not None and apply:
        raise ConfigError(
            "--apply gives a watch what kept answers say; what --on proposes is for `resadapt watch edit`"
        )
    if on is None:
        with door(config, store, None, url, key, as_json) as opened:
            try:
                found = opened.tune(slug, span_s(kept), apply)
            except ConfigError:
                show_better(slug, opened.tested(slug)["better"])  # they need no labels of what is kept
                raise
        _show(found)
        show_better(slug, found["tested"])
    else:
        found = compare_on(TuneOn(on, wording or (), labels, mllm, config), slug, store, url, key)
    if as_json:
        print_line(json.dumps(found, ensure_ascii=False))


FIGURES = ("precision", "recall", "f1", "right", "false", "missed", "repeated")


def _show(found: dict[str, Any]) -> None:
    labels = ", ".join(f"{count} {kind}" for kind, count in found["labels"].items() if count)
    print_line(f"labels: {labels}; {found['without_answers']} times it should have been open have no answers kept")
    print_line(
        f"time: {found['reviewed_s'] / 60:.0f} min on {', '.join(found['streams'])}, from the first label to the last,"
        " all of it taken for looked at"
    )
    now, proposed, expected = found["now"], found["proposed"] or {}, found["expected"] or {}
    rows = [(name, value_of(now[name]), value_of(proposed.get(name))) for name in SETTINGS]
    table(("setting", "now", "proposed"), rows)
    if expected:
        header = ("figure", "now", "proposed, expected" if proposed else "best found, expected")
        table(header, [(name, figure_of(now, name), figure_of(expected, name)) for name in FIGURES])
    else:
        table(("figure", "now"), [(name, figure_of(now, name)) for name in FIGURES])
    if found["reason"]:
        print_line(f"nothing is proposed: {found['reason']}")
    elif found["applied"]:
        print_line(f"applied: {found['watch']} is at revision {found['revision']} now")
    else:
        changes = " ".join(f"--set {name}={value_of(value)}" for name, value in found["changes"].items())
        print_line(f"--apply does it; so does: resadapt watch edit {found['watch']} {changes}")
