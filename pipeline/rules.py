"""The rules of a watch beyond its thresholds: durations, repetition, schedules, counts, choices. Each has a default
that changes nothing."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from typing import Literal, get_args

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""In rising order."""
ESCALATED: Severity = "critical"
"""The severity of an escalation that names none."""

Emission = Literal["opened", "updated", "cleared"]
EMISSIONS: tuple[Emission, ...] = get_args(Emission)

Comparator = Literal[">", ">=", "<", "<=", "=", "!="]
_COMPARE: Mapping[Comparator, Callable[[int, int], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}

MOST_COUNTED = 99
"""The largest number that an answer to a count may be; a larger one is no number."""


@dataclass(frozen=True, slots=True)
class Count:
    """A comparison of a number: the watch is about whether it holds."""

    op: Comparator
    value: int

    def holds(self, number: int) -> bool:
        """True if the condition holds for a number."""
        return _COMPARE[self.op](number, self.value)


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a day: minutes of local wall time from `start_min` up to `end_min`, on weekdays (0 is Monday). One that
    ends no later than it starts ends on the day after; the day on which it starts counts."""

    days: tuple[int, ...]
    start_min: int
    end_min: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a watch is armed: in its windows of local time in `zone` (an IANA name). `holidays` are days given one by
    one, `country` (such as DE or DE-BY) names those of a country; a window that starts on one does not count where
    `on_holidays` is "off", and the whole day does where it is "on"."""

    zone: str
    windows: tuple[Window, ...]
    holidays: tuple[date, ...] = ()
    country: str | None = None
    on_holidays: Literal["off", "on"] = "off"


@dataclass(frozen=True, slots=True)
class Escalation:
    """The escalation of a watch that is still open `after_s` stream seconds after it opened: an event of a higher
    severity, meant for `sink`."""

    after_s: float
    severity: Severity
    sink: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a watch beyond its thresholds. All durations are stream seconds.

    `hold_s`: it opens once its condition has held for so long; `absent_s`: it is about what has not been seen for so
    long. `max_per_hour`: it opens, changes and is updated at most so often in an hour, None: without limit.
    `update_every_s`: while it is open an event comes so often, 0: none. `emit`: which of its events are sent.
    `profiles`: it is armed only while one of these is; none: always. `count` makes it about a number, `choice`
    about one of some values, whose changes are its events. `describe`: the MLLM says in a sentence what is seen when it
    opens.
    """

    hold_s: float = 0.0
    absent_s: float = 0.0
    max_per_hour: int | None = None
    update_every_s: float = 0.0
    emit: tuple[Emission, ...] = EMISSIONS
    severity: Severity = "info"
    escalate: Escalation | None = None
    schedule: Schedule | None = None
    profiles: tuple[str, ...] = ()
    count: Count | None = None
    choice: tuple[str, ...] = ()
    describe: bool = False

    @property
    def wait_s(self) -> float:
        """Seconds for which the cause of an opening has to last."""
        return self.absent_s or self.hold_s

    @property
    def meaning(self) -> tuple[tuple[str, object], ...]:
        """The rules that are not the default and change what its events mean, by name."""
        said = ((item.name, getattr(self, item.name)) for item in fields(self) if item.name != "describe")
        return tuple((name, value) for name, value in said if value != getattr(PLAIN, name))


PLAIN = Rules()
"""The rules of a watch that names none."""
