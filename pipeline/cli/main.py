"""Watch camera streams with a frozen multimodal LLM under a token budget."""

import errno
import importlib.metadata
import sys
from contextlib import suppress
from typing import Annotated

import typer

from pipeline.cli import (
    apply,
    bench,
    check,
    demo,
    discover,
    event,
    init,
    key,
    label,
    models,
    node,
    plan,
    probe,
    profile,
    run,
    search,
    serve,
    sink,
    status,
    store,
    stream,
    watch,
)
from pipeline.cli import evidence as evidence  # adds its commands to those of events and watches
from pipeline.cli.ending import UNREAD_BY_OTHERS, Unread, end_unread, unwritten, write_out
from pipeline.cli.options import EXIT_FAILED, EXIT_REFUSED, REST
from pipeline.cli.output import notices, shown
from pipeline.errors import ConfigError, ResadaptError, SinkGone
from pipeline.redact import scrub

app = typer.Typer(
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=__doc__,
    epilog="Begin with: resadapt demo; then with a camera of yours: resadapt probe SOURCE, resadapt run --help",
)


@app.callback()
def about(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Watch camera streams with a frozen multimodal LLM under a token budget."""
    if version:
        print(importlib.metadata.version("resadapt-stream"))  # noqa: T201 - the command's output
        raise typer.Exit


app.command(epilog=demo.EXAMPLE)(demo.demo)
app.command(epilog=run.EXAMPLE, context_settings=REST)(run.run)
app.command(epilog=probe.EXAMPLE, context_settings=REST)(probe.probe)
app.command(epilog=discover.EXAMPLE)(discover.discover)
app.command(epilog=serve.EXAMPLE)(serve.serve)
app.command(epilog=check.EXAMPLE)(check.check)
app.command("plan", epilog=plan.EXAMPLE)(plan.plan_site)
app.command(epilog=init.EXAMPLE)(init.init)
app.command(epilog=apply.EXAMPLE)(apply.apply)
app.command(epilog=status.EXAMPLE)(status.status)
app.command(epilog=search.EXAMPLE)(search.search)
app.command(epilog=models.EXAMPLE)(models.models)
app.add_typer(stream.app, name="stream")
app.add_typer(watch.app, name="watch")
app.add_typer(profile.app, name="profile")
app.add_typer(event.app, name="event")
app.add_typer(label.app, name="label")
app.add_typer(sink.app, name="sink")
app.add_typer(node.app, name="node")
app.add_typer(key.app, name="key")
app.add_typer(store.app, name="store")
app.add_typer(bench.app, name="bench")


_TAKES_NOTHING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What writing to an output fails with that will not take the rest either."""


def main() -> None:
    """Entry point of the command. What a person has to know is one line on stderr and an exit code."""
    try:
        _run_app()
    except Unread:
        end_unread()
    except ResadaptError as error:
        with suppress(OSError):  # a full disk may hold what stderr is written to as well
            notices().print(f"[red]resadapt:[/] {shown(scrub(str(error)))}", highlight=False, soft_wrap=True)
        sys.exit(EXIT_REFUSED if isinstance(error, ConfigError) else EXIT_FAILED)


def _run_app() -> None:
    """Raises SystemExit when all is done and written, or why it is not."""
    try:
        app()
    except SystemExit as end:
        if end.code == UNREAD_BY_OTHERS:
            end_unread()
        write_out()
        raise
    except OSError as error:
        if error.errno not in _TAKES_NOTHING or error.filename is not None:
            raise
        with suppress(SinkGone):
            write_out()
        raise unwritten(error) from error
