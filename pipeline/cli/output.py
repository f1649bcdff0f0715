"""Output for people, on a terminal or in a pipe: consoles, tables that fit, and texts that cannot steer a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.cli.ending import Unread
from pipeline.logs import set_up_logs

_GAP = 2  # cells between two columns
_NAME = 24  # cells of the first column, beyond which it is folded rather than that another column is dropped


class Output(Console):
    """The standard output. Raises Unread once nobody reads it any more."""

    def on_broken_pipe(self) -> NoReturn:
        raise Unread("nobody reads the standard output any more")


@dataclass(frozen=True, slots=True)
class ScreenColumn:
    """A column of a table: its header, its rank (where there is too little room, the lowest is dropped first), and
    whether it holds text, which stands to the left."""

    header: str
    rank: int = 0
    text: bool = False


def fitted(columns: Sequence[ScreenColumn], rows: Sequence[Sequence[str]], width: int) -> Table:
    """A table at most `width` cells wide. Columns that do not fit are left out whole; the first, a name, stays and is
    folded. The cells of `rows` are plain texts without markup."""
    kept = list(range(len(columns)))
    widths = [
        max(cell_len(text) for text in (column.header, *(row[place] for row in rows)))
        for place, column in enumerate(columns)
    ]
    widths[0] = min(widths[0], _NAME)
    while len(kept) > 1 and sum(widths[place] + _GAP for place in kept) - _GAP > width:
        kept.remove(min(kept[1:], key=lambda place: columns[place].rank))
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for place in kept:
        left = place == 0 or columns[place].text
        table.add_column(
            columns[place].header, no_wrap=place != 0, overflow="fold", justify="left" if left else "right"
        )
    for row in rows:
        table.add_row(*(escape(row[place]) for place in kept))
    return table


def shown(text: object) -> str:
    """A text of others for a console: markup and control characters, by which it could steer a terminal, as text."""
    return escape(plain(str(text)))


def plain(text: str) -> str:
    """Control and other unprintable characters as their escapes."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def print_line(line: str) -> None:
    """A line for programs on stdout, at once. Raises Unread if nobody reads it."""
    try:
        print(line, flush=True)  # noqa: T201 - the command's output
    except BrokenPipeError:
        raise Unread("nobody reads the standard output any more") from None


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent, "-" of nothing."""
    return f"{100 * part / whole:.0f} %" if whole else "-"


def notices() -> Console:
    """The standard error, for what belongs into no pipe."""
    return Console(stderr=True)


def set_up(log_level: str, people: bool | None = None) -> None:
    """Logs on stderr, as in `pipeline.logs`; in colours where a terminal has them and NO_COLOR is not set."""
    console = notices()
    set_up_logs(log_level, people, colours=console.color_system is not None and not console.no_color)
