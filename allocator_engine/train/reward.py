"""Grades of answers, 0 to 1: from their words, or from how probable the right one was."""

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, TypeAlias

Form: TypeAlias = Literal["yes_no", "choice", "number", "word", "interval"]
"""The form of an answer: yes or no; a letter; a number; a word or short text; "START to END" in seconds."""

_NUMBER = r"[-+]?\d+(?:[.,]\d+)?"
_GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_CLOCK = re.compile(r"\b(?:(\d+):)?(\d{1,2}):(\d{2}(?:\.\d+)?)\b")
_INTERVAL = re.compile(rf"({_NUMBER})\s*(?:s|sec|seconds)?\s*(?:to|until|and|,|;|-|–|—)\s*({_NUMBER})")
_CHOICE = re.compile(r"(?<![A-Za-z])\(?([A-Z])\)?(?![A-Za-z']|\s+(?!or\b|and\b)[a-z])")
_OPENING_CHOICE = re.compile(r"\s*\(?([A-Za-z])\)?\s*(?:[.):,]|$)")
_SPELLED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ARTICLES = {"a", "an", "the"}
_TOLERANCE = 0.01


def dense(log_probabilities: Sequence[float]) -> float:
    """The geometric mean probability of the tokens of the right answer, from their natural logarithms."""
    if not log_probabilities:
        raise ValueError("an answer of no tokens; expected at least one")
    return math.exp(min(0.0, sum(log_probabilities) / len(log_probabilities)))


def grade(form: Form, truth: str, said: str) -> float:
    """The grade of `said`, 0 to 1; what cannot be read is wrong. Raises ValueError as `check` does."""
    check(form, truth)
    if form == "interval":
        wanted, found = interval(truth), interval(said)
        return overlap(wanted, found) if wanted and found else 0.0
    if form == "yes_no":
        return float(_yes_no(said) == _yes_no(truth))
    if form == "choice":
        return float(_choice(said) == truth.strip("() .").upper())
    if form == "number":
        wanted_number, number = _number(truth), _number(said)
        assert wanted_number is not None
        return float(number is not None and math.isclose(number, wanted_number, rel_tol=_TOLERANCE))
    return float(_plain(said) == _plain(truth))


def check(form: Form, truth: str) -> None:
    """Raise ValueError, naming the truth, if no answer could ever be right."""
    readable = {
        "interval": lambda: interval(truth) is not None,
        "yes_no": lambda: _yes_no(truth) is not None,
        "choice": lambda: re.fullmatch(r"\(?[A-Za-z]\)?\.?", truth.strip()) is not None,
        "number": lambda: _number(truth) is not None,
        "word": lambda: bool(_plain(truth)),
    }
    if form not in readable:
        raise ValueError(f"the form of an answer is {form!r}; expected one of {', '.join(readable)}")
    if not readable[form]():
        raise ValueError(f"the answer {truth!r} cannot be graded as {form}; correct it or leave the question out")


def is_number(text: str) -> bool:
    """True for a text that is a number and nothing else, such as "-5" or "1,200"."""
    return re.fullmatch(_NUMBER, _ungrouped(text)) is not None


def interval(text: str) -> tuple[float, float] | None:
    """The first "START to END" of a text, in seconds; also with brackets, words around it, or as m:ss. None without."""
    seconds = _CLOCK.sub(lambda m: str(int(m[1] or 0) * 3600 + int(m[2]) * 60 + float(m[3])), text)
    found = _INTERVAL.search(seconds)
    if found is None:
        return None
    first, last = sorted(float(found[group].replace(",", ".")) for group in (1, 2))
    return first, last


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Temporal intersection over union of two intervals in seconds; 0 for two that are empty."""
    union = max(one[1], other[1]) - min(one[0], other[0])
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return max(0.0, shared) / union if union > 0 else 0.0


def _plain(text: str) -> str:
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(word for word in words if word not in _ARTICLES)


def _yes_no(text: str) -> bool | None:
    first = _plain(text).split(" ")[0]
    return {"yes": True, "true": True, "no": False, "false": False}.get(first)


def _choice(text: str) -> str | None:
    """The letter that an answer opens with, or the only capital that stands alone."""
    if opening := _OPENING_CHOICE.match(text):
        return opening[1].upper()
    letters = set(_CHOICE.findall(text))
    return letters.pop() if len(letters) == 1 else None


def _number(text: str) -> float | None:
    if found := re.search(_NUMBER, _ungrouped(text)):
        return float(found[0].replace(",", "."))
    words = _plain(text).split(" ")
    return next((float(_SPELLED.index(word)) for word in words if word in _SPELLED), None)


def _ungrouped(text: str) -> str:
    """Without the commas that set thousands apart."""
    return _GROUPED.sub(lambda grouped: grouped[0].replace(",", ""), text)
