"""Times as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.core.spans import moment_of, seconds_of
from pipeline.errors import ConfigError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", 5400),
        ("24h", 86_400),
        ("7d", 604_800),
        ("1s", 1),
        ("0d", None),
        ("7", None),
        ("-7d", None),
        ("7 d", None),
    ],
)
def test_a_span_is_a_number_and_a_unit(text, seconds):
    assert seconds_of(text) == seconds


def test_a_moment_is_a_span_before_now_or_a_time():
    assert moment_of("since", "2h", NOW) == NOW - timedelta(hours=2)
    assert moment_of("since", "2026-02-01", NOW) == datetime(2026, 2, 1, tzinfo=UTC)
    assert moment_of("since", "2026-02-01T10:00:00+02:00", NOW) == datetime(2026, 2, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "0d", "999999d", "2026-13-01", "9" * 500, "\0"])
def test_what_is_neither_is_named(text):
    with pytest.raises(ConfigError, match=r"^since: "):
        moment_of("since", text, NOW)
