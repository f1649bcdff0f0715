"""`resadapt apply`: a site file laid over a running service, after a look at the difference."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.cli.remote import ApiKey, AsJson, Remote, Url, remote
from pipeline.config.site import read_yaml

EXAMPLE = "Example: resadapt apply -f site.yaml --dry-run"
_MARK = {"add": "+", "change": "~", "remove": "-", "leave": " "}


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="The site file.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Also remove what the file does not name.")] = False,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Make streams, watches and sinks those of a site file: the difference, then only that, all or nothing. Where the
    service was started with this very file it reads it again, as on SIGHUP."""
    service, body = remote(url, key, as_json), read_yaml(file)
    own = service.get("/v1/status")["site_file"]
    if own and Path(own) == file.resolve():
        plan = service.send("POST", "/v1/reload", params={"dry_run": dry_run})
    else:
        plan = service.send("POST", "/v1/apply", body, {"dry_run": dry_run, "prune": prune})
    _show(service, plan)


def _show(service: Remote, plan: dict[str, Any]) -> None:
    if service.as_json:
        service.show(plan)
        return
    console = Console()
    for step in plan["steps"]:
        if step["action"] != "leave":
            fields = f": {', '.join(step['fields'])}" if step["action"] == "change" else ""
            text = f"{_MARK[step['action']]} {step['kind']} {step['slug']}{fields}"
            console.print(text, markup=False, highlight=False)
    if all(step["action"] == "leave" for step in plan["steps"]):
        console.print("nothing to change")
    if plan["restarts"]:
        parts = ", ".join(plan["restarts"])
        console.print(f"needs a restart of the service, and is not applied: {parts}", markup=False)
    if plan["process"]:
        parts = ", ".join(plan["process"])
        console.print(f"is set by the service's own site file, and is not applied: {parts}", markup=False)
    console.print("applied" if plan["applied"] else "not applied: --dry-run")
