"""`resadapt event`: what a running service has decided, and decides."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pipeline.cli.output import ScreenColumn, plain, print_line, table
from pipeline.cli.remote import ApiKey, AsJson, Remote, ServiceUnavailable, Url, path_of, remote
from pipeline.clock import SystemClock
from pipeline.waiting import back_off_s

app = typer.Typer(no_args_is_help=True, help="The events of a running service.")

Stream = Annotated[str | None, typer.Option(help="Only of this stream.")]
Watch = Annotated[str | None, typer.Option(help="Only of this watch.")]
RETRY_S = (0.5, 10.0)
"""First and longest pause of `tail` before it asks again where the service went."""


@app.command(
    "list", epilog="Example: resadapt event list --watch lorry --type watch.opened --since 2026-11-29T12:00:00Z"
)
def list_(
    stream: Stream = None,
    watch: Watch = None,
    type_: Annotated[list[str] | None, typer.Option("--type", help="Only of this type; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="Not before this time (ISO 8601, UTC without a zone).")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    label: Annotated[str | None, typer.Option(help="Only what was labelled true, false or fixture.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """The newest events first."""
    service = remote(url, key, as_json)
    wanted = {"stream": stream, "watch": watch, "type": type_, "since": since, "until": until, "label": label}
    items = service.all("/v1/events", limit, **wanted)
    service.show(items) if as_json else table(COLUMNS, [row(item) for item in items])


@app.command(epilog="Example: resadapt event show 5b0c...")
def show(
    event_id: Annotated[str, typer.Argument(help="The event's id.")],
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """One event with all its data."""
    service = remote(url, key, as_json)
    item = service.get(path_of("events", event_id))
    if as_json:
        service.show(item)
        return
    table(COLUMNS, [row(item)])
    table(("data", "value"), list(item["data"].items()))


@app.command(epilog="Example: resadapt event tail --json | jq .data.score")
def tail(
    stream: Stream = None,
    watch: Watch = None,
    after: Annotated[int | None, typer.Option(help="Begin behind this `seq`; else with what comes.")] = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Events as they are decided, one a line, until Ctrl-C. Where the service goes away it is waited for, and nothing
    is missed."""
    service, last, failures, clock = remote(url, key, as_json), None if after is None else str(after), 0, SystemClock()
    while True:
        try:
            with service.lines("/v1/events/stream", {"stream": stream, "watch": watch}, last) as lines:
                for seq, data in _events(lines):
                    last, failures = seq, 0
                    _print(service, json.loads(data))
        except ServiceUnavailable:
            failures += 1
            if last is None and failures == 1:
                raise
        clock.wait(back_off_s(max(failures, 1), *RETRY_S))


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Id and data of each event of a stream of server-sent events."""
    seq = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            seq = value
        elif name == "data" and seq:
            yield seq, value
            seq = ""


def _print(service: Remote, item: dict[str, Any]) -> None:
    if service.as_json:
        print_line(json.dumps(item, ensure_ascii=False))
    else:
        print_line("  ".join(plain(str(value)) for value in row(item)))


COLUMNS = (
    ScreenColumn("time", 9, text=True),
    ScreenColumn("type", 8, text=True),
    ScreenColumn("stream", 5, text=True),
    ScreenColumn("watch", 6, text=True),
    ScreenColumn("score", 3),
    ScreenColumn("label", 2, text=True),
    ScreenColumn("id", 7, text=True),
)


def row(item: dict[str, Any]) -> tuple[object, ...]:
    """An event as a line of a table."""
    time, score = item["time"][:19].replace("T", " "), item["data"].get("score", "-")
    return time, item["type"], item["stream"], item["watch"] or "-", score, item["label"] or "-", item["id"]
