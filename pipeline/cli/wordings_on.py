"""Comparing wordings of a watch on recordings, and what such comparisons have found before."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.cli.doors import door
from pipeline.cli.output import ScreenColumn, notices, plain, print_line, set_up, shown, table
from pipeline.cli.tune_on import TuneOn, tune_on, wanted_of
from pipeline.errors import ConfigError, ResadaptError
from pipeline.lab.tested import RESULT


def compare_on(plan: TuneOn, slug: str, store: str | None, url: str | None, key: str | None) -> Mapping[str, Any]:
    """Compare, show what came out, and keep it where the watch is: in its service, or in the store."""
    set_up("error", people=False)
    named = plan.config, store, None, url, key, False
    wanted = wanted_of(plan.config, slug) if plan.config and plan.labels and not (store or url or key) else None
    kept_labels = ""
    if wanted is None:
        with door(*named) as opened:
            wanted, kept_labels = opened.wanted(slug), "" if plan.labels else opened.export({"watch": slug})
    tuned = tune_on(plan, slug, *wanted, kept_labels)
    _show_wordings(tuned.shown)
    try:
        with door(*named) as opened:
            opened.keep_test(slug, RESULT.dump_python(tuned.result, mode="json"))
    except (ConfigError, ResadaptError) as error:
        said = f"[yellow]not kept for `resadapt watch tune`:[/] {shown(error)}"
        notices().print(said, highlight=False, soft_wrap=True)
    return tuned.shown


def show_better(slug: str, better: Sequence[Mapping[str, Any]]) -> None:
    """Print the wordings that did better in tests, where that was, and how to have them."""
    for one in better:
        figures, now = one["figures"], one["now"]
        low, high = figures["gain_interval"]
        names = ", ".join(one["names"]) + (", ..." if one["recordings"] > len(one["names"]) else "")
        print_line(
            f"tested: {_quoted(figures['question'])} did better: F1 {figure_of(figures, 'f1')}, {figures['gain']:+.2f}"
            f" ({low:+.2f} to {high:+.2f}) over the watch's {figure_of(now, 'f1')} then; precision"
            f" {figure_of(figures, 'precision')}, recall {figure_of(figures, 'recall')}, {one['truths']} times to find,"
            f" on {plain(names)} ({one['digest']}), by {plain(one['by'])} at {one['at'][:16]}"
        )
        if one["other_settings"]:
            print_line("  the watch has other settings since, so its own figures may be better now")
        print_line(f"  to have it: resadapt watch edit {slug} {_edits(one['changes'])}")


def _show_wordings(found: Mapping[str, Any]) -> None:
    print_line(
        f"time: {found['reviewed_s'] / 60:.0f} min looked at of {found['seconds'] / 60:.0f} min in"
        f" {found['recordings']} recordings; it should have been open {found['truths']} times"
    )
    now = found["now"]
    rows = [("as it is: " + now["question"], _settings(now), *(figure_of(now, name) for name in QUALITY), "")]
    for one in found["wordings"]:
        figures = (figure_of(one["expected"], name) for name in QUALITY)
        rows.append((one["question"], _settings(one["settings"]), *figures, _gain(one["gain"])))
    table(WORDINGS, rows)
    for name, reason in found["ended_early"].items():
        table(("ended early", "why"), [(name, reason)])
    if found["proposed"]:
        print_line(f"proposed: {found['proposed']}")
    else:
        print_line(f"no other wording is proposed: {found['reason']}")
    if changes := dict(found["changes"]):
        print_line(f"to have it: resadapt watch edit {found['watch']} {_edits(changes)}")


def _edits(changes: Mapping[str, Any]) -> str:
    """Changes as options of `resadapt watch edit`."""
    return " ".join(
        f"--question {_quoted(value)}" if name == "question" else f"--set {name}={value_of(value)}"
        for name, value in changes.items()
    )


def _quoted(question: str) -> str:
    return json.dumps(question, ensure_ascii=False)


SETTINGS = ("open_at", "clear_at", "confirm", "hold_s", "cooldown_s")
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
    return " ".join(f"{name}={value_of(of[name])}" for name in SETTINGS)


def _gain(gain: Mapping[str, Any] | None) -> str:
    return f"{gain['f1']:+.2f} ({gain['interval'][0]:+.2f} to {gain['interval'][1]:+.2f})" if gain else ""


def value_of(value: object) -> str:
    """A setting as it is typed."""
    return json.dumps(value).replace(" ", "") if value is not None else ""


def figure_of(figures: Mapping[str, Any], name: str) -> str:
    """A figure with its interval."""
    value, bounds = figures[name], figures["intervals"].get(name)
    if not isinstance(value, float) or not bounds:
        return value_of(value)
    return f"{value:.2f} ({bounds[0]:.2f} to {bounds[1]:.2f})"
