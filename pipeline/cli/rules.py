"""Options for the rules of watches, in the words of a site file."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from pipeline.config.one_stream import given
from pipeline.config.settings import settings
from pipeline.errors import ConfigError

Hold = Annotated[float | None, typer.Option("--hold", help="It opens once it has held for so many seconds.")]
Absent = Annotated[float | None, typer.Option("--absent", help="It opens when not seen for so many seconds.")]
CountRule = Annotated[str | None, typer.Option("--count", help="The answer is a number: '>5', '<=2', '=0' or '!=1'.")]
Choices = Annotated[str | None, typer.Option("--choice", help="The answer is one of these: red,green,off.")]
SeverityOf = Annotated[str | None, typer.Option("--severity", help="info, warning or critical.")]
RuleSettings = Annotated[
    list[str] | None, typer.Option("--rule", help="Any setting of a watch, as in a site file: max_per_hour=6.")
]

_COUNT = re.compile(r"(>=|<=|!=|==|>|<|=) *([0-9]{1,4})")


def rule_settings(
    hold: float | None = None,
    absent: float | None = None,
    count: str | None = None,
    choice: str | None = None,
    severity: str | None = None,
    more: Sequence[str] | None = None,
) -> Mapping[str, object]:
    """The rules that options give, as the mappings of a site file. Raises ConfigError."""
    return settings(more) | given(
        hold_s=hold,
        absent_s=absent,
        count=None if count is None else _count(count),
        choice=None if choice is None else [value.strip() for value in choice.split(",")],
        severity=severity,
    )


def _count(text: str) -> dict[str, object]:
    found = _COUNT.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"--count is {text[:40]!r}; expected a comparison with a number, such as '>5' or '=0'")
    return {"op": "=" if found[1] == "==" else found[1], "value": int(found[2])}
