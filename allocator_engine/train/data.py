"""Standard video-QA files as episodes: JSONL or parquet, one question about one video per row.

Columns go by the names that public sets use (VideoMME, Charades-STA, NExT-GQA and their kin); see COLUMNS. A row needs
a video and a question, and an answer or an interval. With options it is multiple choice; with an interval and no answer
the interval is what is asked for, of a question or of a caption; with both, the interval is where the evidence lies.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import numpy as np

from allocator_engine.errors import ConfigError, EngineMissing
from allocator_engine.train.reward import Form, check, interval, is_number
from allocator_engine.train.rollout import ClipHop, Episode, GradedQuestion

COLUMNS: dict[str, tuple[str, ...]] = {
    "video": ("video", "video_path", "videoID", "video_id", "vid"),
    "question": ("question", "query", "sentence", "caption"),
    "answer": ("answer", "answer_text", "gt", "label"),
    "options": ("options", "candidates", "choices"),
    "interval": ("interval", "timestamp", "timestamps", "segment", "time_reference"),
    "form": ("form",),
}
"""Names of each column; the first that is there counts."""

_SUFFIXES = ("", ".mp4", ".mkv", ".webm", ".avi", ".mov")
_LETTERS = "ABCDEFGHIJ"
_SEED = 11

Value: TypeAlias = "str | float | Sequence[Value] | Mapping[str, Value] | None"
DecodeVideo: TypeAlias = Callable[[Path], Sequence[ClipHop]]
"""Decodes a video into hops, through the sources of production."""


@dataclass(frozen=True, slots=True)
class QaRow:
    """One question about the file `video`; `evidence_s` is where its answer can be seen, in seconds, if known. `number`
    is its line in a JSONL file, or its row in a parquet file, from 1."""

    number: int
    video: Path
    question: str
    truth: str
    form: Form
    evidence_s: tuple[float, float] | None = None


def read_rows(file: Path) -> list[QaRow]:
    """The rows of a file; videos are paths relative to it, with or without a suffix.

    Nothing is left out: raises EngineMissing for a file, a video or a parquet reader that is not there, and ConfigError
    for a row that cannot be read or an answer that cannot be graded, each naming the file and the line.
    """
    if not file.is_file():
        raise EngineMissing(f"there is no data set {file}; give the path of a .jsonl or .parquet file")
    rows = []
    for number, fields in _records(file):
        try:
            rows.append(_row(number, fields, file.parent))
        except EngineMissing as error:
            raise EngineMissing(f"line {number} of {file}: {error}") from error
        except ValueError as error:
            raise ConfigError(f"line {number} of {file}: {error}") from error
    if not rows:
        raise ConfigError(f"{file} holds no rows; expected at least one")
    return rows


@dataclass(frozen=True, slots=True)
class QaClips:
    """Rows as Clips: each once per epoch, in an order of its own, asked when the video is over.

    `episode` raises what `watch` raises for a video that cannot be decoded, and ConfigError for one without pictures.
    """

    rows: Sequence[QaRow]
    watch: DecodeVideo
    prompts_per_step: int

    def episode(self, step: int, index: int) -> Episode:
        """See Clips."""
        row = self.rows[permuted(len(self.rows), step * self.prompts_per_step + index)]
        hops = tuple(self.watch(row.video))
        if not hops:
            raise ConfigError(f"{row.video} of line {row.number} holds no picture; leave its rows out")
        starts_s = [hop.start_s for hop in hops]
        since = 0 if row.evidence_s is None else max(0, int(np.searchsorted(starts_s, row.evidence_s[0], "right")) - 1)
        probe = GradedQuestion(row.question, row.truth, row.form, len(hops) - 1, since)
        return Episode(str(row.video), hops, (row.question,), (probe,), np.full((1, len(hops)), -1, np.int8))


def permuted(count: int, number: int) -> int:
    """The index at place `number` of an endless row of permutations of `count` things, one permutation per epoch."""
    epoch, place = divmod(number, count)
    return int(np.random.default_rng((_SEED, epoch)).permutation(count)[place])


def _records(file: Path) -> Iterator[tuple[int, Mapping[str, Value]]]:
    if file.suffix == ".parquet":
        yield from enumerate(_parquet(file), start=1)
        return
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not text in UTF-8 ({error}); expected JSON, one object per line") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"line {number} of {file} is not JSON ({error}); expected one object per line") from error
        if not isinstance(record, dict):
            raise ConfigError(f"line {number} of {file} is {type(record).__name__}; expected an object")
        yield number, record


def _parquet(file: Path) -> Iterator[Mapping[str, Value]]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise EngineMissing(f"{file} is parquet, which needs the package pyarrow; install it or use .jsonl") from error
    try:
        rows = parquet.read_table(file).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise ConfigError(f"{file} cannot be read as parquet ({error}); fetch it again, or use .jsonl") from error
    yield from rows


def _row(number: int, fields: Mapping[str, Value], folder: Path) -> QaRow:
    video, question = _text(fields, "video"), _text(fields, "question")
    if not video or not question:
        raise ConfigError(f"it has no {'question' if video else 'video'} among {', '.join(map(str, fields))}")
    options = _options(fields)
    answer, evidence_s = _text(fields, "answer"), _interval(fields)
    if answer:
        truth, form = _truth(answer, options), _known(_form(fields, answer, options))
    elif evidence_s is not None:
        truth, form = f"{evidence_s[0]:.1f} to {evidence_s[1]:.1f}", "interval"
    else:
        raise ConfigError("it has neither an answer nor an interval")
    check(form, truth)
    return QaRow(number, _found(folder, video), _worded(question, form, options), truth, form, evidence_s)


def _worded(question: str, form: Form, options: Sequence[str]) -> str:
    """The question as it is asked: with its options; a caption whose interval is wanted made a question."""
    if form == "interval" and not question.endswith("?"):
        question = f'When does this happen: "{question}"?'
    if form == "interval":
        question += " Answer with the seconds: START to END."
    return "\n".join([question, *(f"{_LETTERS[i]}. {option}" for i, option in enumerate(options))])


def _found(folder: Path, video: str) -> Path:
    for suffix in _SUFFIXES:
        if (path := folder / f"{video}{suffix}").is_file():
            return path
    raise EngineMissing(f"its video {folder / video} is not there; fetch it or leave the row out")


def _text(fields: Mapping[str, Value], column: str) -> str:
    value = _value(fields, column)
    return "" if value is None or isinstance(value, Mapping) else str(value).strip()


def _value(fields: Mapping[str, Value], column: str) -> Value:
    return next((fields[name] for name in COLUMNS[column] if fields.get(name) is not None), None)


def _options(fields: Mapping[str, Value]) -> list[str]:
    """The options, without letters; NExT-GQA has them as columns a0, a1, ..."""
    value = _value(fields, "options")
    if value is None:
        value = [fields[f"a{i}"] for i in range(len(_LETTERS)) if fields.get(f"a{i}") is not None]
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"its options are {value!r}; expected a list")
    if len(value) > len(_LETTERS):
        raise ConfigError(f"it has {len(value)} options; expected at most {len(_LETTERS)}")
    texts = [str(option).strip() for option in value]
    lettered = all(text[:2] in (f"{_LETTERS[i]}.", f"{_LETTERS[i]})") for i, text in enumerate(texts))
    return [text[2:].strip() for text in texts] if lettered else texts


def _truth(answer: str, options: Sequence[str]) -> str:
    """The answer; of options its letter, also where the data give its text or its number from 0."""
    if not options:
        return answer
    if answer in options:
        return _LETTERS[options.index(answer)]
    if answer.isdecimal() and int(answer) < len(options):
        return _LETTERS[int(answer)]
    letter = answer.strip("(). ").upper()
    if len(letter) != 1 or letter not in _LETTERS[: len(options)]:
        raise ConfigError(f"its answer {answer!r} is none of its {len(options)} options")
    return letter


def _interval(fields: Mapping[str, Value]) -> tuple[float, float] | None:
    value = _value(fields, "interval")
    if value is None and fields.get("start") is not None:
        value = f"{fields['start']} to {fields.get('end')}"
    while isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        value = value[0]  # some sets list several annotators
    if value is None:
        return None
    text = value if isinstance(value, str) else " to ".join(map(str, value)) if isinstance(value, Sequence) else ""
    found = interval(text)
    if found is None:
        raise ConfigError(f"its interval is {value!r}; expected two numbers of seconds")
    return found


def _form(fields: Mapping[str, Value], answer: str, options: Sequence[str]) -> str:
    if stated := _text(fields, "form"):
        return stated
    if options:
        return "choice"
    if answer.casefold() in ("yes", "no", "true", "false"):
        return "yes_no"
    return "number" if is_number(answer) else "word"


def _known(form: str) -> Form:
    forms: tuple[Form, ...] = ("yes_no", "choice", "number", "word", "interval")
    for known in forms:
        if form == known:
            return known
    raise ConfigError(f"its form is {form!r}; expected one of {', '.join(forms)}")
