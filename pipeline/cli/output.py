"""Output for people, on a terminal or in a pipe: consoles, tables that fit, and texts that cannot steer a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import NoReturn

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.cli.ending import Unread
from pipeline.logs import set_up_logs

_GAP = 2  # cells between two columns
_TEXT = 20  # cells of a text, beyond which it is folded rather than that another column is dropped
_PIPE = 10_000  # cells of a line in a pipe, where nothing is folded


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
    """A table at most `width` cells wide. The first column, a name, and texts are folded; columns that do not fit even
    so are left out whole, but the first stays. The cells of `rows` are plain texts without markup."""
    kept = list(range(len(columns)))
    is_text = [place == 0 or column.text for place, column in enumerate(columns)]
    widths = [
        max(cell_len(text) for text in (column.header, *(row[place] for row in rows)))
        for place, column in enumerate(columns)
    ]
    least = [min(cells, _TEXT) if text else cells for cells, text in zip(widths, is_text, strict=True)]
    while len(kept) > 1 and sum(least[place] + _GAP for place in kept) - _GAP > width:
        kept.remove(min(kept[1:], key=lambda place: columns[place].rank))
    shown = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for place in kept:
        text = is_text[place]
        shown.add_column(
            columns[place].header,
            min_width=least[place] if len(kept) > 1 else None,
            no_wrap=not text,
            overflow="fold",
            justify="left" if text else "right",
        )
    for row in rows:
        shown.add_row(*(escape(row[place]) for place in kept))
    return shown


def table(header: Sequence[str | ScreenColumn], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a header, fitted to the terminal; whole in a pipe. A column that is only named is a text, and of
    those the last is dropped first."""
    columns = [
        ScreenColumn(one, -place, text=True) if isinstance(one, str) else one for place, one in enumerate(header)
    ]
    console = Output(width=get_terminal_size((_PIPE, 0)).columns)
    cells = [["-" if value is None or value == "" else plain(str(value)) for value in row] for row in rows]
    console.print(fitted(columns, cells, console.width), highlight=False)


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


def warn(warnings: Sequence[str]) -> None:
    """One line on stderr with what people should know, if there is anything."""
    if warnings:
        said = shown("; ".join(warnings))
        notices().print(f"[yellow]warning:[/] {said}", highlight=False, soft_wrap=True)


def set_up(log_level: str, people: bool | None = None) -> None:
    """Logs on stderr, as in `pipeline.logs`; in colours where a terminal has them and NO_COLOR is not set."""
    console = notices()
    set_up_logs(log_level, people, colours=console.color_system is not None and not console.no_color)
