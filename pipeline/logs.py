"""Structured logs on stderr: lines for people on a terminal, JSON for machines. Credentials are scrubbed last."""

import logging
import sys

import structlog

from pipeline.errors import ConfigError
from pipeline.redact import scrub

LEVELS = ("debug", "info", "warning", "error")


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
