"""The display of running streams: the events as they are decided and, on a terminal, a line per stream."""

import asyncio
import sys
from collections.abc import Mapping, Sequence

from rich.live import Live
from rich.table import Table

from pipeline.cli.ending import unwritten
from pipeline.cli.output import Output, ScreenColumn, fitted, share, shown
from pipeline.clock import Clock
from pipeline.errors import SinkGone
from pipeline.service.attachment import Attachment
from pipeline.service.service import Service
from pipeline.types import Event

REFRESH_S = 0.25
_COLOURS = {"watch.opened": "bold red", "watch.cleared": "green", "mllm.meaningless": "yellow"}
_COLOURS |= dict.fromkeys(("stream.lost", "stream.damaged", "stream.restamped", "stream.misshapen"), "yellow")
_COLOURS |= dict.fromkeys(("stream.frozen", "stream.blind", "stream.moved", "watch.unknown"), "yellow")
_COLUMNS = (
    ScreenColumn("stream"),
    ScreenColumn("state", 9, text=True),
    ScreenColumn("time", 8),
    ScreenColumn("frames/s", 4),
    ScreenColumn("tokens", 3),
    ScreenColumn("of native", 7),
    ScreenColumn("lost", 2),
    ScreenColumn("answers", 6),
    ScreenColumn("unknown", 1),
    ScreenColumn("skipped", 0),
    ScreenColumn("events", 5),
)


class Screen:
    """A sink that prints each event as one line, and a live table of the attached streams where there is a terminal.

    `broken` is set once nobody reads it any more, or it takes nothing more; `failure` is why.
    """

    name = "screen"

    def __init__(self, console: Output) -> None:
        self.broken = asyncio.Event()
        self.failure: SinkGone | None = None
        self._console = console

    async def publish(self, events: Sequence[Event]) -> None:
        try:
            for event in events:
                self._console.print(_line(event), highlight=False, soft_wrap=not self._console.is_terminal)
        except SinkGone as error:
            self._fail(error)
            raise
        except OSError as error:
            failure = unwritten(error)
            self._fail(failure)
            raise failure from error

    def _fail(self, failure: SinkGone) -> None:
        self.failure = failure
        self.broken.set()

    async def check(self) -> str:
        return "the standard output"

    async def close(self) -> None:
        return

    async def follow(self, service: Service, clock: Clock) -> None:
        """Keep the table of a service's streams up to date until cancelled."""
        if not self._console.is_terminal:
            return
        began_s = clock.monotonic_s()
        to_here = sys.stderr.isatty()  # else what is logged to a file would appear here instead
        with Live(
            console=self._console, refresh_per_second=1 / REFRESH_S, transient=True, redirect_stderr=to_here
        ) as live:
            while True:
                live.update(_table(service.attachments, clock.monotonic_s() - began_s, self._console.width))
                await clock.sleep(REFRESH_S)


def _table(attachments: Mapping[str, Attachment], elapsed_s: float, width: int) -> Table:
    rows = []
    for slug, attachment in attachments.items():
        run = attachment.run
        counts = run.counts
        fps = attachment.source.counts.decoded / elapsed_s if elapsed_s else 0.0
        row = (f"{run.decided_s:.0f} s", f"{fps:.1f}", f"{counts.spent:,}", share(counts.allocated, counts.native))
        numbers = (counts.lost, counts.answers, counts.unknown, counts.skipped, counts.events)
        rows.append((slug, attachment.phase, *row, *map(str, numbers)))
    return fitted(_COLUMNS, rows, width)


def _line(event: Event) -> str:
    colour = _COLOURS.get(event.type, "cyan")
    data = event.data
    at_s = data.get("onset_s", data.get("cleared_s", data.get("stream_s")))
    detail = next((data[name] for name in ("question", "reason", "warning", "name") if data.get(name)), "")
    if advice := data.get("advice"):
        detail = f"{detail}; {advice}"
    score = f"  score {float(str(data['score'])):.2f}" if "score" in data else ""
    where = event.stream_id if event.watch_id is None else f"{event.stream_id}/{event.watch_id}"
    return f"[{colour}]{event.type:<16}[/] {at_s:>7} s  {shown(where)}{score}  {shown(detail)}"
