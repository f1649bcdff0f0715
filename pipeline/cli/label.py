"""`resadapt label`: what people have said of events, and of what a watch missed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.doors import Beside, BesideFolder, BesideStore, door
from pipeline.cli.output import ScreenColumn, print_line, table
from pipeline.cli.remote import ApiKey, AsJson, Url
from pipeline.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Labels: what people have said of events and of missed intervals.")

Stream = Annotated[str | None, typer.Option(help="Only of this stream.")]
Watch = Annotated[str | None, typer.Option(help="Only of this watch.")]
COLUMNS = (
    ScreenColumn("label", 9, text=True),
    ScreenColumn("kind", 8, text=True),
    ScreenColumn("stream", 6, text=True),
    ScreenColumn("watch", 7, text=True),
    ScreenColumn("start", 5, text=True),
    ScreenColumn("end", 4, text=True),
    ScreenColumn("note", 3, text=True),
    ScreenColumn("by", 1, text=True),
    ScreenColumn("event", 2, text=True),
)


@app.command("list", epilog="Example: resadapt label list --watch lorry --kind false")
def list_(
    stream: Stream = None,
    watch: Watch = None,
    kind: Annotated[str | None, typer.Option(help="true, false, fixture or missed.")] = None,
    withdrawn: Annotated[bool, typer.Option("--withdrawn", help="Those that were taken back too.")] = False,
    limit: Annotated[int, typer.Option(min=1)] = 100,
    config: Beside = None,
    store: BesideStore = None,
    evidence: BesideFolder = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """The newest first."""
    if kind not in (None, "true", "false", "fixture", "missed"):
        raise ConfigError(f"--kind is {kind!r}; expected true, false, fixture or missed")
    wanted = {"stream": stream, "watch": watch, "kind": kind, "withdrawn": withdrawn}
    with door(config, store, evidence, url, key, as_json) as opened:
        items = opened.labels(wanted, limit)
    if as_json:
        print_line(json.dumps(items, ensure_ascii=False))
        return
    table(
        COLUMNS,
        [(one["id"], one["kind"], one["stream"], one["watch"], one["start"][:19], one["end"][:19], one["note"],
          one["by"], one["event"]) for one in items],
    )  # fmt: skip


@app.command(epilog="Example: resadapt label export labels.csv --watch lorry")
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to; else stdout.")] = None,
    stream: Stream = None,
    watch: Watch = None,
    config: Beside = None,
    store: BesideStore = None,
    evidence: BesideFolder = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Those that stand, oldest first, as CSV: stream, watch, kind, start, end, event, note, by, at, from, until.

    `from` and `until` are what a label is about: an event from its onset to its clear. `resadapt-allocator train` and
    `resadapt watch tune --on` take the file as labels."""
    with door(config, store, evidence, url, key, False) as opened:
        text = opened.export({"stream": stream, "watch": watch})
    if file is None:
        print_line(text.rstrip("\n"))
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error


@app.command(epilog="Example: resadapt label withdraw 17")
def withdraw(
    number: Annotated[int, typer.Argument(help="The label's number.", min=1)],
    config: Beside = None,
    store: BesideStore = None,
    evidence: BesideFolder = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Take one back. It stays on record, with who did it."""
    with door(config, store, evidence, url, key, False) as opened:
        opened.withdraw(number)
    table(("withdrawn",), [(number,)])
