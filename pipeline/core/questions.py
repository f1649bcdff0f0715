"""The questions of a stream: how one is cleaned, which are asked at a hop, which get a second look. Pure functions."""

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from pipeline.core.ladder import FEWER_ASKINGS, SHED, Ladder
from pipeline.core.ruling import disarmed
from pipeline.errors import ConfigError
from pipeline.types import Answer, Hop, WatchQuery

MAX_QUESTION_CHARS = 2000
"""Longest question of a watch, in characters. A longer one is refused where it is configured."""

FEWER = 4
"""Under load, watches of lower priority are asked at one hop in so many."""

_REMEMBERED_QUESTIONS = 4096  # a site's watches are asked again at every hop

# Markup that Qwen tokenizers turn into single tokens: `<|...|>`, and the tags of thoughts and tools.
_MARKUP = re.compile(r"<\|[^<>|]*\|>|</?(?:think|tool_call|tool_response)>", re.IGNORECASE)

_KEPT_FORMAT_CHARACTERS = "\u200c\u200d"  # Zero-width (non-)joiners belong to the spelling of several scripts.


@lru_cache(_REMEMBERED_QUESTIONS)
def clean_question(text: str) -> str:
    """`text` as it is asked: special tokens and control characters out, white space collapsed, Unicode NFC.

    Without this a literal `<|image_pad|>` would become the special token and capture a picture. Cleaning twice changes
    nothing. Raises ConfigError for a question that is empty or longer than MAX_QUESTION_CHARS.
    """
    # Control characters go first: one inside `<|...|>` would hide the markup from the pattern.
    clean = unicodedata.normalize("NFC", "".join(map(_printable, text)))
    if (length := max(len(text), len(clean))) > MAX_QUESTION_CHARS:
        raise ConfigError(f"a question has {length} characters; expected at most {MAX_QUESTION_CHARS}. Shorten it")
    while (without := _MARKUP.sub(" ", clean)) != clean:
        clean = without
    clean = " ".join(clean.split())
    if not clean:
        raise ConfigError(f"the question {text!r} is empty; expected something that yes or no can answer")
    return clean


def _printable(character: str) -> str:
    # C: control, format, surrogate, private and unassigned; Z: every kind of space and line end.
    category = unicodedata.category(character)
    return character if category[0] not in "CZ" or character in _KEPT_FORMAT_CHARACTERS else " "


def due(queries: Sequence[WatchQuery], hop: Hop, ladder: Ladder) -> tuple[WatchQuery, ...]:
    """The watches to ask now, in the order given: larger priority first.

    A watch that is armed is due at hops that reach a multiple of its `every_s`. Under load the later half of the
    watches is asked less often, in turns, and in the end only the first quarter is asked at all; the first is always
    asked when due.
    """
    armed = [query for query in queries if not (hop.frames and disarmed(query, hop.frames[-1].captured_at))]
    found = [query for query in armed if is_due(query, hop)]
    if ladder.step >= SHED:
        return tuple(found[: max(1, len(found) // 4)])
    if ladder.step >= FEWER_ASKINGS:
        first = (len(found) + 1) // 2
        turn = round(hop.start_s / (hop.end_s - hop.start_s))
        later = [query for place, query in enumerate(found[first:]) if (place + turn) % FEWER == 0]
        return (*found[:first], *later)
    return tuple(found)


def is_due(query: WatchQuery, hop: Hop) -> bool:
    """True if a multiple of the watch's `every_s` lies in `(start_s, end_s]`; a stream's first hop is always due."""
    if query.every_s <= hop.end_s - hop.start_s or hop.start_s == 0:
        return True
    return _passed(hop.end_s, query.every_s) > _passed(hop.start_s, query.every_s)


def _passed(at_s: float, every_s: float) -> int:
    """Multiples of `every_s` up to `at_s`; a microsecond early counts, since seconds are floats."""
    return math.floor((at_s + 1e-6) / every_s)


def distinct(queries: Sequence[WatchQuery]) -> tuple[WatchQuery, ...]:
    """One of the queries for each question that they ask and what may answer it, in order."""
    found: dict[object, WatchQuery] = {}
    for query in queries:
        found.setdefault(_asks(query), query)
    return tuple(found.values())


def spread(queries: Sequence[WatchQuery], asked: Sequence[WatchQuery], answers: Sequence[Answer]) -> tuple[Answer, ...]:
    """An answer for each of `queries`, from the answers to those that `distinct` left of them."""
    found = {_asks(query): answer for query, answer in zip(asked, answers, strict=True)}
    return tuple(replace(found[_asks(query)], watch_id=query.id) for query in queries)


def _asks(query: WatchQuery) -> object:
    return clean_question(query.question), query.rules.count, query.rules.choice


def doubtful(queries: Sequence[WatchQuery], answers: Sequence[Answer]) -> tuple[WatchQuery, ...]:
    """The watches whose answer is known and lies between their thresholds."""
    by_id = {answer.watch_id: answer for answer in answers}
    return tuple(
        query
        for query in queries
        if by_id[query.id].verdict != "unknown" and query.clear_at < by_id[query.id].score < query.open_at
    )
