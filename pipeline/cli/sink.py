"""`resadapt sink`: try a sink of a running service."""

from typing import Annotated

import typer

from pipeline.cli.remote import ApiKey, AsJson, Url, path_of, remote, table

app = typer.Typer(no_args_is_help=True, help="The sinks of a running service.")


@app.callback()
def about() -> None:
    """The sinks of a running service."""


@app.command("test", epilog="Example: resadapt sink test journal")
def try_sink(
    name: Annotated[str, typer.Argument(help="The sink's slug.")],
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let the service try whether events could go there."""
    service = remote(url, key, as_json)
    found = service.send("POST", path_of("sinks", name, "/test"))
    service.show(found) if as_json else table((name,), [(found["detail"],)])
