"""Commands about the evidence of events, for `resadapt event` and `resadapt watch`: explain, evidence, replay, hold,
mark, missed."""

import json
import webbrowser
from pathlib import Path
from tempfile import mkstemp
from typing import Annotated, Any

import typer

from pipeline.cli.doors import Beside, BesideFolder, BesideStore, Door, door
from pipeline.cli.event import app as events
from pipeline.cli.output import print_line, table
from pipeline.cli.remote import ApiKey, AsJson, Url
from pipeline.cli.watch import app as watches
from pipeline.errors import ConfigError

EventId = Annotated[str, typer.Argument(help="The event's id.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write the page into this file.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]
Note = Annotated[str, typer.Option(help="Why, in your words; up to 2000 characters.")]
KINDS = ("true", "false", "fixture", "none")


@events.command(epilog="Example: resadapt event explain 5b0c... --html why.html")
def explain(
    event_id: EventId,
    html: Html = None,
    open_: Open = False,
    config: Beside = None,
    store: BesideStore = None,
    evidence: BesideFolder = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Why it was sent: in words, and as a page that stands alone."""
    with door(config, store, evidence, url, key, as_json) as opened:
        _tell(opened, opened.explain(event_id))
        if html or open_:
            _write_page(opened.page(event_id), html, open_)


@events.command(epilog="Example: resadapt event evidence 5b0c... --save evidence/")
def evidence(
    event_id: EventId,
    save: Annotated[Path | None, typer.Option(help="Write pictures, clip and manifest into this folder.")] = None,
    config: Beside = None,
    store: BesideStore = None,
    evidence: BesideFolder = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show the evidence that is kept of an event: pictures, prompt, clip, and the hashes of each."""
    with door(config, store, evidence, url, key, as_json) as opened:
        item = opened.evidence(event_id)
        if save:
            _save(opened, event_id, item, save)
        if as_json:
            _print(item)
            return
    files = [(f"segments/{one['n']}.png", one) for one in item["segments"]]
    files += [(name, item[part]) for name, part in (("snapshot.jpg", "snapshot"), ("clip.mp4", "clip")) if item[part]]
    table(("file", "bytes", "sha256"), [(name, one["bytes"], one["sha256"]) for name, one in files])
    table(("held by", "clip"), [(item["held_by"], item["clip_note"] or "whole")])


@events.command(epilog="Example: resadapt event replay 5b0c...")
def replay(
    event_id: EventId,
    mllm: Annotated[str | None, typer.Option(help="Ask this one, with --store: as of `run`.")] = None,
    config: Beside = None,
    store: BesideStore = None,
    evidence: BesideFolder = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Ask the model again from the evidence, and compare. It costs the vision tokens of the whole context."""
    with door(config, store, evidence, url, key, as_json) as opened:
        item = opened.replay(event_id, mllm)
    if as_json:
        _print(item)
        return
    said = [(when, item[when]) for when in ("then", "now")]
    rows = [
        (when, one["verdict"], f"{one['score']:.4f}", one["model"]["name"], (one["model"]["sha256"] or "-")[:12])
        for when, one in said
    ]
    table(("", "answer", "score", "model", "weights"), rows)
    outcome = "identical" if item["identical"] else "the same" if item["same"] else "different"
    for line in (f"{outcome}; {item['tokens']} vision tokens", *item["notes"]):
        print_line(line)


@events.command(epilog="Example: resadapt event hold 5b0c...")
def hold(
    event_id: EventId,
    release: Annotated[bool, typer.Option("--release", help="Lift the hold.")] = False,
    config: Beside = None,
    store: BesideStore = None,
    evidence: BesideFolder = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Keep the event and its evidence whatever their age and room, until the hold is lifted."""
    with door(config, store, evidence, url, key, as_json) as opened:
        item = opened.hold(event_id, not release)
    _print(item) if as_json else table(("event", "held by"), [(item["event"], item["held_by"])])


@events.command(epilog="Example: resadapt event mark 5b0c... false --note 'a shadow'")
def mark(
    event_id: EventId,
    kind: Annotated[
        str, typer.Argument(help="true, false, fixture (stays there; ignore it), or none to take it back.")
    ],
    note: Note = "",
    config: Beside = None,
    store: BesideStore = None,
    evidence: BesideFolder = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Say whether it was right. What is said last counts; what was said before stays on record."""
    if kind not in KINDS:
        raise ConfigError(f"KIND is {kind!r}; expected one of {', '.join(KINDS)}")
    with door(config, store, evidence, url, key, as_json) as opened:
        item = opened.mark(event_id, None if kind == "none" else kind, note)
    _print(item) if as_json else table(("event", "label"), [(item["id"], item["label"])])


@watches.command("explain", epilog="Example: resadapt watch explain lorry --stream dock --at 2026-11-29T12:00:00Z")
def explain_watch(
    slug: Annotated[str, typer.Argument(help="The watch's slug.")],
    at: Annotated[str, typer.Option(help="UTC (ISO 8601), or seconds of stream.")],
    stream: Annotated[str | None, typer.Option(help="Which of its streams, where it stands on several.")] = None,
    html: Html = None,
    open_: Open = False,
    config: Beside = None,
    store: BesideStore = None,
    evidence: BesideFolder = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Why it fired, or did not, at a moment: from the answers that are kept."""
    with door(config, store, evidence, url, key, as_json) as opened:
        _tell(opened, opened.moment(slug, stream, at))
        if html or open_:
            _write_page(opened.moment_page(slug, stream, at), html, open_)


@watches.command(
    epilog="Example: resadapt watch missed lorry --stream dock --from 2026-11-29T12:00Z --to 2026-11-29T12:02Z"
)
def missed(
    slug: Annotated[str, typer.Argument(help="The watch's slug.")],
    stream: Annotated[str, typer.Option(help="The stream's slug.")],
    from_: Annotated[str, typer.Option("--from", help="Begin of the interval (ISO 8601, UTC without a zone).")],
    to: Annotated[str, typer.Option(help="End of it.")],
    note: Note = "",
    config: Beside = None,
    store: BesideStore = None,
    evidence: BesideFolder = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Say that it should have been open then."""
    body = {"stream": stream, "watch": slug, "start": from_, "end": to, "note": note}
    with door(config, store, evidence, url, key, as_json) as opened:
        item = opened.missed(body)
    _print(item) if as_json else table(("label", "from", "to"), [(item["id"], item["start"], item["end"])])


def _tell(opened: Door, item: dict[str, Any]) -> None:
    if opened.as_json:
        _print(item)
        return
    print_line(item["title"])
    if item["question"]:
        print_line(f"“{item['question']}”")
    for sentence in filter(None, item["sentences"]):
        print_line(sentence)


def _write_page(text: str, file: Path | None, open_it: bool) -> None:
    if file is None:
        handle, name = mkstemp(prefix="resadapt-", suffix=".html")
        open(handle, "w").close()
        file = Path(name)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--html {file} cannot be written: {error.strerror}") from error
    if open_it and not webbrowser.open(file.resolve().as_uri()):
        print_line(f"no browser could be opened; the page is {file}")


def _save(opened: Door, event_id: str, item: dict[str, Any], folder: Path) -> None:
    """Everything is fetched, and with it checked, before anything is written."""
    names = [f"segments/{one['n']}.png" for one in item["segments"]]
    names += [name for name, part in (("snapshot.jpg", "snapshot"), ("clip.mp4", "clip")) if item[part]]
    found = {name: opened.file(event_id, name) for name in names}
    found["evidence.json"] = json.dumps(item, indent=1, ensure_ascii=False).encode()
    try:
        for name, data in found.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"--save {folder} cannot be written: {error.strerror}") from error


def _print(item: object) -> None:
    print_line(json.dumps(item, ensure_ascii=False, default=str))
