"""`resadapt node`: the machines of a fleet."""

from typing import Annotated, Any

import typer

from pipeline.cli.output import ScreenColumn, table
from pipeline.cli.remote import ApiKey, AsJson, ServiceUnavailable, Url, path_of, remote
from pipeline.clock import SystemClock

app = typer.Typer(no_args_is_help=True, help="The nodes of a fleet (serve --cluster).")

Name = Annotated[str, typer.Argument(help="The node's name.")]

COLUMNS = (
    ScreenColumn("node", 9, text=True),
    ScreenColumn("state", 8, text=True),
    ScreenColumn("streams", 6),
    ScreenColumn("up", 5),
    ScreenColumn("cores", 4),
    ScreenColumn("tags", 2, text=True),
    ScreenColumn("version", 1, text=True),
    ScreenColumn("reason", 7, text=True),
)
POLL_S = 0.5
"""How often a drain is looked at."""


@app.command("list", epilog="Example: resadapt node list")
def list_(url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """All nodes: their state, how many streams they have, and what these cost."""
    service = remote(url, key, as_json)
    items = service.get("/v1/nodes")["items"]
    service.show(items) if as_json else table(COLUMNS, [_row(item) for item in items])


@app.command(epilog="Example: resadapt node drain edge-3")
def drain(
    name: Name,
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until it has no stream left.")] = 60.0,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let a node hand its streams over to others; it gets none until it is uncordoned. Returns once it has none; exit
    code 3 where it still has some after --wait."""
    service, clock = remote(url, key, as_json), SystemClock()
    item = service.send("POST", path_of("nodes", name, "/drain"))
    until_s = clock.monotonic_s() + wait_s
    while item["state"] == "draining" and clock.monotonic_s() < until_s:
        clock.wait(POLL_S)
        item = next(one for one in service.get("/v1/nodes")["items"] if one["name"] == name)
    service.show(item) if as_json else table(COLUMNS, [_row(item)])
    if item["state"] == "draining":
        raise ServiceUnavailable(
            f"the node {name} still has {item['streams']} streams after {wait_s:g} s; resadapt status says why no other"
            " takes them"
        )


@app.command(epilog="Example: resadapt node cordon edge-3")
def cordon(name: Name, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Let a node keep what it has and get nothing more."""
    _send(name, "cordon", url, key, as_json)


@app.command(epilog="Example: resadapt node uncordon edge-3")
def uncordon(name: Name, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Let a node get streams again."""
    _send(name, "uncordon", url, key, as_json)


def _send(name: str, verb: str, url: str | None, key: str | None, as_json: bool) -> None:
    service = remote(url, key, as_json)
    item = service.send("POST", path_of("nodes", name, f"/{verb}"))
    service.show(item) if as_json else table(COLUMNS, [_row(item)])


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    most = "" if item["most_streams"] is None else f"/{item['most_streams']}"
    cores = f"{item['cost']:.2f}/{item['capacity']:g}"
    streams = f"{item['streams']}{most}"
    return (
        item["name"],
        item["state"],
        streams,
        item["up"],
        cores,
        ",".join(item["tags"]),
        item["version"],
        item["reason"],
    )
