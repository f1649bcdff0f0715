"""The rules of a watch in a site file, and which of them contradict each other."""

from collections.abc import Collection, Iterator
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from pydantic.dataclasses import dataclass

from pipeline.config.values import STRICT, NotNegative, Positive, Slug
from pipeline.core.questions import clean_question
from pipeline.core.schedule import check_country, check_zone, longest_s, parse_window
from pipeline.errors import ConfigError
from pipeline.rules import (
    ESCALATED,
    MOST_COUNTED,
    PLAIN,
    SEVERITIES,
    Comparator,
    Count,
    Emission,
    Escalation,
    Rules,
    Schedule,
    Severity,
)

Value = Annotated[str, StringConstraints(min_length=1, max_length=60)]
"""One of the answers to a choice."""

MOST_VALUES = 20


@dataclass(frozen=True, slots=True, config=STRICT)
class CountConfig:
    """The comparison that a number in the answer has to fulfil."""

    op: Comparator
    value: Annotated[int, Field(ge=0, lt=MOST_COUNTED)]


@dataclass(frozen=True, slots=True, config=STRICT)
class ScheduleConfig:
    """When a watch is armed, by the local time of `zone`: `times` such as "mon-fri 22:00-06:00"; `holidays` are days,
    `country` such as DE-BY names more; they are "off", or armed all day ("on")."""

    zone: Annotated[str, StringConstraints(max_length=80)]
    times: Annotated[tuple[Annotated[str, StringConstraints(max_length=80)], ...], Field(min_length=1, max_length=50)]
    holidays: Annotated[tuple[date, ...], Field(max_length=500)] = ()
    country: Annotated[str, StringConstraints(max_length=20)] | None = None
    on_holidays: Literal["off", "on"] = "off"


@dataclass(frozen=True, slots=True, config=STRICT)
class EscalateConfig:
    """Still open after `after_s`, a watch's severity rises to `severity`; `sink` is for whom that is."""

    after_s: Positive
    severity: Severity = ESCALATED
    sink: Slug | None = None


@dataclass(frozen=True, slots=True, config=STRICT, kw_only=True)
class RulesConfig:
    """Settings of a watch besides its question and thresholds; see `pipeline.rules.Rules`."""

    hold_s: NotNegative = PLAIN.hold_s
    absent_s: NotNegative = PLAIN.absent_s
    max_per_hour: Annotated[int, Field(ge=1, le=1000)] | None = PLAIN.max_per_hour
    update_every_s: NotNegative = PLAIN.update_every_s
    emit: Annotated[tuple[Emission, ...], Field(min_length=1)] = PLAIN.emit
    severity: Severity = PLAIN.severity
    escalate: EscalateConfig | None = None
    schedule: ScheduleConfig | None = None
    profiles: Annotated[tuple[Slug, ...], Field(max_length=50)] = ()
    count: CountConfig | None = None
    choice: Annotated[tuple[Value, ...], Field(max_length=MOST_VALUES)] = ()
    describe: bool = PLAIN.describe

    def rules(self) -> Rules:
        """The rules as they are judged by. Raises ConfigError naming the setting that cannot be, or contradicts another
        one."""
        count = Count(self.count.op, self.count.value) if self.count else None
        found = Rules(
            self.hold_s,
            self.absent_s,
            self.max_per_hour,
            self.update_every_s,
            tuple(dict.fromkeys(self.emit)),
            self.severity,
            Escalation(self.escalate.after_s, self.escalate.severity, self.escalate.sink) if self.escalate else None,
            schedule_of(self.schedule) if self.schedule else None,
            self.profiles,
            count,
            tuple(" ".join(value.split()) for value in self.choice),
            self.describe,
        )
        for fault in contradictions(found):
            raise ConfigError(fault)
        return found


def schedule_of(config: ScheduleConfig) -> Schedule:
    """A schedule as it is judged by. Raises ConfigError."""
    for name, check, value in (("zone", check_zone, config.zone), ("country", check_country, config.country)):
        if value is not None:
            try:
                check(value)
            except ConfigError as error:
                raise ConfigError(f"schedule.{name}: {error}") from error
    try:
        windows = tuple(parse_window(text) for text in config.times)
    except ConfigError as error:
        raise ConfigError(f"schedule.times: {error}") from error
    return Schedule(config.zone, windows, config.holidays, config.country, config.on_holidays)


def contradictions(rules: Rules) -> Iterator[str]:
    """Contradictions between settings, each in words that name them."""
    yield from _of_values(rules)
    if rules.hold_s and rules.absent_s:
        yield "hold_s and absent_s are both given; a watch is about what lasts or about what is absent, expected one"
    if rules.choice and rules.absent_s:
        yield "choice and absent_s are both given; a choice has no absence: ask a yes or no question for that"
    if rules.schedule and (longest := longest_s(rules.schedule)) <= rules.wait_s:
        name = "absent_s" if rules.absent_s else "hold_s"
        yield (
            f"{name} is {rules.wait_s:g} s, but schedule never arms it for longer than {longest:g} s; it could not open"
        )
    if rules.update_every_s and "updated" not in rules.emit:
        yield "update_every_s is given, but emit has no 'updated'; add it, or leave out update_every_s"
    if rules.escalate and SEVERITIES.index(rules.escalate.severity) <= SEVERITIES.index(rules.severity):
        yield (
            f"escalate.severity is {rules.escalate.severity}, which is not above severity {rules.severity}; expected a"
            f" higher one of {', '.join(SEVERITIES)}"
        )


def _of_values(rules: Rules) -> Iterator[str]:
    if rules.choice and rules.count:
        yield "choice and count are both given; an answer is one of some values or a number, expected one of the two"
    if rules.choice:
        try:
            spelled = {clean_question(value).casefold() for value in rules.choice}
        except ConfigError:
            spelled = set()
        if len(spelled) != len(rules.choice) or "unknown" in spelled:
            yield f"choice is {list(rules.choice)}; expected values that differ, in words, and none of them 'unknown'"
        if len(spelled) == 1:
            yield f"choice is {list(rules.choice)}; expected two values or more: one alone never changes"
        if rules.escalate:
            yield "choice and escalate are both given; a choice is never over: escalate a yes or no question"
    if rules.count:
        held = [rules.count.holds(number) for number in range(MOST_COUNTED + 1)]
        if all(held) or not any(held):
            yield (
                f"count is {rules.count.op} {rules.count.value}, which {'every' if all(held) else 'no'} number fulfils;"
                " expected a comparison that can change"
            )


def check_sink(watch: RulesConfig, sinks: Collection[str]) -> None:
    """Raise ConfigError where a watch escalates to a sink that the site does not have."""
    sink = watch.escalate.sink if watch.escalate else None
    if sink is not None and sink not in sinks:
        raise ConfigError(f"escalate.sink is {sink!r}; the sinks are {', '.join(sorted(sinks)) or 'none'}")
