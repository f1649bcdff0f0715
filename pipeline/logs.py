"""Structured logs on stderr: lines for people on a terminal, JSON for machines. Credentials are scrubbed last."""

import logging
import math
import sys

import structlog

from pipeline.errors import ConfigError
from pipeline.redact import scrub

SELDOM_S = 60.0
"""Between two lines about the same trouble."""

LEVELS = ("debug", "info", "warning", "error")


class Seldom:
    """Decides which lines about a lasting trouble are written: the first at once, then one a minute, each with the
    number of times since the last."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[float, int]] = {}

    def times(self, trouble: str, now_s: float) -> int | None:
        """Note the trouble once more, at monotonic seconds. How often it was met since its last line, this time
        included, if it is to have a line now; else None."""
        last_s, count = self._since.get(trouble, (-math.inf, 0))
        due = now_s - last_s >= SELDOM_S
        self._since[trouble] = (now_s, 0) if due else (last_s, count + 1)
        return count + 1 if due else None


def set_up_logs(level: str) -> None:
    """Send structlog, the standard library's logging and warnings to stderr at `level`, without credentials. Raises
    ConfigError for another level than LEVELS."""
    if level.lower() not in LEVELS:
        raise ConfigError(f"--log-level is {level!r}; expected one of {', '.join(LEVELS)}")
    people = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _without_credentials,
    ]
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    keep = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[keep, _without_credentials, last])
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for chatty in ("httpx", "httpcore", "kafka", "urllib3", "filelock"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _without_credentials(
    _logger: object, _method: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {key: _scrubbed(value) for key, value in entry.items()}


def _scrubbed(value: object) -> object:
    if isinstance(value, str | BaseException):
        return scrub(str(value))
    if isinstance(value, dict):
        return {key: _scrubbed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(each) for each in value]
    return value
