"""Structured logs on stderr: lines for people on a terminal, JSON for machines. Credentials are scrubbed last."""

import logging
import math
import sys
from typing import TextIO

import structlog

from pipeline.errors import ConfigError
from pipeline.redact import scrub

SELDOM_S = 60.0
"""Between two lines about the same trouble."""

LEVELS = ("debug", "info", "warning", "error")

_EVENT_CELLS = 18


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


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at that moment: a live table takes its place, so that lines go above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def set_up_logs(level: str, people: bool | None = None, colours: bool | None = None) -> None:
    """Send structlog, the standard library's logging and warnings to stderr at `level`, without credentials: as lines
    if `people` read them, in `colours` or not, else as JSON. None of both: lines in colours on a terminal.

    Raises ConfigError for another level than LEVELS.
    """
    if level.lower() not in LEVELS:
        raise ConfigError(f"--log-level is {level!r}; expected one of {', '.join(LEVELS)}")
    people = sys.stderr.isatty() if people is None else people
    colours = sys.stderr.isatty() if colours is None else colours
    stamp = structlog.processors.TimeStamper("%H:%M:%S", utc=False) if people else _iso()
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        stamp,
        structlog.processors.format_exc_info,
        _without_credentials,
    ]
    last: list[structlog.typing.Processor] = (
        [_without_controls, _lines(colours)] if people else [structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = _ToStderr()
    keep = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[keep, _without_credentials, *last])
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for chatty in ("httpx", "httpcore", "kafka", "urllib3", "filelock", "uvicorn.error", "apprise", "aiomqtt"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _iso() -> structlog.typing.Processor:
    return structlog.processors.TimeStamper(fmt="iso", utc=True)


def _lines(colours: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=colours, pad_event_to=_EVENT_CELLS, pad_level=False, sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )  # fmt: skip


def _without_controls(_logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Control characters, by which a text of others could steer the terminal, as their escapes."""
    return {key: _printable(value) if isinstance(value, str) else value for key, value in entry.items()}


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)


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
