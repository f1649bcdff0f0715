"""Parts that several commands share: options, exit codes, and the rule that one stream is one argument."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError

EXIT_REFUSED = 2
"""Exit code when what was asked for is wrong: an unknown key, a missing file, an empty question."""
EXIT_FAILED = 3
"""Exit code when it is right but does not work: a camera that does not answer, a broker that is away."""

REST = {"allow_extra_args": True}
"""Context settings of the commands that take a stream, see `require_one`."""

PageWanted = Annotated[bool, typer.Option("--page", help="Offer the page while it runs, and print its address.")]
PageOpened = Annotated[bool, typer.Option("--open", help="The same, and open it in a browser.")]
LogLevel = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]
SiteFile = Annotated[Path, typer.Option("--config", "-c", help="The site file (YAML).")]
SiteFileIfAny = Annotated[Path | None, typer.Option("--config", "-c", help="A site file, for what is not given here.")]


def require_one(context: typer.Context) -> None:
    """Refuse what stands behind a stream without repeating it, as the library would: it may hold a password."""
    if context.args:
        raise ConfigError(
            f"expected one stream, and got {len(context.args)} more; put one that has spaces in quotes, and several"
            " into a site file for `resadapt serve`"
        )
