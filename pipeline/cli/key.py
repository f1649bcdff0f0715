"""`resadapt key`: who may use the API of a service. The first key is made beside a service that does not run yet."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.cli.output import ScreenColumn, table
from pipeline.cli.remote import ApiKey, AsJson, Url, path_of, remote
from pipeline.clock import SystemClock
from pipeline.config.site import load_site
from pipeline.config.values import resolve_url
from pipeline.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="The keys of a service's API.")

Given = Annotated[
    Path | None, typer.Option(help="A file with the key, which you made: rsk_, 12 hex digits, _, 43 random characters.")
]
Beside = Annotated[
    Path | None, typer.Option("--config", "-c", help="Make it in the store of this site file, without the API.")
]


@app.command(epilog="Example: resadapt key create ann --role operator --tag dock --days 90")
def create(
    name: Annotated[str, typer.Argument(help="Who it is for: lower-case letters, digits, - and _.")],
    role: Annotated[str, typer.Option(help="viewer, analyst, operator or admin.")] = "viewer",
    tag: Annotated[list[str] | None, typer.Option(help="Only for streams with this tag; may be repeated.")] = None,
    days: Annotated[float | None, typer.Option(help="It expires after so many days.")] = None,
    given: Given = None,
    config: Beside = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is shown this once. One that is --given is not shown, and where it is there already
    nothing is done."""
    if days is not None and not 0 < days < 36_500:
        raise ConfigError(f"--days is {days:g}; expected more than 0 and less than 36500")
    expires_at = SystemClock().now() + timedelta(days=days) if days else None
    if given:
        _take_beside(config, given, name, role, tag or [], expires_at)
        return
    if config:
        text = _create_beside(config, name, role, tag or [], expires_at)
    else:
        body = {"name": name, "role": role, "tags": tag or [], "expires_at": expires_at and expires_at.isoformat()}
        text = remote(url, key, as_json).send("POST", "/v1/keys", body)["key"]
    if as_json:
        remote(url, key, as_json).show({"name": name, "key": text})
        return
    print(text)  # noqa: T201 - the command's output
    Console(stderr=True).print("[dim]Keep it: it is not shown again. Use it as RESADAPT_KEY or --key.[/]")


@app.command("list", epilog="Example: resadapt key list")
def list_(url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """All keys: role, streams, expiry, last use."""
    service = remote(url, key, as_json)
    items = service.get("/v1/keys")["items"]
    service.show(items) if as_json else table(COLUMNS, [_row(item) for item in items])


@app.command(epilog="Example: resadapt key revoke ann")
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name.")],
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a key worthless at once."""
    service = remote(url, key, as_json)
    service.send("DELETE", path_of("keys", name))
    service.show({"revoked": name}) if as_json else table(("revoked",), [(name,)])


COLUMNS = (
    ScreenColumn("key", 9, text=True),
    ScreenColumn("role", 8, text=True),
    ScreenColumn("tags", 7, text=True),
    ScreenColumn("made by", 1, text=True),
    ScreenColumn("expires", 4, text=True),
    ScreenColumn("last used", 3, text=True),
    ScreenColumn("revoked", 6, text=True),
)


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    times = ((item[name] or "")[:16].replace("T", " ") for name in ("expires_at", "last_used_at", "revoked_at"))
    return item["name"], item["role"], ",".join(item["tags"]) or "all", item["created_by"], *times


def _take_beside(
    config: Path | None, given: Path, name: str, role: str, tags: list[str], expires_at: datetime | None
) -> None:
    from pipeline.service.keys import create_beside

    if config is None:
        raise ConfigError("--given puts a key into the store of a site file; expected --config with it")
    try:
        text = given.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--given names {str(given)!r}, which cannot be read") from error
    store = resolve_url(load_site(config).store, whole_path=True)
    create_beside(store, name, role, tags, expires_at, SystemClock(), given=text)
    Console(stderr=True).print(f"the key {name} is in the store", markup=False, highlight=False)


def _create_beside(config: Path, name: str, role: str, tags: list[str], expires_at: datetime | None) -> str:
    from pipeline.service.keys import create_beside

    return create_beside(
        resolve_url(load_site(config).store, whole_path=True), name, role, tags, expires_at, SystemClock()
    )
