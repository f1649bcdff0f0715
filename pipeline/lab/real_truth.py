"""Real footage with truth that people made: which statements hold in which frame of which camera.

A folder holds recordings in `clips/` and `real/clips/`, and what is true of them in `real/labels/`: `clips.json` has
the first and last frame of each interval in which a statement holds, `NAME.boxes.csv` the boxes of people in each frame
of a recording NAME.
"""

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allocator_engine.evaluate.tasks import Span
from pipeline.errors import ConfigError
from pipeline.sources.address import RECORDING_SUFFIXES
from pipeline.types import Zone

SETTLED_S = 1.0
"""A change of truth that lasts for less is not decided either way."""

UNKNOWN = -1

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_COLOURS = ("white", "gray", "grey", "yellow", "red", "green", "blue", "black")
_VERBS = {"is": "Is {} {}?", "are": "Are {} {}?"}
_QUANTILES = (20, 40, 60, 80)
_ROWS, _COLUMNS = ("upper", "lower"), ("left", "middle", "right")
_HALVES, _THIRDS = (0.0, 0.5, 1.0), (0.0, 0.34, 0.66, 1.0)  # whole per cents, as a zone is said
_BOX_COLUMNS = ("frame", "left_px", "top_px", "width_px", "height_px")

Known = NDArray[np.int8]
"""int8 `[frames]`: 1 where a statement holds, 0 where it does not, UNKNOWN where nobody decided."""


@dataclass(frozen=True, slots=True)
class StatedTruth:
    """A question, the part of its family that is counted apart (`presence`, `count`, `zone`, `colour`), and its truth
    in each frame."""

    text: str
    split: str
    known: Known = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LabelledRecording:
    """A camera's recording and what is true of it; `frames` as the labels count them."""

    file: Path
    frames: int
    truths: tuple[StatedTruth, ...]

    @property
    def name(self) -> str:
        """The camera's name."""
        return self.file.stem


def read_labelled(folder: Path, size_of: Callable[[Path], tuple[int, int]]) -> tuple[LabelledRecording, ...]:
    """The labelled recordings of a folder, by name. `size_of` gives (height, width) in px of a recording, in which
    boxes are counted.

    Raises ConfigError naming the file for labels that cannot be read, that lie outside of their recording, or of a
    recording that is not there.
    """
    labels = folder / "real" / "labels"
    files = {
        file.name: file
        for place in ("clips", "real/clips")
        for file in sorted((folder / place).glob("*"))
        if file.suffix.lower() in RECORDING_SUFFIXES
    }
    stated = _read_json(labels / "clips.json") if (labels / "clips.json").exists() else {}
    found = [
        _stated(labels / "clips.json", _known(name, files, labels), entry) for name, entry in sorted(stated.items())
    ]
    for boxes in sorted(labels.glob("*.boxes.csv")):
        stem = boxes.name.removesuffix(".boxes.csv")
        file = next((one for name, one in files.items() if Path(name).stem == stem), None)
        if file is None:
            raise ConfigError(f"{boxes} labels a recording {stem} that is not in {folder}")
        found.append(_boxed(boxes, file, size_of(file)))
    if not found:
        raise ConfigError(f"--footage {folder} holds no labels; expected real/labels/clips.json or NAME.boxes.csv")
    return tuple(found)


def settle(known: Known, fps: float) -> Known:
    """The truth without changes that last for less than SETTLED_S, which are not decided."""
    settled, least = known.copy(), SETTLED_S * fps
    for first, last in _runs(known):
        if known[first] != UNKNOWN and last - first < least and (first, last) != (0, len(known)):
            settled[first:last] = UNKNOWN
    return settled


def spans_of(settled: Known, fps: float) -> tuple[Span, ...]:
    """The times in which a settled truth may hold, in seconds from the first of its frames. One that may have begun
    before has no certain onset."""
    spans = []
    may = np.where(settled == 0, 0, 1).astype(np.int8)
    for first, last in _runs(may):
        if not may[first]:
            continue
        sure = np.flatnonzero(settled[first:last] == 1)
        certain_s = float(first + sure[0]) / fps if len(sure) and first > 0 else None
        spans.append(Span(first / fps, certain_s, last / fps))
    return tuple(spans)


def changes_s(settled: Known, fps: float) -> list[float]:
    """Seconds at which a settled truth begins or ceases to hold."""
    decided = [(place, value) for place, value in enumerate(settled.tolist()) if value != UNKNOWN]
    return [later[0] / fps for before, later in pairwise(decided) if before[1] != later[1]]


def _runs(values: NDArray[np.int8]) -> list[tuple[int, int]]:
    """Beginning and end of each run of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(first, last) for first, last in pairwise(edges) if last > first]


def _read_json(file: Path) -> Mapping[str, object]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the labels {file} cannot be read: {error}") from error
    if not isinstance(entries, dict):
        raise ConfigError(f"the labels {file} hold a {type(entries).__name__}; expected an object by recording")
    return entries


def _known(name: str, files: Mapping[str, Path], labels: Path) -> Path:
    if name not in files:
        raise ConfigError(
            f"{labels / 'clips.json'} labels {name[:80]!r}, which is not there; the recordings are {sorted(files)}"
        )
    return files[name]


def _stated(labels: Path, file: Path, entry: object) -> LabelledRecording:
    """The statements about a recording."""
    where = f"{labels}: {file.name}"
    if not isinstance(entry, dict) or not isinstance(entry.get("frames"), int) or entry["frames"] < 1:
        raise ConfigError(f"{where} has no number of frames; expected frames, fps and intervals by statement")
    frames = int(entry["frames"])
    raw = {
        text: _intervals(where, text, value, frames) for text, value in entry.items() if text not in ("fps", "frames")
    }
    families: dict[str, list[str]] = {}
    for text in raw:
        families.setdefault(_without_number(text), []).append(text)
    truths = []
    for texts in families.values():
        told = np.any([raw[text] for text in texts], axis=0)
        for text in texts:
            # Of numbers of one thing that exclude each other nothing is known where none is stated.
            known = np.where(raw[text], 1, np.where(told | (len(texts) == 1), 0, UNKNOWN)).astype(np.int8)
            truths.append(StatedTruth(question_of(text), split_of(text), known))
    return LabelledRecording(file, frames, tuple(truths))


def _intervals(where: str, text: str, value: object, frames: int) -> NDArray[np.bool_]:
    holds = np.zeros(frames, np.bool_)
    if not isinstance(value, list):
        raise ConfigError(f"{where}: {text!r} holds a {type(value).__name__}; expected pairs of frames")
    for pair in value:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, int) for one in pair)):
            raise ConfigError(f"{where}: {text!r} holds {pair!r}; expected pairs of a first and a last frame")
        first, last = pair
        if not 0 <= first <= last < frames + 1:
            raise ConfigError(f"{where}: {text!r} goes from frame {first} to {last}, outside of its {frames} frames")
        holds[first : last + 1] = True
    return holds


def question_of(statement: str) -> str:
    """The statement as a question of yes or no."""
    said = re.fullmatch(r"(.+?) (is|are|stands?|lies?|lie) (.+)", statement.strip())
    if said is None:
        return f"Is it so that {statement.strip()}?"
    who, verb, rest = said.groups()
    if verb in _VERBS:
        return _VERBS[verb].format(who, rest)
    return f"{'Does' if verb.endswith('s') else 'Do'} {who} {verb.removesuffix('s')} {rest}?"


def split_of(statement: str) -> str:
    """The part of its family to which a statement belongs."""
    words = set(re.findall(r"\w+", statement.lower()))
    if words & set(_NUMBERS):
        return "count"
    return "colour" if words & set(_COLOURS) else "presence"


def _without_number(statement: str) -> str:
    words = statement.lower().split()
    if not words or words[0] not in _NUMBERS:
        return statement
    return " ".join(word.removesuffix("s") for word in words[1:])


def _boxed(labels: Path, file: Path, size: tuple[int, int]) -> LabelledRecording:
    """The truth that boxes of people give: how many there are, in all and in each half, and if any is in each of six
    zones. What never changes is left out."""
    rows = _read_boxes(labels)
    frames = int(rows[:, 0].max()) + 1
    middles = np.column_stack(((rows[:, 1] + rows[:, 3] / 2) / size[1], (rows[:, 2] + rows[:, 4] / 2) / size[0]))
    if not ((middles >= -0.1) & (middles <= 1.1)).all():
        raise ConfigError(f"{labels} has boxes outside of the {size[1]} x {size[0]} px of {file.name}")

    def count(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(rows[chosen, 0].astype(np.int64), minlength=frames)

    every = count(np.ones(len(rows), np.bool_))
    truths = [
        _at_least(every, least, f"Are there at least {least} people?", "count")
        for least in sorted({max(2, int(np.percentile(every, share))) for share in _QUANTILES})
    ]
    for name, chosen in (
        ("left", middles[:, 0] < 0.5),
        ("right", middles[:, 0] >= 0.5),
        ("upper", middles[:, 1] < 0.5),
        ("lower", middles[:, 1] >= 0.5),
    ):
        truths.append(
            _at_least(count(chosen), 2, f"Are there at least 2 people in the {name} half of the picture?", "zone")
        )
    for zone in _zones():
        (left, top), _, (right, bottom), _ = zone.polygon
        in_zone = np.all((middles >= (left, top)) & (middles < (right, bottom)), axis=1)
        truths.append(_at_least(count(np.asarray(in_zone, np.bool_)), 1, f"{zone.words} Is there a person?", "zone"))
    changing = [truth for truth in truths if 0 < np.count_nonzero(truth.known) < frames]
    return LabelledRecording(file, frames, tuple(changing))


def _at_least(counts: NDArray[np.int64], least: int, text: str, split: str) -> StatedTruth:
    return StatedTruth(text, split, (counts >= least).astype(np.int8))


def _zones() -> list[Zone]:
    """Six zones that share the picture."""
    found = []
    for row, upper in enumerate(_ROWS):
        for column, side in enumerate(_COLUMNS):
            (left, right), (top, bottom) = _THIRDS[column : column + 2], _HALVES[row : row + 2]
            corners = ((left, top), (right, top), (right, bottom), (left, bottom))
            found.append(Zone(f"{upper} {side}", corners))
    return found


def _read_boxes(labels: Path) -> NDArray[np.float64]:
    """Rows of frame, left, top, width and height."""
    try:
        with labels.open(newline="", encoding="utf-8-sig") as opened:
            rows: Sequence[Sequence[float]] = [
                [float(row[column]) for column in _BOX_COLUMNS] for row in csv.DictReader(opened)
            ]
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise ConfigError(
            f"the boxes {labels} cannot be read ({error!r}); expected columns {', '.join(_BOX_COLUMNS)}"
        ) from error
    if not rows:
        raise ConfigError(f"{labels} holds no box")
    return np.array(rows, np.float64)
