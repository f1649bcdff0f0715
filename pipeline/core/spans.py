"""Spans of time as people write them: `90m`, `24h`, `7d`. Pure functions."""

import re
from datetime import datetime, timedelta

from pipeline.clock import as_utc
from pipeline.errors import ConfigError

EXAMPLES = "90m, 24h or 7d"

_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(text: str) -> int | None:
    """Seconds of a span; None for what is none."""
    found = _SPAN.fullmatch(text)
    return (int(found[1]) * _SECONDS[found[2]] or None) if found else None


def moment_of(name: str, text: str, now: datetime) -> datetime:
    """A time (UTC) that is given as a span before now, or in ISO 8601, UTC where it names no zone.

    Raises ConfigError, with the name of the setting, for what is neither.
    """
    try:
        if (seconds := seconds_of(text)) is not None:
            return now - timedelta(seconds=seconds)
        return as_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{name}: {text[:80]!r} is no time; expected a span before now such as {EXAMPLES}, or ISO 8601 such as"
            " 2026-11-29T12:00:00Z"
        ) from None
