"""`resadapt demo`: the command; what it plays is in `yard_demo`."""

from typing import Annotated

import typer

from allocator_engine.errors import not_installed
from pipeline.cli.ending import run_to_end
from pipeline.cli.options import LogLevel, PageOpened, PageWanted
from pipeline.cli.output import set_up
from pipeline.errors import ConfigError

EXAMPLE = "Example: resadapt demo --budget 0.1"


def demo(
    seconds: Annotated[float, typer.Option(help="How long the cameras play, 4 to 600.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Which yards: this seed's and its neighbour's.")] = 800001,
    json_lines: Annotated[bool, typer.Option("--json", help="Events as JSON lines on stdout, a summary last.")] = False,
    allocator: Annotated[
        str | None, typer.Option(help="learned (the default with an engine for the MLLM), fixed (else) or motion.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Of the allocator learned; see run.")] = None,
    budget: Annotated[float | None, typer.Option(help="Share of the native vision tokens, such as 0.1.")] = None,
    mllm: Annotated[str, typer.Option(help="Who answers; see run.")] = "yard",
    page: PageWanted = False,
    open_page: PageOpened = False,
    log_level: LogLevel = "warning",
) -> None:
    """Two generated cameras play live, six watches stand on them, and the events are compared with the truth.
    With a page all of it is in a browser too."""
    set_up(log_level, people=not json_lines)
    try:
        from pipeline.cli.yard_demo import Demo, show  # the yard's renderer, which nothing else needs
    except ModuleNotFoundError as error:
        raise ConfigError(f"for the demo {not_installed(str(error.name), 'embedded')}") from error

    played = Demo(seconds, seed, allocator, budget, mllm, engine, page or open_page, open_page)
    run_to_end(show(played, json_lines))
