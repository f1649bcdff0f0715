"""Schedules in local time, on days of every length."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.schedule import armed_at, check_country, check_zone, longest_s, parse_window
from pipeline.errors import ConfigError
from pipeline.rules import Schedule, Window

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia")
WINDOWS = st.builds(
    Window,
    st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    st.integers(0, 1439),
    st.integers(0, 1440),
).filter(lambda window: window.start_min != window.end_min)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))


def minutes_armed(schedule, day):
    """Minutes of a local day in which it is armed, counted by the minutes that pass."""
    zone = ZoneInfo(schedule.zone)
    at, end = (datetime(one.year, one.month, one.day, tzinfo=zone).astimezone(UTC) for one in (day, day + timedelta(1)))
    count = 0
    while at < end:
        count += armed_at(schedule, at)
        at += timedelta(minutes=1)
    return count


@pytest.mark.parametrize(
    ("day", "minutes"),
    [(date(2026, 3, 28), 180), (date(2026, 3, 29), 120), (date(2026, 10, 25), 240)],
    ids=["a usual day", "an hour is skipped", "an hour is repeated"],
)
def test_a_window_has_the_hours_that_the_day_has(day, minutes):
    assert minutes_armed(Schedule("Europe/Berlin", (parse_window("daily 01:00-04:00"),)), day) == minutes


def test_a_window_in_the_hour_that_is_skipped_does_not_come_that_day():
    schedule = Schedule("Europe/Berlin", (parse_window("daily 02:10-02:50"),))
    days = [minutes_armed(schedule, date(2026, 3, day)) for day in (28, 29, 30)]
    assert days == [40, 0, 40]
    assert minutes_armed(schedule, date(2026, 10, 25)) == 80


@given(st.sampled_from(ZONES), WINDOWS, MOMENTS)
def test_a_moment_is_armed_by_its_local_time_whatever_zone_it_is_given_in(zone, window, at):
    schedule = Schedule(zone, (window,))
    local = at.astimezone(ZoneInfo(zone))
    minute = local.hour * 60 + local.minute
    overnight = window.end_min <= window.start_min
    today = local.weekday() in window.days and minute >= window.start_min and (overnight or minute < window.end_min)
    before = overnight and (local.weekday() - 1) % 7 in window.days and minute < window.end_min
    assert armed_at(schedule, at) == (today or before)
    assert armed_at(schedule, at.astimezone(ZoneInfo("Asia/Tokyo"))) == armed_at(schedule, at)


@given(st.lists(WINDOWS, min_size=1, max_size=3), st.sampled_from(ZONES), MOMENTS)
def test_more_windows_never_arm_less(windows, zone, at):
    assert armed_at(Schedule(zone, tuple(windows)), at) >= armed_at(Schedule(zone, tuple(windows[:1])), at)


def test_a_window_over_midnight_belongs_to_the_day_it_begins_on():
    schedule = Schedule("UTC", (parse_window("fri 22:00-06:00"),))
    friday = datetime(2026, 1, 2, tzinfo=UTC)
    hours = [hour for hour in range(72) if armed_at(schedule, friday + timedelta(hours=hour))]
    assert hours == list(range(22, 30))


def test_holidays_are_off_or_on():
    monday = date(2026, 5, 25)
    windows = (parse_window("daily 08:00-17:00"),)
    off, on = (Schedule("UTC", windows, (monday,), on_holidays=how) for how in ("off", "on"))
    assert (minutes_armed(off, monday), minutes_armed(on, monday)) == (0, 24 * 60)
    assert minutes_armed(off, date(2026, 5, 26)) == minutes_armed(on, date(2026, 5, 26)) == 9 * 60


def test_holidays_of_a_country_and_of_a_part_of_it():
    windows = (parse_window("daily 08:00-09:00"),)
    corpus_christi = date(2026, 6, 4)
    assert minutes_armed(Schedule("Europe/Berlin", windows, country="DE-BY"), corpus_christi) == 0
    assert minutes_armed(Schedule("Europe/Berlin", windows, country="DE-BE"), corpus_christi) == 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mon-fri 22:00-06:00", Window((0, 1, 2, 3, 4), 1320, 360)),
        ("SAT, sun 00:00 - 24:00", None),
        ("sat,sun 00:00-24:00", Window((5, 6), 0, 1440)),
        ("fri-mon 8:00-9:30", Window((0, 4, 5, 6), 480, 570)),
        ("weekdays 07:00-19:00", Window((0, 1, 2, 3, 4), 420, 1140)),
        ("daily 12:00-12:00", None),
        ("daily 24:00-06:00", None),
        ("daily 25:00-06:00", None),
        ("daily 12:60-13:00", None),
        ("someday 12:00-13:00", None),
        ("mon- 12:00-13:00", None),
        ("", None),
        ("x" * 10_000, None),
    ],
)
def test_windows_are_read_as_people_write_them_or_refused_by_name(text, expected):
    if expected is None:
        with pytest.raises(ConfigError, match="expected"):
            parse_window(text)
    else:
        assert parse_window(text) == expected


def test_the_longest_stretch_goes_over_midnight_and_the_end_of_the_week():
    assert longest_s(Schedule("UTC", (parse_window("daily 08:00-09:00"),))) == 3600
    assert longest_s(Schedule("UTC", (parse_window("sun 20:00-24:00"), parse_window("mon 00:00-02:00")))) == 6 * 3600
    assert longest_s(Schedule("UTC", (parse_window("daily 00:00-24:00"),))) == float("inf")


@pytest.mark.parametrize("name", ["Mars/Phobos", "", "../../etc/passwd", "Europe/Berlin\0"])
def test_a_zone_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match="IANA"):
        check_zone(name)


@pytest.mark.parametrize("name", ["XX", "DE-XX", "", "Germany of old"])
def test_a_country_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match="country code"):
        check_country(name)
