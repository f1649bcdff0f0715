"""`resadapt watch tune`: better settings of a watch, by what people said of its events."""

import json
from typing import Annotated, Any

import typer

from pipeline.cli.doors import Beside, BesideStore, door
from pipeline.cli.output import print_line, table
from pipeline.cli.remote import ApiKey, AsJson, Url
from pipeline.cli.watch_test import span_s

EXAMPLE = "Example: resadapt watch tune helmet; resadapt watch tune helmet --kept 48h --apply"


def tune(
    slug: Annotated[str, typer.Argument(help="The watch's slug.")],
    kept: Annotated[str, typer.Option("--kept", help="Use the answers kept of this time: 90m, 24h, 7d.")] = "7d",
    apply: Annotated[bool, typer.Option("--apply", help="Give the watch what is proposed.")] = False,
    config: Beside = None,
    store: BesideStore = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Propose thresholds, confirmation, duration and cooldown that agree better with its labels, judged on the answers
    that are kept, without asking the MLLM. What is expected comes from time that the settings were not chosen on. With
    --json the last line is JSON."""
    with door(config, store, None, url, key, as_json) as opened:
        found = opened.tune(slug, span_s(kept), apply)
    _show(found)
    if as_json:
        print_line(json.dumps(found, ensure_ascii=False))


SETTINGS = ("open_at", "clear_at", "confirm", "hold_s", "cooldown_s")
FIGURES = ("precision", "recall", "f1", "right", "false", "missed", "repeated")


def _show(found: dict[str, Any]) -> None:
    labels = ", ".join(f"{count} {kind}" for kind, count in found["labels"].items() if count)
    print_line(f"labels: {labels}; {found['without_answers']} times it should have been open have no answers kept")
    print_line(
        f"time: {found['reviewed_s'] / 60:.0f} min on {', '.join(found['streams'])}, from the first label to the last,"
        " all of it taken for looked at"
    )
    now, proposed, expected = found["now"], found["proposed"] or {}, found["expected"] or {}
    rows = [(name, _plain(now[name]), _plain(proposed.get(name))) for name in SETTINGS]
    table(("setting", "now", "proposed"), rows)
    if expected:
        header = ("figure", "now", "proposed, expected" if proposed else "best found, expected")
        table(header, [(name, _figure(now, name), _figure(expected, name)) for name in FIGURES])
    else:
        table(("figure", "now"), [(name, _figure(now, name)) for name in FIGURES])
    if found["reason"]:
        print_line(f"nothing is proposed: {found['reason']}")
    elif found["applied"]:
        print_line(f"applied: {found['watch']} is at revision {found['revision']} now")
    else:
        changes = " ".join(f"--set {name}={_plain(value)}" for name, value in found["changes"].items())
        print_line(f"--apply does it; so does: resadapt watch edit {found['watch']} {changes}")


def _plain(value: object) -> str:
    return json.dumps(value).replace(" ", "") if value is not None else ""


def _figure(figures: dict[str, Any], name: str) -> str:
    value, bounds = figures[name], figures["intervals"].get(name)
    if not isinstance(value, float) or not bounds:
        return _plain(value)
    return f"{value:.2f} ({bounds[0]:.2f} to {bounds[1]:.2f})"
