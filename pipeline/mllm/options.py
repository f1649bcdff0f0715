"""Answers that are one of some values: their spellings as tokens, and the probability of each. Pure.

A value is believed as soon as the tokens said so far can only be the beginning of it; where they can begin several, as
1 begins 1 and 12, the model is asked what comes next.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pipeline.core.questions import clean_question
from pipeline.types import Answer, WatchQuery

KNOWN_MASS = 0.5
"""Below this probability of all values together there is no answer; see `types.Answer`."""

LEAST_SHARE = 0.02
"""A beginning of several values that is less probable than this is not followed: it counts for the shortest of them."""

MOST_STEPS = 6
"""Most tokens that are followed."""

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

Path = tuple[int, ...]


def hint(query: WatchQuery) -> str:
    """The text behind a question that names its possible answers; empty for yes or no."""
    if query.rules.count:
        return " Answer with a number."
    if query.rules.choice:
        return f" Answer with one of: {', '.join(map(clean_question, query.rules.choice))}."
    return ""


@lru_cache(1024)
def spellings(option: str) -> tuple[str, ...]:
    """The ways in which an answer may write a value."""
    plain = clean_question(option)
    ways = [plain, plain[:1].upper() + plain[1:], plain.lower()]
    if plain.isdecimal() and int(plain) < len(_WORDS):
        word = _WORDS[int(plain)]
        ways += [word, word.capitalize()]
    return tuple(dict.fromkeys(lead + way for way in ways for lead in ("", " ")))


@dataclass(frozen=True, slots=True)
class Spelled:
    """The token sequences of some values, by which each is known; `children` are the tokens that follow a beginning."""

    options: tuple[str, ...]
    ends: Mapping[Path, int]
    owners: Mapping[Path, frozenset[int]]
    children: Mapping[Path, tuple[int, ...]]

    @classmethod
    def of(cls, options: Sequence[str], encode: Callable[[str], Sequence[int]]) -> "Spelled":
        """The values as a tokenizer writes them; `encode` gives the ids of a text without special tokens."""
        ends: dict[Path, int] = {}
        owners: dict[Path, set[int]] = {}
        children: dict[Path, set[int]] = {}
        for index, option in enumerate(options):
            for text in spellings(option):
                path = tuple(encode(text))
                ends.setdefault(path, index)
                for length in range(len(path)):
                    children.setdefault(path[:length], set()).add(path[length])
                    owners.setdefault(path[: length + 1], set()).add(index)
        return cls(
            tuple(options),
            ends,
            {path: frozenset(found) for path, found in owners.items()},
            {path: tuple(sorted(found)) for path, found in children.items()},
        )


@dataclass(slots=True)
class OptionWalk:
    """The probabilities of values, found token by token. `open` are the beginnings that have to be asked about, with
    their probability."""

    spelled: Spelled
    shares: list[float] = field(default_factory=list)
    open: dict[Path, float] = field(default_factory=lambda: {(): 1.0})

    def __post_init__(self) -> None:
        self.shares = [0.0] * len(self.spelled.options)

    def feed(self, path: Path, probabilities: Mapping[int, float]) -> None:
        """Take in how probable each token is behind a beginning that is open."""
        reached = self.open.pop(path)
        rest = reached
        for token in self.spelled.children.get(path, ()):
            here = reached * min(1.0, max(0.0, probabilities.get(token, 0.0)))
            rest -= here
            self._follow((*path, token), here)
        if path in self.spelled.ends:  # whatever else comes ends the value that is complete
            self.shares[self.spelled.ends[path]] += max(0.0, rest)

    def settle(self) -> None:
        """Leave it at what is known: an open beginning counts for the shortest value that it begins."""
        for path in list(self.open):
            self._give(path, self.open.pop(path))

    def _follow(self, path: Path, share: float) -> None:
        owners = self.spelled.owners[path]
        several = len(owners) > 1 and path in self.spelled.children
        if several and share >= LEAST_SHARE and len(path) < MOST_STEPS:
            self.open[path] = share
        else:
            self._give(path, share)

    def _give(self, path: Path, share: float) -> None:
        if not path:
            return
        lengths = {index: len(end) for end, index in self.spelled.ends.items() if end[: len(path)] == path}
        self.shares[min(lengths, key=lambda index: (lengths[index], index))] += share


def open_steps(walks: Sequence[OptionWalk | None]) -> list[tuple[int, OptionWalk, Path]]:
    """The steps to ask next: the number of a question, its walk, and the tokens so far."""
    return [(number, walk, path) for number, walk in enumerate(walks) if walk for path in walk.open]


def read_option(query: WatchQuery, shares: Sequence[float]) -> Answer:
    """The Answer from the probability of each of a query's values. None of which is probable is unknown."""
    total = sum(shares)
    if not total >= KNOWN_MASS:  # nor where it is no number
        return Answer(query.id, score=0.5, mass=total if total > 0 else 0.0)
    best = max(range(len(shares)), key=lambda index: shares[index])
    count = query.rules.count
    agreeing = shares[best] if count is None else sum(s for n, s in enumerate(shares) if count.holds(n))
    return Answer(query.id, score=min(1.0, agreeing / total), mass=min(1.0, total), value=query.options[best])
