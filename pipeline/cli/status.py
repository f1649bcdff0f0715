"""`resadapt status`: a running service on one screen."""

from rich.console import Console

from pipeline.cli import sink, stream, watch
from pipeline.cli.output import table
from pipeline.cli.remote import ApiKey, AsJson, Url, remote

EXAMPLE = "Example: resadapt status --url http://edge-3:8080"


def status(url: Url = None, key: ApiKey = None, as_json: AsJson = False) -> None:
    """Each stream's state, lag, tokens and ladder step; each watch's state and scores; what waits for sinks."""
    service = remote(url, key, as_json)
    found = service.get("/v1/status")
    if as_json:
        service.show(found)
        return
    console = Console()
    head = f"resadapt-stream {found['version']}, mllm {found['mllm']}, allocator {found['allocator']}"
    console.print(head, markup=False, highlight=False)
    if found["notice"]:
        console.print(f"[yellow]{found['notice']}[/]", highlight=False)
    if found["alarms"]:
        console.print(f"wrong for long: {', '.join(found['alarms'])}", style="yellow", markup=False, highlight=False)
    stream.show_streams(found["streams"])
    table(watch.COLUMNS, [watch.row(item) for item in found["watches"]])
    table(sink.COLUMNS, [sink.row(item) for item in found["sinks"]])
