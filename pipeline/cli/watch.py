"""`resadapt watch`: the standing questions of a running service."""

import json
from typing import Annotated, Any

import typer

from pipeline.api.views import spec_schema
from pipeline.cli import watch_test, watch_tune
from pipeline.cli.output import ScreenColumn, table
from pipeline.cli.remote import ApiKey, AsJson, Remote, Url, path_of, remote
from pipeline.cli.rules import Absent, Choices, CountRule, Hold, SeverityOf, rule_settings
from pipeline.config.settings import settings
from pipeline.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="The watches of a running service.")

Slug = Annotated[str, typer.Argument(help="The watch's slug.")]
Streams = Annotated[list[str] | None, typer.Option("--stream", help="Slug of a stream; may be repeated.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="All streams with this tag; may be repeated.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="A setting as in a site file, such as open_at=0.8.")]


@app.command(epilog='Example: resadapt watch add "Is a lorry at the dock?" --tag dock --set open_at=0.8')
def add(
    question: Annotated[str, typer.Argument(help="What yes or no can answer, or a number, or one of some values.")],
    name: Annotated[str | None, typer.Option(help="Slug; by default made from the question.")] = None,
    stream: Streams = None,
    tag: Tags = None,
    hold: Hold = None,
    absent: Absent = None,
    count: CountRule = None,
    choice: Choices = None,
    severity: SeverityOf = None,
    set_: Settings = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question of some streams from now on; of all, without --stream and --tag."""
    service = remote(url, key, as_json)
    rules = rule_settings(hold, absent, count, choice, severity, set_)
    body: dict[str, object] = {"question": question} | dict(rules)
    if name:
        body["slug"] = name
    if selectors := _selectors(stream, tag):
        body["streams"] = selectors
    _show_one(service, service.send("POST", "/v1/watches", body))


@app.command(epilog="Example: resadapt watch schema > watch.schema.json")
def schema() -> None:
    """The JSON Schema of a watch, for editors: what stands under `watches.SLUG` of a site file, and in the API."""
    print(json.dumps(spec_schema("watch"), indent=2))  # noqa: T201 - the command's output


app.command("test", epilog=watch_test.EXAMPLE)(watch_test.try_watches)
app.command("tune", epilog=watch_tune.EXAMPLE)(watch_tune.tune)


@app.command("list", epilog="Example: resadapt watch list")
def list_(
    limit: Annotated[int, typer.Option(min=1)] = 1000, url: Url = None, key: ApiKey = None, as_json: AsJson = False
) -> None:
    """All watches and how they stand."""
    service = remote(url, key, as_json)
    items = service.all("/v1/watches", limit)
    service.show(items) if as_json else table(COLUMNS, [row(item) for item in items])


@app.command(epilog="Example: resadapt watch show lorry --json")
def show(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """One watch, and how it stands on each of its streams."""
    service = remote(url, key, as_json)
    _show_one(service, service.get(path_of("watches", slug)))


@app.command(epilog='Example: resadapt watch edit lorry --set open_at=0.6 --question "Is a lorry in view?"')
def edit(
    slug: Slug,
    question: Annotated[str | None, typer.Option(help="Ask this instead.")] = None,
    stream: Streams = None,
    tag: Tags = None,
    set_: Settings = None,
    revision: Annotated[int | None, typer.Option(help="Only if it is at this revision.")] = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Change some of its settings; an empty value (`--set cooldown_s=`) takes one back to its default."""
    service = remote(url, key, as_json)
    patch = settings(set_) | ({"question": question} if question else {})
    if selectors := _selectors(stream, tag):
        patch["streams"] = selectors
    if not patch:
        raise ConfigError("nothing to change; give --set NAME=VALUE, --question, --stream or --tag")
    headers = {"If-Match": f'"{revision}"'} if revision else None
    _show_one(service, service.send("PATCH", path_of("watches", slug), patch, headers=headers))


@app.command(epilog="Example: resadapt watch pause lorry")
def pause(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Do not ask it until it is resumed."""
    service = remote(url, key, as_json)
    _show_one(service, service.send("POST", path_of("watches", slug, "/pause")))


@app.command(epilog="Example: resadapt watch resume lorry")
def resume(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Ask it again."""
    service = remote(url, key, as_json)
    _show_one(service, service.send("POST", path_of("watches", slug, "/resume")))


@app.command(epilog="Example: resadapt watch remove lorry")
def remove(slug: Slug, url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Remove it; where it is open it is cleared."""
    service = remote(url, key, as_json)
    service.send("DELETE", path_of("watches", slug))
    service.show({"removed": slug}) if as_json else table(("removed",), [(slug,)])


COLUMNS = (
    ScreenColumn("watch", 9, text=True),
    ScreenColumn("question", 5, text=True),
    ScreenColumn("on", 3, text=True),
    ScreenColumn("open", 8, text=True),
    ScreenColumn("scores", 4, text=True),
    ScreenColumn("trouble", 7, text=True),
)


def row(item: dict[str, Any]) -> tuple[object, ...]:
    """A watch as a line of a table."""
    streams = item["streams"]
    is_open = [slug for slug, one in streams.items() if one["is_open"]]
    scores = [f"{slug} {one['score']:.2f}" for slug, one in streams.items() if one["score"] is not None]
    where = ", ".join(item["spec"].get("streams", [])) or "all"
    unknown = ", ".join(slug for slug, one in streams.items() if one["unknown"])
    trouble = item["fault"] or ("paused" if item["spec"].get("paused") else "") or (unknown and f"unknown on {unknown}")
    return item["slug"], item["spec"]["question"], where, ", ".join(is_open), ", ".join(scores[:6]), trouble


def _selectors(streams: list[str] | None, tags: list[str] | None) -> list[str]:
    return [*(streams or ()), *(f"tag:{tag}" for tag in tags or ())]


def _show_one(service: Remote, item: dict[str, Any]) -> None:
    if service.as_json:
        service.show(item)
        return
    table(COLUMNS, [row(item)])
    table(("setting", "value"), sorted(item["spec"].items()))
