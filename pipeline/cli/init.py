"""`resadapt init`: a site file to begin with."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.config.mllm import MLLM_CHOICES
from pipeline.config.one_stream import named_sinks
from pipeline.config.settings import dump_yaml
from pipeline.config.site import parse_site
from pipeline.errors import ConfigError

EXAMPLE = "Example: resadapt init --camera rtsp://cam-7/main --watch 'Is a lorry at the dock?' --mllm yard"
_HEAD = "# A site of resadapt-stream. Try it with `resadapt check -c FILE`, run it with `resadapt serve -c FILE`.\n"


def init(
    file: Annotated[Path, typer.Argument(help="The file to write.")] = Path("site.yaml"),
    camera: Annotated[list[str] | None, typer.Option(help="URL of a stream; may be repeated.")] = None,
    watch: Annotated[list[str] | None, typer.Option(help="A standing question; may be repeated.")] = None,
    mllm: Annotated[str | None, typer.Option(help=MLLM_CHOICES)] = None,
    sink: Annotated[list[str] | None, typer.Option(help="Where events go; see run.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a site file. What is not given is asked for."""
    if file.exists() and not force:
        raise ConfigError(f"{file} is there already; give another name, or --force to write over it")
    cameras = camera or _ask("URL of a camera or file (a password as ${CAMERA_PASSWORD})")
    watches = watch or _ask("What to watch for, as a yes/no question")
    use = mllm or typer.prompt(f"Who answers: {MLLM_CHOICES}", default="yard", err=True)
    raw: dict[str, object] = {
        "mllm": use,
        "streams": {f"camera-{n}": {"url": url} for n, url in enumerate(cameras, 1)},
        "watches": {f"watch-{n}": {"question": text} for n, text in enumerate(watches, 1)},
        "sinks": named_sinks(sink or ["jsonl:resadapt-events.jsonl"]),
        "store": "sqlite:///resadapt.db",
    }
    parse_site(raw)
    try:
        file.write_text(_HEAD + dump_yaml(raw), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    Console(stderr=True).print(f"wrote {file}; next: resadapt check -c {file}", markup=False, highlight=False)


def _ask(text: str) -> list[str]:
    return [typer.prompt(text, err=True)]
