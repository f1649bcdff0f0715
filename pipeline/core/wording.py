"""Events in words: templates with named fields, for titles, texts and topics. Pure functions."""

import string
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.types import Event, Json

FIELDS: Mapping[str, str] = {
    "summary": "the event in a line",
    "type": "its type, such as watch.opened",
    "stream": "the stream's slug",
    "watch": "the watch's slug",
    "question": "the watch's question",
    "score": "the score, 0 to 1",
    "severity": "the severity, where the event has one",
    "reason": "why, where the event says so",
    "time": "when it was decided (UTC)",
    "captured_at": "when the picture was taken (UTC)",
    "id": "the event's id",
}
"""What a template may name, and what that is."""
MISSING = "-"
"""What stands for a field that an event does not have."""
LONGEST_VALUE = 2000
"""Characters of a field's value; the rest is cut off."""

_HEADLINES = {"watch.opened": "OPEN", "watch.cleared": "cleared"}


@dataclass(frozen=True, slots=True)
class EventTemplate:
    """A text with fields in braces; `{{` and `}}` are braces. It may name those of FIELDS and `extra` ones."""

    text: str
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ConfigError naming what is wrong."""
        for name in self.names:
            if name not in (known := (*self.extra, *FIELDS)):
                raise ConfigError(f"the template names the field {name[:40]!r}; expected one of {', '.join(known)}")

    @property
    def names(self) -> list[str]:
        """The fields, as they are written. Raises ConfigError for braces that do not fit."""
        try:
            return [name + _more(form, spec) for _, name, spec, form in _FORMATTER.parse(self.text) if name is not None]
        except ValueError as error:
            raise ConfigError(f"the template cannot be read: {error}; braces are written {{{{ and }}}}") from None

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with its fields filled in."""
        return "".join(
            before + ("" if name is None else values[name]) for before, name, _, _ in _FORMATTER.parse(self.text)
        )


_FORMATTER = string.Formatter()


def _more(form: str | None, spec: str | None) -> str:
    """The conversion and format behind a name in braces; a template supports neither."""
    return (f"!{form}" if form else "") + (f":{spec}" if spec else "")


def values_of(event: Event) -> dict[str, str]:
    """The fields of an event. Control characters but the end of a line are left out."""
    data = event.data
    question, reason = _text(data.get("question")), _text(data.get("reason"))
    return {
        "summary": _summary(event, question, reason),
        "type": event.type,
        "stream": _text(event.stream_id),
        "watch": _text(event.watch_id),
        "question": question,
        "score": _text(data.get("score")),
        "severity": _text(data.get("severity")),
        "reason": reason,
        "time": event.time.isoformat(timespec="seconds"),
        "captured_at": _text(data.get("captured_at")),
        "id": event.id,
    }


def _summary(event: Event, question: str, reason: str) -> str:
    about = _text(event.stream_id)
    headline = _HEADLINES.get(event.type)
    if headline:
        return f"{headline} on {about}: {question if question != MISSING else _text(event.watch_id)}"
    return f"{event.type} on {about}" + (f": {reason}" if reason != MISSING else "")


def _text(value: Json) -> str:
    if value is None or value == "" or not isinstance(value, str | int | float):
        return MISSING
    plain = "".join(one for one in str(value)[:LONGEST_VALUE] if one.isprintable() or one == "\n")
    return plain or MISSING
