"""What a person sees of `resadapt run`: a progress line per stream, and the events as they are decided. On stderr."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from pipeline.clock import Clock
from pipeline.service.attachment import Attachment
from pipeline.service.service import Service
from pipeline.types import Event

REFRESH_S = 0.25
_COLOURS = {"watch.opened": "bold red", "watch.cleared": "green", "mllm.meaningless": "yellow"}
_COLOURS |= dict.fromkeys(("stream.lost", "stream.damaged", "stream.restamped", "stream.misshapen"), "yellow")
_COLUMNS = ("stream", "state", "time", "frames/s", "spent/granted", "lost", "answers", "unknown", "skipped", "events")


class Screen:
    """A sink that prints each event as one line, and a live table of the attached streams."""

    name = "screen"

    def __init__(self, console: Console) -> None:
        self._console = console

    async def publish(self, events: Sequence[Event]) -> None:
        for event in events:
            self._console.print(_line(event), highlight=False, soft_wrap=True)

    async def check(self) -> str:
        return "stderr"

    async def close(self) -> None:
        return

    async def follow(self, service: Service, clock: Clock) -> None:
        """Keep the table of a service's streams up to date until cancelled."""
        began_s = clock.monotonic_s()
        with Live(console=self._console, refresh_per_second=1 / REFRESH_S, transient=True) as live:
            while True:
                live.update(_table(service.attachments, clock.monotonic_s() - began_s))
                await clock.sleep(REFRESH_S)


def _table(attachments: Mapping[str, Attachment], elapsed_s: float) -> Table:
    table = Table(*_COLUMNS, box=None, header_style="dim")
    for slug, attachment in attachments.items():
        run = attachment.run
        counts = run.counts
        fps = attachment.source.counts.decoded / elapsed_s if elapsed_s else 0.0
        row = (f"{run.decided_s:.1f} s", f"{fps:.1f}", f"{counts.spent}/{counts.granted}")
        numbers = (counts.lost, counts.answers, counts.unknown, counts.skipped, counts.events)
        table.add_row(slug, attachment.phase, *row, *map(str, numbers))
    return table


def _line(event: Event) -> str:
    colour = _COLOURS.get(event.type, "cyan")
    at_s = event.data.get("onset_s", event.data.get("cleared_s", event.data.get("stream_s")))
    detail = event.data.get("question") or event.data.get("reason") or event.data.get("warning") or ""
    if advice := event.data.get("advice"):
        detail = f"{detail}; {advice}"
    score = f" score {event.data['score']}" if "score" in event.data else ""
    where = event.stream_id if event.watch_id is None else f"{event.stream_id}/{event.watch_id}"
    return f"[{colour}]{event.type:<16}[/] {at_s:>8} s  {escape(where)}  {escape(str(detail))}{score}"
