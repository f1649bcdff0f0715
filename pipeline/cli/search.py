"""`resadapt search`: events found by words, and by asking the MLLM about their pictures."""

import json
from typing import Annotated, Any

import typer

from pipeline.cli.doors import Beside, BesideFolder, BesideStore, door
from pipeline.cli.output import ScreenColumn, print_line, table
from pipeline.cli.remote import ApiKey, AsJson, Url
from pipeline.errors import ConfigError

EXAMPLE = (
    'Example: resadapt search "ladder at the fence" --since 7d; resadapt search "someone with a ladder at the fence"'
    " --ask --at-most 50"
)
COLUMNS = (
    ScreenColumn("time", 9, text=True),
    ScreenColumn("type", 3, text=True),
    ScreenColumn("stream", 5, text=True),
    ScreenColumn("watch", 6, text=True),
    ScreenColumn("answer", 4, text=True),
    ScreenColumn("words", 2, text=True),
    ScreenColumn("id", 8, text=True),
)


def search(
    text: Annotated[str, typer.Argument(help="What to search for, in words; up to 500 characters.")],
    since: Annotated[str, typer.Option(help="Not before this: a span such as 90m, 24h or 7d, or ISO 8601.")] = "7d",
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    stream: Annotated[str | None, typer.Option(help="Only of this stream.")] = None,
    watch: Annotated[str | None, typer.Option(help="Only of this watch.")] = None,
    limit: Annotated[int, typer.Option(help="Events to show.")] = 20,
    ask: Annotated[bool, typer.Option("--ask", help="Ask the MLLM about the snapshots of events.")] = False,
    at_most: Annotated[int | None, typer.Option(help="Snapshots that it is asked about, with --ask; 50.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Vision tokens of each at most, with --ask; 256.")] = None,
    mllm: Annotated[str | None, typer.Option(help="Ask this one, with --config or --store: as of `run`.")] = None,
    config: Beside = None,
    store: BesideStore = None,
    evidence: BesideFolder = None,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Find events by the words of their questions, descriptions, values, names and notes; with --ask by what their
    snapshots show, which costs vision tokens. It says what was searched, what was left out, and what it cost."""
    if not ask and (at_most is not None or tokens is not None or mllm):
        raise ConfigError("--at-most, --tokens and --mllm are about asking; expected them with --ask")
    wanted: dict[str, Any] = {
        "text": text, "since": since, "until": until, "stream": stream, "watch": watch, "limit": limit,
    }  # fmt: skip
    looks = {"at_most": 50 if at_most is None else at_most, "tokens": 256 if tokens is None else tokens}
    with door(config, store, evidence, url, key, as_json) as opened:
        found = opened.look(wanted | looks, mllm) if ask else opened.search(wanted)
    if as_json:
        print_line(json.dumps(found, ensure_ascii=False, default=str))
        return
    if found["items"]:
        table(COLUMNS, [_row(item) for item in found["items"]])
    for line in _told(found, ask):
        print_line(line)


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    event, answer = item["event"], item["answer"]
    told = f"{answer['verdict']} {answer['score']:.2f}" if answer else "-"
    time = event["time"][:19].replace("T", " ")
    return time, event["type"], event["stream"], event["watch"], told, " ".join(item["words"]), event["id"]


def _told(found: dict[str, Any], ask: bool) -> list[str]:
    """Lines on the extent of a search, its questions and what was left out."""
    searched, cost = found["searched"], found["cost"]
    lines = [
        f"searched {searched['events']} events of {searched['streams']} streams since {searched['since'][:19]} (UTC):"
        f" {searched['matched']} have words of it, {searched['with_evidence']} have a snapshot"
    ]
    if ask:
        lines += [
            f"asked about {cost['asked']} snapshots “{found['question']}”: {cost['yes']} yes, {cost['no']} no,"
            f" {cost['unknown']} unknown",
            f"cost {cost['vision_tokens']} vision tokens ({cost['prompt_tokens']} prompt tokens) and"
            f" {cost['seconds']:.1f} s",
        ]
    return lines + [f"left out: {one}" for one in found["left_out"]]
