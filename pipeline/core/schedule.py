"""Schedules: windows of local time, holidays, and whether a moment lies in them. Pure functions of values."""

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from allocator_engine.errors import not_installed
from pipeline.errors import ConfigError
from pipeline.rules import Schedule, Window

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NAMED = {"daily": tuple(range(7)), "weekdays": tuple(range(5)), "weekends": (5, 6)}
_DAY_MIN = 24 * 60
_WEEK_MIN = 7 * _DAY_MIN
_ANY_YEAR = 2026
_WINDOW = re.compile(r"(?P<days>[a-z,-]+) +(?P<from>\d\d?:\d\d) *- *(?P<to>\d\d?:\d\d)")
_EXPECTED = "expected days and times such as 'mon-fri 22:00-06:00', 'sat,sun 00:00-24:00' or 'daily 08:00-17:30'"


def armed_at(schedule: Schedule, at: datetime) -> bool:
    """True if a moment, UTC or of any zone, lies in the schedule.

    A moment has one local time, whatever clocks do there: an hour that is skipped never comes, and one that is repeated
    counts twice.
    """
    local = at.astimezone(_zone(schedule.zone))
    minute, today = local.hour * 60 + local.minute, local.date()
    if schedule.on_holidays == "on" and is_holiday(schedule, today):
        return True
    return any(_covers(schedule, window, today, minute) for window in schedule.windows)


def _covers(schedule: Schedule, window: Window, today: date, minute: int) -> bool:
    if window.end_min > window.start_min:
        return window.start_min <= minute < window.end_min and _begins(schedule, window, today)
    if minute >= window.start_min and _begins(schedule, window, today):
        return True
    return minute < window.end_min and _begins(schedule, window, today - timedelta(days=1))


def _begins(schedule: Schedule, window: Window, day: date) -> bool:
    off = schedule.on_holidays == "off" and is_holiday(schedule, day)
    return day.weekday() in window.days and not off


def is_holiday(schedule: Schedule, day: date) -> bool:
    """True if a local day is one of the schedule's holidays."""
    return day in schedule.holidays or (schedule.country is not None and day in _holidays(schedule.country, day.year))


def longest_s(schedule: Schedule) -> float:
    """The longest stretch for which the schedule is armed without a break, in seconds of a week without holidays and
    changes of clocks; infinite where it never ends."""
    minutes = [False] * _WEEK_MIN
    for window in schedule.windows:
        length = (window.end_min - window.start_min) % _DAY_MIN or _DAY_MIN
        for day in window.days:
            for minute in range(length):
                minutes[(day * _DAY_MIN + window.start_min + minute) % _WEEK_MIN] = True
    if all(minutes):
        return float("inf")
    longest = run = 0
    for on in (*minutes, *minutes):
        run = run + 1 if on else 0
        longest = max(longest, run)
    return longest * 60.0


def parse_window(text: str) -> Window:
    """A window as people write it. Raises ConfigError."""
    found = _WINDOW.fullmatch(" ".join(text.lower().split()))
    if found is None:
        raise ConfigError(f"{text[:80]!r} is no window; {_EXPECTED}")
    start_min, end_min = (_minute(found[name], text) for name in ("from", "to"))
    if start_min in (end_min, _DAY_MIN):
        raise ConfigError(f"{text[:80]!r} has no length; {_EXPECTED}")
    return Window(tuple(sorted(set(_days(found["days"], text)))), start_min, end_min)


def _minute(clock: str, text: str) -> int:
    hour, minute = map(int, clock.split(":"))
    if minute > 59 or hour * 60 + minute > _DAY_MIN:
        raise ConfigError(f"{clock} in {text[:80]!r} is no time of day; expected 00:00 to 24:00")
    return hour * 60 + minute


def _days(names: str, text: str) -> Iterator[int]:
    for part in names.split(","):
        if part in _NAMED:
            yield from _NAMED[part]
            continue
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ConfigError(f"{part!r} in {text[:80]!r} names no days; {_EXPECTED}")
        start, end = DAYS.index(first), DAYS.index(last) if dash else DAYS.index(first)
        yield from ((start + step) % 7 for step in range((end - start) % 7 + 1))


def check_zone(name: str) -> None:
    """Raises ConfigError for a time zone that is not known here."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        nowhere = "" if available_timezones() else f"; this system knows none: {not_installed('tzdata', 'schedules')}"
        raise ConfigError(
            f"{name[:80]!r} is no time zone; expected an IANA name such as Europe/Berlin or UTC{nowhere}"
        ) from error


def check_country(name: str) -> None:
    """Raises ConfigError for a country, or a part of one, whose holidays are not known."""
    try:
        _holidays(name, _ANY_YEAR)
    except ImportError as error:
        raise ConfigError(
            f"the holidays of a country are asked for, and {not_installed('holidays', 'schedules')}"
        ) from error
    except (NotImplementedError, KeyError, ValueError) as error:
        raise ConfigError(
            f"the holidays of {name[:40]!r} are not known; expected a country code such as DE, or with a part DE-BY"
        ) from error


@lru_cache(256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@lru_cache(256)
def _holidays(name: str, year: int) -> frozenset[date]:
    import holidays  # of the extra `schedules`

    country, _, part = name.partition("-")
    return frozenset(holidays.country_holidays(country, subdiv=part or None, years=year))
