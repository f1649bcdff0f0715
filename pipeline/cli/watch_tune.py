"""`resadapt watch tune`: better settings and words of a watch, by what people said of its events."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.doors import Beside, BesideStore, door
from pipeline.cli.output import ScreenColumn, print_line, set_up, table
from pipeline.cli.remote import ApiKey, AsJson, Url
from pipeline.cli.tune_on import TuneOn, tune_on, wanted_of
from pipeline.cli.watch_test import span_s
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
            found = opened.tune(slug, span_s(kept), apply)
        _show(found)
    else:
        set_up("error", people=False)
        wanted = wanted_of(config, slug) if config and labels and not (store or url or key) else None
        kept_labels = ""
        if wanted is None:
            with door(config, store, None, url, key, as_json) as opened:
                wanted, kept_labels = opened.wanted(slug), "" if labels else opened.export({"watch": slug})
        found = tune_on(TuneOn(on, wording or (), labels, mllm, config), slug, *wanted, kept_labels)
        _show_wordings(found)
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


def _show_wordings(found: Mapping[str, Any]) -> None:
    print_line(
        f"time: {found['reviewed_s'] / 60:.0f} min looked at of {found['seconds'] / 60:.0f} min in"
        f" {found['recordings']} recordings; it should have been open {found['truths']} times"
    )
    now = found["now"]
    rows = [("as it is: " + now["question"], _settings(now), *(_figure(now, name) for name in QUALITY), "")]
    for one in found["wordings"]:
        figures = (_figure(one["expected"], name) for name in QUALITY)
        rows.append((one["question"], _settings(one["settings"]), *figures, _gain(one["gain"])))
    table(WORDINGS, rows)
    for name, reason in found["ended_early"].items():
        table(("ended early", "why"), [(name, reason)])
    if found["proposed"]:
        print_line(f"proposed: {found['proposed']}")
    else:
        print_line(f"no other wording is proposed: {found['reason']}")
    if changes := dict(found["changes"]):
        question = changes.pop("question", None)
        words = [f"--question {json.dumps(question, ensure_ascii=False)}"] if question else []
        words += [f"--set {name}={_plain(value)}" for name, value in changes.items()]
        print_line(f"to have it: resadapt watch edit {found['watch']} {' '.join(words)}")


QUALITY = ("precision", "recall", "f1")
WORDINGS = (
    ScreenColumn("question", 9, text=True),
    ScreenColumn("settings", 3, text=True),
    ScreenColumn("precision", 5),
    ScreenColumn("recall", 6),
    ScreenColumn("F1", 8),
    ScreenColumn("gain", 7),
)


def _settings(of: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_plain(of[name])}" for name in SETTINGS)


def _gain(gain: Mapping[str, Any] | None) -> str:
    return f"{gain['f1']:+.2f} ({gain['interval'][0]:+.2f} to {gain['interval'][1]:+.2f})" if gain else ""


def _plain(value: object) -> str:
    return json.dumps(value).replace(" ", "") if value is not None else ""


def _figure(figures: Mapping[str, Any], name: str) -> str:
    value, bounds = figures[name], figures["intervals"].get(name)
    if not isinstance(value, float) or not bounds:
        return _plain(value)
    return f"{value:.2f} ({bounds[0]:.2f} to {bounds[1]:.2f})"
