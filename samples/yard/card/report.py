"""The pictures and the model card, from what was measured: `python -m samples.yard.card.report --measured FILE ...`.

Each FILE holds the last line of `python -m samples.yard.card.evaluate`. Needs matplotlib (the extra `train`).
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from pydantic import BaseModel

from pipeline.build import YARD
from samples.yard.card.evaluate import Measured, hashes
from samples.yard.world.scene import Scene

HERE = Path(__file__).parents[1]
PICTURES = HERE / "pictures"
SHEET_SEEDS = range(800_000, 800_400)
SHEET_ROWS = ("day", "dusk", "night", "rain")
SHEET_COLUMNS = 4
CURVE_FAMILIES = ("coarse", "fine", "grounding", "watches F1")


class Summary(BaseModel):
    """The last line of an evaluation."""

    seeds: str
    hashes: dict[str, str]
    settings: dict[str, Measured]


def contact_sheet(file: Path) -> None:
    """Moments with much to see: one row each of day, dusk, night and rain."""
    found: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]] = {row: [] for row in SHEET_ROWS}
    for seed in SHEET_SEEDS:
        scene = Scene(seed)
        first = scene.look(0.0).facts
        row = "rain" if first.rain else first.light
        if len(found[row]) < SHEET_COLUMNS:
            looks = [scene.look(float(second)) for second in range(0, 32, 2)]
            found[row].append(max(looks, key=lambda look: len(look.facts.visible)).pixels)
        if all(len(pictures) == SHEET_COLUMNS for pictures in found.values()):
            break
    sheet = np.vstack([np.hstack(found[row]) for row in SHEET_ROWS])
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])


def reliability_plot(file: Path, setting: Measured) -> None:
    """Plot the share of times that a watch's condition held, by the score it was given."""
    from matplotlib.figure import Figure as Canvas  # type: ignore[import-not-found,unused-ignore] # an extra

    canvas = Canvas(figsize=(4.2, 4), layout="constrained")
    axes = canvas.add_subplot()
    said, true, counts = zip(*setting.reliability, strict=True)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot(said, true, marker="o")
    for x, y, count in zip(said, true, counts, strict=True):
        axes.annotate(str(count), (x, y), textcoords="offset points", xytext=(5, -10), fontsize=7)
    axes.set(xlabel="score of a watch", ylabel="share that is true", title=f"ECE {setting.calibration_error:.3f}")
    canvas.savefig(file, dpi=130)


def scale_plot(file: Path, scales: Mapping[float, Measured]) -> None:
    """Accuracy against the linear scale of every frame, with 95 % intervals."""
    from matplotlib.figure import Figure as Canvas  # type: ignore[import-not-found,unused-ignore] # an extra

    canvas = Canvas(figsize=(5.5, 4), layout="constrained")
    axes = canvas.add_subplot()
    ordered = sorted(scales)
    for name in CURVE_FAMILIES:
        figures = [scales[scale].families[name] for scale in ordered]
        values = [figure.value for figure in figures]
        spread = [
            [figure.value - figure.lo for figure in figures],
            [figure.hi - figure.value for figure in figures],
        ]
        axes.errorbar(ordered, values, yerr=spread, marker="o", capsize=2, label=name)
    axes.set(xlabel="linear scale of every frame", ylabel="accuracy, tIoU or F1", ylim=(0, 1))
    axes.legend()
    canvas.savefig(file, dpi=130)


def accuracy_table(settings: Sequence[Measured]) -> str:
    """Markdown: families down, settings across."""
    head = " | ".join(f"{one.setting} ({one.tokens:.1%} of native tokens)" for one in settings)
    lines = [f"| family | {head} | majority |", "|---" * (len(settings) + 2) + "|"]
    for name, first in settings[0].families.items():
        cells = " | ".join(one.families[name].text() if name in one.families else "-" for one in settings)
        lines.append(f"| {name} | {cells} | {100 * first.majority:.1f} |")
    errors = " | ".join(f"{one.calibration_error:.3f}" for one in settings)
    return "\n".join([*lines, f"| calibration error of watches | {errors} | |"])


def fill(card: str, table: str, measured_on: Mapping[str, str], seeds: str) -> str:
    """The card with its measured part between the two marks written anew. Raises ValueError if it lacks them."""
    begin, end = "<!-- measured -->", "<!-- end of measured -->"
    if begin not in card or end not in card:
        raise ValueError(f"the card lacks the line {begin!r} or {end!r}; expected both, to write between them")
    named = ", ".join(f"{part} `{value}`" for part, value in measured_on.items())
    middle = f"{begin}\n\nSeeds {seeds}. Hashes: {named}.\n\n{table}\n\n{end}"
    return card[: card.index(begin)] + middle + card[card.index(end) + len(end) :]


_NAMED = re.compile(r"(\w+) `(\w+)`")


def measured_on(card: str) -> dict[str, str]:
    """The hashes that a card names. Raises ValueError for a card without any."""
    line = next((line for line in card.splitlines() if "Hashes: " in line), None)
    if line is None:
        raise ValueError("the card names no hashes; expected a line with 'Hashes: PART `VALUE`, ...'")
    return dict(_NAMED.findall(line.partition("Hashes: ")[2]))


def stale(summaries: Sequence[Summary], checkpoint: Path) -> str | None:
    """A line about the first summary that was measured on something else than what is here now, or None."""
    now = hashes(checkpoint)
    other = next((summary.hashes for summary in summaries if summary.hashes != now), None)
    return f"measured on {other}, but this is {now}: measure again" if other else None


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m samples.yard.card.report", description=__doc__)
    parser.add_argument("--measured", type=Path, nargs="*", default=[], help="last lines of evaluations, one a file")
    given = parser.parse_args()
    contact_sheet(PICTURES / "contact-sheet.jpg")
    summaries = [Summary.model_validate(json.loads(file.read_text().splitlines()[-1])) for file in given.measured]
    settings = {name: setting for summary in summaries for name, setting in summary.settings.items()}
    if "native" not in settings:
        return
    if fault := stale(summaries, YARD):
        raise SystemExit(fault)
    reliability_plot(PICTURES / "reliability.png", settings["native"])
    scales = {1.0: settings["native"]} | {
        float(name.removeprefix("scale ")): setting for name, setting in settings.items() if name.startswith("scale ")
    }
    if "quarter" in settings:
        scales[0.25] = settings["quarter"]
    scale_plot(PICTURES / "accuracy-by-scale.png", scales)
    card = YARD / "README.md"
    columns = [setting for name, setting in settings.items() if not name.startswith("scale ")]
    seeds = "; ".join(f"{summary.seeds} ({', '.join(summary.settings)})" for summary in summaries)
    text = fill(card.read_text(encoding="utf-8"), accuracy_table(columns), summaries[0].hashes, seeds)
    card.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
