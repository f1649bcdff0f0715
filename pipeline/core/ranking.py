"""Texts ranked by the words of a query (Okapi BM25). Pure functions.

A database's own full text search would split and fold words by its own rules, another one in SQLite than in
PostgreSQL; here both give the same.
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

MOST_WORDS = 32
"""Words of a query that are looked for; those behind them are left out."""
ALIKE_CHARS = 4
"""Two words of which one is the beginning of the other, and has so many characters, are alike: `truck`, `trucks`."""
ALIKE = 0.5
"""The worth of a word that is alike, beside 1 for the same."""

_SATURATION, _LENGTH_SHARE = 1.2, 0.75  # k1 and b of BM25
_REMEMBERED_WORDS = 100_000
# Thai, kana and Han stand without spaces between words: each character counts as a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")
_LITTLE_WORDS = frozenset(
    [
        *("a", "an", "the", "this", "that", "these", "those", "there", "they", "it", "its", "who", "which", "what"),
        *("someone", "somebody", "something", "when", "where", "and", "or", "as", "at", "by", "for", "from", "in"),
        *("of", "on", "to", "with", "is", "are", "be", "was", "were", "will", "do", "does", "has", "have", "had"),
    ]
)


@dataclass(frozen=True, slots=True)
class WordCount:
    """A text as a query sees it: its length in words, and the worth of its words for each word of the query."""

    length: int
    worth: tuple[float, ...]

    @property
    def matches(self) -> bool:
        """True if it has any word of the query."""
        return any(self.worth)


def words_of(text: str) -> list[str]:
    """The words of a text: compatibility characters and case folded (Unicode NFKC)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def query_words(text: str) -> tuple[str, ...]:
    """The words to look for, each once, in order: without `the` and its like, unless there are no others."""
    words = tuple(dict.fromkeys(words_of(text)))
    return (tuple(word for word in words if word not in _LITTLE_WORDS) or words)[:MOST_WORDS]


class WordCounter:
    """Counts the words of one query in many texts; what a word is worth is found out once."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._worth: dict[str, tuple[tuple[int, float], ...]] = {}

    def count(self, text: str) -> WordCount:
        """The count of a text."""
        worth = [0.0] * len(self.words)
        found = words_of(text)
        for word in found:
            for place, more in self._of(word):
                worth[place] += more
        return WordCount(len(found), tuple(worth))

    def _of(self, word: str) -> tuple[tuple[int, float], ...]:
        if (known := self._worth.get(word)) is None:
            all_of_them = ((place, worth_of(one, word)) for place, one in enumerate(self.words))
            known = tuple((place, worth) for place, worth in all_of_them if worth)
            if len(self._worth) < _REMEMBERED_WORDS:
                self._worth[word] = known
        return known


def worth_of(wanted: str, word: str) -> float:
    """1 for the same word, ALIKE for one that is alike, else 0."""
    if wanted == word:
        return 1.0
    short, long = sorted((wanted, word), key=len)
    return ALIKE if len(short) >= ALIKE_CHARS and long.startswith(short) else 0.0


def ranks(counts: Sequence[WordCount]) -> list[float]:
    """The rank of each text among all: 0 without any word of the query; a rare word is worth more than a frequent
    one, and more in a short text."""
    if not counts:
        return []
    having = [sum(map(bool, column)) for column in zip(*(one.worth for one in counts), strict=True)]
    rare = [math.log(1 + (len(counts) - n + 0.5) / (n + 0.5)) for n in having]
    mean = sum(one.length for one in counts) / len(counts) or 1.0
    return [_rank(one, rare, mean) for one in counts]


def _rank(one: WordCount, rare: Sequence[float], mean_length: float) -> float:
    damping = _SATURATION * (1 - _LENGTH_SHARE + _LENGTH_SHARE * one.length / mean_length)
    return sum(
        weight * worth * (_SATURATION + 1) / (worth + damping)
        for weight, worth in zip(rare, one.worth, strict=True)
        if worth
    )
