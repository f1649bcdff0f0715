"""`resadapt sink`: where a running service's events go; add, change and try it."""

from typing import Annotated, Any

import typer

from pipeline.cli.output import ScreenColumn, table
from pipeline.cli.remote import ApiKey, AsJson, Remote, Url, path_of, remote
from pipeline.config.settings import settings
from pipeline.config.sinks import SINK_CHOICES
from pipeline.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="The sinks of a running service.")

Slug = Annotated[str, typer.Argument(help="The sink's slug.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting as in a site file, such as rate_limit.events=20.")
]


@app.callback()
def about() -> None:
    """The sinks of a running service."""


@app.command(epilog="Example: resadapt sink add mqtt://broker/plant --set 'filter.types=[watch.*]'")
def add(
    sink: Annotated[str, typer.Argument(help=f"{SINK_CHOICES}.")],
    name: Annotated[str | None, typer.Option(help="Slug; by default made from the URL.")] = None,
    set_: Settings = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Add a sink: events that are decided from now on go there too."""
    service = remote(url, key, as_json)
    body = {"url": sink} | settings(set_) | ({"slug": name} if name else {})
    _show_one(service, service.send("POST", "/v1/sinks", body))


@app.command("list", epilog="Example: resadapt sink list")
def list_(
    limit: Annotated[int, typer.Option(min=1)] = 1000,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """All sinks, and what waits for them."""
    service = remote(url, key, as_json)
    items = service.all("/v1/sinks", limit)
    service.show(items) if as_json else table(COLUMNS, [row(item) for item in items])


@app.command(epilog="Example: resadapt sink show pager --json")
def show(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """One sink: how it is wanted, and what waits for it."""
    service = remote(url, key, as_json)
    _show_one(service, service.get(path_of("sinks", slug)))


@app.command(epilog="Example: resadapt sink edit pager --set rate_limit.events=20 --set rate_limit.per=hour")
def edit(
    slug: Slug,
    set_: Settings = None,
    revision: Annotated[int | None, typer.Option(help="Only if it is at this revision.")] = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Change some of its settings; an empty value (`--set rate_limit=`) takes one back to its default."""
    service = remote(url, key, as_json)
    if not set_:
        raise ConfigError("nothing to change; give --set NAME=VALUE")
    headers = {"If-Match": f'"{revision}"'} if revision else None
    _show_one(service, service.send("PATCH", path_of("sinks", slug), settings(set_), headers=headers))


@app.command(epilog="Example: resadapt sink remove pager")
def remove(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Remove it; what waits for it stays in the store."""
    service = remote(url, key, as_json)
    service.send("DELETE", path_of("sinks", slug))
    service.show({"removed": slug}) if as_json else table(("removed",), [(slug,)])


@app.command("test", epilog="Example: resadapt sink test pager --send")
def try_sink(
    name: Annotated[str, typer.Argument(help="The sink's slug.")],
    send: Annotated[bool, typer.Option("--send", help="Also deliver one event of the type sink.test.")] = False,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let the service try whether events could go there. Exit code 0: they could; 2: there is no such sink, or its
    settings are wrong; 3: it cannot take events now, and the reason."""
    service = remote(url, key, as_json)
    found = service.send("POST", path_of("sinks", name, "/test"), params={"send": send or None})
    service.show(found) if as_json else table((name,), [(found["detail"],)])


COLUMNS = (
    ScreenColumn("sink", 9, text=True),
    ScreenColumn("url", 2, text=True),
    ScreenColumn("pending", 7),
    ScreenColumn("published", 6),
    ScreenColumn("filtered", 4),
    ScreenColumn("held back", 5),
    ScreenColumn("trouble", 8, text=True),
)


def row(item: dict[str, Any]) -> tuple[object, ...]:
    """A sink as a line of a table."""
    counts = (item["pending"], item["published"], item["filtered"], item["held_back"])
    return (item["slug"], item["spec"].get("url"), *counts, item["last_error"])


def _show_one(service: Remote, found: dict[str, Any]) -> None:
    service.show(found) if service.as_json else table(COLUMNS, [row(found)])
