"""An MLLM's answers to pictures at native size, kept on disk: it is asked once, however often training comes by."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from pipeline.errors import EngineMismatch
from pipeline.types import Answer


class NativeAnswers:
    """Answers by a key that names the model, the pictures and the question; one JSON line each in `file`.

    Safe to use from several threads. Raises EngineMismatch for a file that is not one of these.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, Lock()
        self._kept: dict[str, float] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):  # a stop left half a line, which the next would be written behind
            file.write_text("".join(whole), encoding="utf-8")
        for number, line in enumerate(whole, start=1):
            try:
                key, score, mass = json.loads(line)
                self._kept[str(key)] = _known(Answer(key, float(score), float(mass)))
            except (ValueError, TypeError) as error:
                raise EngineMismatch(f"line {number} of {file} is damaged ({error}); delete the file") from error

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def score(self, key: str) -> float:
        """P(yes) against P(no), 0 to 1; NaN where the answer was unknown, or none is kept."""
        return self._kept.get(key, math.nan)

    def keep(self, answers: Iterable[tuple[str, Answer]]) -> None:
        """Keep answers under their keys."""
        with self._lock, self._file.open("a", encoding="utf-8") as file:
            for key, answer in answers:
                file.write(json.dumps([key, answer.score, answer.mass]) + "\n")
                self._kept[key] = _known(answer)


def _known(answer: Answer) -> float:
    return answer.score if answer.verdict != "unknown" else math.nan
