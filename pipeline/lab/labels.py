"""When something was so on recordings, as people label it, and how well the events of a watch agree with that."""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ConfigError
from pipeline.types import Json

MOST_LABELS = 100_000
COLUMNS = ("file", "start_s", "end_s")
_RESAMPLES = 1000
_SEED = 5


@dataclass(frozen=True, slots=True)
class OpenSpan:
    """Seconds `[start_s, end_s)` of a recording in which a watch's condition holds, or its watch was open; `seen_s` is
    when it was known."""

    start_s: float
    end_s: float
    seen_s: float = 0.0

    def meets(self, other: "OpenSpan", slack_s: float) -> bool:
        """True if the spans overlap, or come within `slack_s` seconds of it."""
        return self.start_s < other.end_s + slack_s and other.start_s < self.end_s + slack_s


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of the events and labels of a watch: precision, recall and F1 (0 to 1, None where there is nothing to
    compute them from), each with a 95 % bootstrap interval, and the median delay in seconds."""

    precision: float | None
    recall: float | None
    f1: float | None
    delay_p50_s: float | None
    intervals: Mapping[str, tuple[float, float]]

    def as_json(self) -> dict[str, Json]:
        """For programs."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "delay_p50_s": self.delay_p50_s,
            "intervals": {name: list(bounds) for name, bounds in self.intervals.items()},
        }


def read_labels(path: Path, names: Sequence[str]) -> dict[str, list[OpenSpan]]:
    """Labels by recording, from CSV with the columns file, start_s and end_s; `file` may be left out where there is one
    recording. Raises ConfigError naming the line."""
    found: dict[str, list[OpenSpan]] = {name: [] for name in names}
    for number, row in rows_of(path):
        name, span = label_of(row, names, f"{path}, line {number}")
        found[name].append(span)
    return found


def rows_of(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a file of labels with their line numbers. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the labels {path} cannot be read: {error}") from error
    return rows_in(text, str(path))


def rows_in(text: str, where: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of labels as text, `where` names it. Raises ConfigError."""
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), restval=""))
    except csv.Error as error:
        raise ConfigError(f"the labels {where} cannot be read: {error}") from error
    if len(rows) > MOST_LABELS:
        raise ConfigError(f"{where} holds {len(rows)} labels; expected at most {MOST_LABELS}")
    return list(enumerate(rows, 2))


def label_of(row: Mapping[str, str], names: Sequence[str], where: str) -> tuple[str, OpenSpan]:
    """The recording of a row, one of some names, and its span. Raises ConfigError, which says `where` it stands."""
    name = row.get("file") or (names[0] if len(names) == 1 else "")
    if name not in names:
        raise ConfigError(f"{where}: file is {name[:80]!r}; the recordings are {', '.join(names[:10])}")
    start_s, end_s = (_seconds(row.get(column), column, where) for column in ("start_s", "end_s"))
    if not 0 <= start_s < end_s:
        raise ConfigError(f"{where}: start_s is {start_s:g} and end_s {end_s:g}; expected 0 or more, and an end later")
    return name, OpenSpan(start_s, end_s)


def _seconds(text: str | None, column: str, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(
            f"{where}: {column} is {(text or '')[:40]!r}; expected seconds; columns are {', '.join(COLUMNS)}"
        )
    return value


def check_inside(
    labels: Mapping[str, Sequence[OpenSpan]], lengths_s: Mapping[str, float], slack_s: float = 1.0
) -> None:
    """Raise ConfigError for a label that lies outside of its recording."""
    for name, spans in labels.items():
        for span in spans:
            if span.end_s > lengths_s[name] + slack_s:
                raise ConfigError(
                    f"a label of {name} goes from {span.start_s:g} to {span.end_s:g} s, but the recording has"
                    f" {lengths_s[name]:.1f} s; expected labels inside of it"
                )


def agree(
    events: Mapping[str, Sequence[OpenSpan]], labels: Mapping[str, Sequence[OpenSpan]], slack_s: float = 1.0
) -> Agreement:
    """The agreement of events with labels: an event is right if it meets a label, and a label found if an event meets
    it, each within `slack_s`. The delay runs from a label's start to the time at which its first event was known."""
    right, found, delays_s = list[float](), list[float](), list[float]()
    for name, truths in labels.items():
        told = events.get(name, ())
        right += [float(any(event.meets(truth, slack_s) for truth in truths)) for event in told]
        for truth in truths:
            met = [event for event in told if event.meets(truth, slack_s)]
            found.append(float(bool(met)))
            delays_s += [max(0.0, min(event.seen_s for event in met) - truth.start_s)] if met else []
    precision, recall = (statistics.fmean(one) if one else None for one in (right, found))
    f1 = None if precision is None or recall is None else _f1(precision, recall)
    delay_s = round(statistics.median(delays_s), 3) if delays_s else None
    return Agreement(precision, recall, f1, delay_s, _intervals(np.array(right), np.array(found)))


def _intervals(
    right: "np.ndarray[tuple[int], np.dtype[np.float64]]", found: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> dict[str, tuple[float, float]]:
    if not len(right) or not len(found):
        return {}
    rng = np.random.default_rng(_SEED)
    drawn = {
        "precision": [float(rng.choice(right, len(right)).mean()) for _ in range(_RESAMPLES)],
        "recall": [float(rng.choice(found, len(found)).mean()) for _ in range(_RESAMPLES)],
    }
    drawn["f1"] = [_f1(p, r) for p, r in zip(drawn["precision"], drawn["recall"], strict=True)]
    bounds = {name: np.percentile(values, [2.5, 97.5]).tolist() for name, values in drawn.items()}
    return {name: (round(low, 4), round(high, 4)) for name, (low, high) in bounds.items()}


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
