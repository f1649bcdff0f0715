"""`resadapt stream`: attach cameras to a running service, look at them, change them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.output import ScreenColumn, share, table, warn
from pipeline.cli.remote import ApiKey, AsJson, Remote, Url, path_of, remote
from pipeline.config.settings import settings
from pipeline.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="The streams of a running service.")

Slug = Annotated[str, typer.Argument(help="The stream's slug.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting as in a site file, such as budget.rate_tokens_per_s=200.")
]


@app.command(epilog="Example: resadapt stream attach rtsp://cam-7/main --name gate --tag dock")
def attach(
    source: Annotated[str, typer.Argument(help="The stream's URL; a password as ${CAMERA_PASSWORD}.")],
    name: Annotated[str | None, typer.Option(help="Slug; by default made from the URL.")] = None,
    tag: Tags = None,
    display_name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    site: Annotated[str | None, typer.Option(help="Where it is, for people.")] = None,
    set_: Settings = None,
    paused: Annotated[bool, typer.Option("--paused", help="Do not look at it yet.")] = False,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Attach a stream: it is watched within seconds by the watches that match it."""
    service = remote(url, key, as_json)
    body = {"slug": name, "url": source, "tags": tag, "display_name": display_name, "site": site} | settings(set_)
    body |= {"paused": True} if paused else {}
    item = service.send("POST", "/v1/streams", {k: v for k, v in body.items() if v is not None})
    _show_one(service, item)
    warn(item.get("warnings", []))


@app.command("list", epilog="Example: resadapt stream list --tag dock")
def list_(
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 1000,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """All streams and how they stand."""
    service = remote(url, key, as_json)
    items = service.all("/v1/streams", limit, tag=tag)
    service.show(items) if as_json else show_streams(items)


@app.command(epilog="Example: resadapt stream show gate --json")
def show(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """One stream: how it is wanted and how it stands."""
    service = remote(url, key, as_json)
    _show_one(service, service.get(path_of("streams", slug)))


@app.command(epilog="Example: resadapt stream edit gate --set sample_fps=4 --tag dock --tag north")
def edit(
    slug: Slug,
    set_: Settings = None,
    tag: Tags = None,
    display_name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    site: Annotated[str | None, typer.Option(help="Where it is, for people.")] = None,
    revision: Annotated[int | None, typer.Option(help="Only if it is at this revision.")] = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Change some of its settings; an empty value (`--set priority=`) takes one back to its default."""
    service = remote(url, key, as_json)
    given = {"tags": tag, "display_name": display_name, "site": site}
    patch = settings(set_) | {name: value for name, value in given.items() if value is not None}
    if not patch:
        raise ConfigError("nothing to change; give --set NAME=VALUE, --tag, --display-name or --site")
    headers = {"If-Match": f'"{revision}"'} if revision else None
    _show_one(service, service.send("PATCH", path_of("streams", slug), patch, headers=headers))


@app.command(epilog="Example: resadapt stream pause gate")
def pause(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Leave it alone until it is resumed."""
    service = remote(url, key, as_json)
    _show_one(service, service.send("POST", path_of("streams", slug, "/pause")))


@app.command(epilog="Example: resadapt stream resume gate")
def resume(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Go on with it."""
    service = remote(url, key, as_json)
    _show_one(service, service.send("POST", path_of("streams", slug, "/resume")))


@app.command(epilog="Example: resadapt stream detach gate")
def detach(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Remove it; its open watches are cleared."""
    service = remote(url, key, as_json)
    service.send("DELETE", path_of("streams", slug))
    service.show({"detached": slug}) if as_json else table(("detached",), [(slug,)])


@app.command(epilog="Example: resadapt stream probe gate")
def probe(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Let the service open it once more and say what it is."""
    service = remote(url, key, as_json)
    found = service.send("POST", path_of("streams", slug, "/probe"))
    service.show(found) if as_json else table(("", ""), [(name.replace("_", " "), found[name]) for name in found])


@app.command(epilog="Example: resadapt stream snapshot gate -o gate.jpg")
def snapshot(
    slug: Slug,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the JPEG goes.")] = Path("snapshot.jpg"),
    width: Annotated[int, typer.Option(min=16, max=3840)] = 1280,
    overlay: Annotated[bool, typer.Option("--overlay", help="With tokens and scores written on it.")] = False,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """The next frame that is sampled, as a JPEG."""
    service = remote(url, key, as_json)
    params = {"width": width, "overlay": overlay or None}
    picture = service.send("GET", path_of("streams", slug, "/snapshot.jpg"), params=params)
    try:
        out.write_bytes(picture)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror}") from error
    service.show({"file": str(out), "bytes": len(picture)}) if as_json else table(("file",), [(out,)])


_NODE = ScreenColumn("node", 4, text=True)
COLUMNS = (
    ScreenColumn("stream", 9, text=True),
    ScreenColumn("state", 8, text=True),
    ScreenColumn("since", 3, text=True),
    ScreenColumn("lag", 5),
    ScreenColumn("of grant", 6),
    ScreenColumn("ladder", 2, text=True),
    ScreenColumn("tags", 1, text=True),
    _NODE,
    ScreenColumn("reason", 7, text=True),
)


def show_streams(items: Sequence[dict[str, Any]]) -> None:
    """Print streams as a table, in a fleet with their nodes."""
    rows = [row(item) for item in items]
    kept = [place for place, column in enumerate(COLUMNS) if column is not _NODE or any(row[place] for row in rows)]
    table([COLUMNS[place] for place in kept], [[row[place] for place in kept] for row in rows])


def row(item: dict[str, Any]) -> tuple[object, ...]:
    """A stream as a line of a table."""
    status = item["status"]
    since = (status["since"] or "")[:19].replace("T", " ")
    lag = "-" if status["lag_s"] is None else f"{status['lag_s']:.1f} s"
    spent = share(status["spent"], status["granted"])
    tags = ",".join(item["spec"].get("tags", []))
    state = ", ".join([status["state"], *status["alarms"]])
    return item["slug"], state, since, lag, spent, status["step_name"], tags, status["node"], status["reason"]


def _show_one(service: Remote, item: dict[str, Any]) -> None:
    if service.as_json:
        service.show(item)
        return
    show_streams([item])
    table(("setting", "value"), sorted(item["spec"].items()))
