"""A sentence of the MLLM's about what it sees when a watch opens. Pure functions of values."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.core.questions import clean_question
from pipeline.types import Event, Json, WatchQuery

MOST_TOKENS = 48
"""Longest description, in tokens as the MLLM says them."""

MOST_CHARACTERS = 240

DESCRIBE_S = 10.0
"""Longest wait for the descriptions of a hop: its events go out without them then."""

SCHEMA: Mapping[str, Json] = {
    "type": "object",
    "properties": {"sentence": {"type": "string", "maxLength": MOST_CHARACTERS}},
    "required": ["sentence"],
    "additionalProperties": False,
}
"""The form of a description, where the MLLM can be held to one."""


def described(queries: Sequence[WatchQuery], events: Sequence[Event]) -> tuple[WatchQuery, ...]:
    """The watches of which something is to be said: those that have opened, or become another value."""
    told = {event.watch_id for event in events if event.type == "watch.opened" or "previous" in _rule(event)}
    return tuple(query for query in queries if query.rules.describe and query.id in told)


def question_of(query: WatchQuery) -> str:
    """The question whose answer is the description."""
    return f"{clean_question(query.question)[:400]} Describe in one short sentence what is seen of it right now."


def sentence_in(said: str) -> str | None:
    """The sentence of an answer, which may be JSON that was cut off: one line, bounded; None where it says nothing."""
    text = said
    if said.lstrip().startswith("{"):
        text = _inside(said)
    text = "".join(c if unicodedata.category(c)[0] not in "CZ" else " " for c in text)
    text = " ".join(text.split())[:MOST_CHARACTERS].strip()
    return text or None


def _inside(said: str) -> str:
    try:
        found = json.loads(said)
    except ValueError:
        _, _, rest = said.partition(':"') if ':"' in said else said.partition(': "')
        return rest.rstrip('"}').replace("\\n", " ")
    sentence = found.get("sentence") if isinstance(found, dict) else None
    return sentence if isinstance(sentence, str) else ""


def with_texts(events: Sequence[Event], texts: Mapping[str, str]) -> tuple[Event, ...]:
    """The events, with what is said of their watches, by id, in the data of those that open or change."""
    return tuple(_with_text(event, texts.get(event.watch_id or "")) for event in events)


def _with_text(event: Event, text: str | None) -> Event:
    if text is None or event.type not in ("watch.opened", "watch.updated"):
        return event
    return replace(event, data={**event.data, "text": text})


def _rule(event: Event) -> Mapping[str, Json]:
    rule = event.data.get("rule")
    return rule if isinstance(rule, Mapping) else {}
