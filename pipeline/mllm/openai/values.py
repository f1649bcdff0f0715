"""Reads from a server's reply which of some values it gives, by the texts of its tokens and their probabilities.
Pure."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from pipeline.mllm.openai.replies import Reply
from pipeline.mllm.options import spellings

_MARGINS = " \t\r\n.,;:!?'\"`*_#()[]{}<>|/-\u00a0\u200b\ufeff▁ĠĊ"
_NUMBER = re.compile(r"(?<![\w.,-])\d+(?![\w]|[.,]\d)")


@lru_cache(1024)
def spelled(options: tuple[str, ...]) -> Mapping[str, int]:
    """The plain spellings of values, each with the number of its value."""
    found: dict[str, int] = {}
    for index, option in enumerate(options):
        for way in spellings(option):
            found.setdefault(_plain(way), index)
    return found


def option_in(text: str, options: tuple[str, ...]) -> int | None:
    """The number of the value that an answer in words gives; None for none, or for more than one."""
    text = text[:200]
    known, plain = spelled(options), _plain(text)
    words = {known[number] for number in _NUMBER.findall(text) if number in known}
    for way, index in known.items():
        if not way.isdecimal() and re.search(rf"(?<!\w){re.escape(way)}(?!\w)", plain):
            words.add(index)
    longest = {index for index in words if not _within_others(options[index], [options[n] for n in words])}
    return longest.pop() if len(longest) == 1 else None


def _within_others(option: str, others: Sequence[str]) -> bool:
    return any(option != other and _plain(option) in _plain(other) for other in others)


def option_shares(reply: Reply, options: tuple[str, ...], lead: int) -> list[float] | None:
    """The probability of each value: of the tokens with which the reply was likely to begin, and, where what it said
    may begin several values, of those behind it. Up to `lead` tokens without a word may come before it. None if it
    shows no probabilities."""
    positions = reply.tokens
    if not positions or not positions[0][1]:
        return None
    found, known = [0.0] * len(options), spelled(options)
    while lead and len(positions) > 1 and not _plain(positions[0][0]):
        positions, lead = positions[1:], lead - 1
    said, reached = "", 1.0
    for chosen, shares in positions:
        rest, followed = reached, 0.0
        for token, share in shares.items():
            owners = _owners(said + token, known)
            if not owners:
                continue
            here = reached * share
            rest -= here
            if len(owners) > 1 and token == chosen:
                followed = here
            else:
                found[_shortest(said + token, owners, known)] += here
        if (exact := known.get(_plain(said))) is not None and said:
            found[exact] += max(0.0, rest)
        said, reached = said + chosen, followed
        if not followed:
            return found
    owners = _owners(said, known)
    found[_shortest(said, owners, known)] += reached
    return found


def _owners(text: str, known: Mapping[str, int]) -> set[int]:
    """The values that a text may be the beginning of, or has said already."""
    plain = _plain(text)
    if not plain:
        return set()
    return {index for way, index in known.items() if way.startswith(plain)}


def _shortest(text: str, owners: set[int], known: Mapping[str, int]) -> int:
    plain = _plain(text)
    fitting = [(len(way), index) for way, index in known.items() if index in owners and way.startswith(plain)]
    return min(fitting)[1]


def _plain(text: str) -> str:
    return " ".join(text.strip(_MARGINS).casefold().split())
