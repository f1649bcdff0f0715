"""`resadapt profile`: which watches of a running service are armed."""

from typing import Annotated, Any

import typer

from pipeline.cli.output import table
from pipeline.cli.remote import ApiKey, AsJson, Url, path_of, remote

app = typer.Typer(no_args_is_help=True, help="Profiles: watches that are armed together.")

Slug = Annotated[str, typer.Argument(help="The profile's slug, as watches name it.")]


@app.command(epilog="Example: resadapt profile arm night")
def arm(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Arm the watches that name this profile."""
    _send(slug, "arm", url, key, as_json)


@app.command(epilog="Example: resadapt profile disarm night")
def disarm(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Disarm them, unless another of their profiles is armed; open ones are cleared."""
    _send(slug, "disarm", url, key, as_json)


@app.command("list", epilog="Example: resadapt profile list")
def list_(url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """All profiles, and whether they are armed."""
    service = remote(url, key, as_json)
    items = service.get("/v1/profiles")["items"]
    service.show(items) if as_json else table(COLUMNS, [_row(item) for item in items])


COLUMNS = ("profile", "armed", "watches")


def _send(slug: str, verb: str, url: str | None, key: str | None, as_json: bool) -> None:
    service = remote(url, key, as_json)
    item = service.send("POST", path_of("profiles", slug, f"/{verb}"))
    service.show(item) if as_json else table(COLUMNS, [_row(item)])


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    return item["slug"], "yes" if item["armed"] else "no", ", ".join(item["watches"])
