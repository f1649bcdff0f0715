"""Labels as the truth of recordings, in their seconds: by file and second, or, as a service keeps them, by stream and
time."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeAlias

from pipeline.clock import as_utc
from pipeline.delivery.labels import KINDS
from pipeline.errors import ConfigError
from pipeline.lab.footage import camera_of
from pipeline.lab.labels import OpenSpan, check_inside, label_of, rows_of
from pipeline.lab.truths import Mark, Reviewed, merge, placed, reviewed, together

LabelRows: TypeAlias = Sequence[tuple[int, Mapping[str, str]]]
"""Rows of a CSV with their line numbers."""
WatchTruths: TypeAlias = Mapping[str, Mapping[Path, Reviewed]]
"""By watch and recording, the truth in seconds of the recording; a recording is left out where nobody looked."""

KEPT_COLUMNS = ("stream", "watch", "kind", "start", "end")
"""Columns of the labels that a service keeps; `from` and `until`, where they stand, are what a label is about."""
_NAMED = 5  # most of each in an error


class RecordingTimes(Protocol):
    """Knows when recordings were made, and how long they are."""

    def length_s(self, file: Path) -> float:
        """Seconds of a recording. Raises ConfigError and SourceUnavailable."""
        ...

    def began(self, file: Path) -> datetime:
        """UTC of its first moment. Raises ConfigError and SourceUnavailable."""
        ...


def read_truths(
    labels: Path, folder: Path, files: Sequence[Path], watches: Sequence[str], times: RecordingTimes
) -> WatchTruths:
    """The truth of watches on the recordings below a folder, from a file of labels. Raises as `truths_of` does."""
    recordings = {file.relative_to(folder).as_posix(): file for file in files}
    return truths_of(rows_of(labels), str(labels), recordings, folder, watches, times)


def truths_of(
    rows: LabelRows,
    where: str,
    recordings: Mapping[str, Path],
    folder: Path,
    watches: Sequence[str],
    times: RecordingTimes,
) -> WatchTruths:
    """The truth of watches on recordings, which are named by their places below `folder`, from rows of labels.

    Rows with `start_s` are about a file: all of it was looked at, and what no label names is no. Rows of
    `resadapt label export` are about a stream and a time: they are placed on the recordings that lie in a folder of the
    stream's name, or begin with it, by the time at which those were made; from the first label of a watch to its last,
    all is taken for looked at. Raises ConfigError naming the line, and where no label falls on a recording.
    """
    if not by_file(rows):
        return _by_time(rows, where, recordings, folder, watches, times)
    return _by_file(rows, where, recordings, watches, times)


def by_file(rows: LabelRows) -> bool:
    """True for rows about seconds of files, False for those about times of streams."""
    columns = set(rows[0][1]) if rows else set[str]()
    return "start_s" in columns or not columns >= set(KEPT_COLUMNS)


def of_questions(truths: WatchTruths, questions: Mapping[str, str]) -> dict[str, dict[Path, Reviewed]]:
    """The truths by question and recording; `questions` are those of the watches. What two watches ask alike is one."""
    found: dict[str, dict[Path, Reviewed]] = {}
    for watch, question in questions.items():
        known = found.setdefault(question, {})
        for file, truth in truths.get(watch, {}).items():
            known[file] = together(known[file], truth) if file in known else truth
    return found


def _by_file(
    rows: LabelRows, where: str, recordings: Mapping[str, Path], watches: Sequence[str], times: RecordingTimes
) -> WatchTruths:
    names = _names(recordings)
    spans: dict[str, dict[Path, list[OpenSpan]]] = {one: {file: [] for file in recordings.values()} for one in watches}
    for number, row in rows:
        line = f"{where}, line {number}"
        watch = row.get("watch") or (watches[0] if len(watches) == 1 else "")
        if watch not in spans:
            raise ConfigError(f"{line}: watch is {watch[:80]!r}; the watches are {', '.join(watches[:10])}")
        name, span = label_of(row, list(names), line)
        spans[watch][names[name]].append(span)
    labelled = {file for of_watch in spans.values() for file, found in of_watch.items() if found}
    called = {file: name for name, file in recordings.items()}
    lengths_s = {called[file]: times.length_s(file) for file in sorted(labelled)}
    for of_watch in spans.values():
        check_inside({called[file]: found for file, found in of_watch.items() if found}, lengths_s)
    return {
        watch: {
            file: Reviewed(0.0, math.inf, merge(sorted((one.start_s, one.end_s) for one in found), 0.0))
            for file, found in of_watch.items()
        }
        for watch, of_watch in spans.items()
    }


def _names(recordings: Mapping[str, Path]) -> dict[str, Path]:
    """The recordings by their names, and by those of their files alone where these are not shared."""
    files = [file.name for file in recordings.values()]
    alone = {file.name: file for file in recordings.values() if files.count(file.name) == 1}
    return {**alone, **recordings}


def _by_time(
    rows: LabelRows,
    where: str,
    recordings: Mapping[str, Path],
    folder: Path,
    watches: Sequence[str],
    times: RecordingTimes,
) -> WatchTruths:
    marks: dict[tuple[str, str], list[Mark]] = {}
    for number, row in rows:
        if row["watch"] in watches:
            marks.setdefault((row["watch"], row["stream"]), []).append(_mark(row, f"{where}, line {number}"))
    said = {key: truth for key, found in marks.items() if (truth := reviewed(found, 0.0))}
    streams = sorted({stream for _, stream in said})
    cameras = {file: camera_of(file, folder, streams) for file in recordings.values()} if streams else {}
    made = {file: (times.began(file).timestamp(), times.length_s(file)) for file, one in cameras.items() if one}
    placing: dict[str, dict[Path, Reviewed]] = {watch: {} for watch in watches}
    for (watch, stream), truth in said.items():
        for file, (began, length_s) in made.items():
            if cameras[file] == stream and (there := placed(truth, began, length_s)):
                placing[watch][file] = there
    if not any(placing.values()):
        raise ConfigError(_nowhere(where, said, {name: made.get(file) for name, file in recordings.items()}, watches))
    return placing


def _mark(row: Mapping[str, str], where: str) -> Mark:
    """The interval of a label that a service kept: that of its event, where it stands beside."""
    kind = row["kind"]
    if kind not in KINDS:
        raise ConfigError(f"{where}: kind is {kind[:40]!r}; expected {', '.join(KINDS)}")
    start, end = (
        _time(row.get(best) or row[plain], plain, where) for best, plain in (("from", "start"), ("until", "end"))
    )
    if end < start:
        raise ConfigError(f"{where}: the label ends at {_said(end)}, before its start {_said(start)}")
    return Mark(kind, start, end)


def _time(text: str, column: str, where: str) -> float:
    try:
        return as_utc(datetime.fromisoformat(text)).timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(f"{where}: {column} is {text[:40]!r}; expected a time such as 2026-11-29T12:00:00Z") from None


def _nowhere(
    where: str,
    said: Mapping[tuple[str, str], Reviewed],
    made: Mapping[str, tuple[float, float] | None],
    watches: Sequence[str],
) -> str:
    """The reason that no label falls on a recording, with what is known of both."""
    if not said:
        return f"{where} has no label of {', '.join(watches[:_NAMED])}"
    labelled = [f"{stream} {_said(truth.since)} to {_said(truth.until)}" for (_, stream), truth in said.items()]
    known = [
        f"{name} {_said(one[0])} to {_said(one[0] + one[1])}" if one else f"{name} (of none of these streams)"
        for name, one in made.items()
    ]
    return (
        f"no label of {where} falls on a recording. Labels: {'; '.join(labelled[:_NAMED])}. Recordings:"
        f" {'; '.join(known[:_NAMED])}. A recording is of the stream after which its folder, or the beginning of its"
        " name, is called, and of the time that its creation_time says, else the file's date"
    )


def _said(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
