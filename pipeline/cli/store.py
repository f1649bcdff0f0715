"""`resadapt store`: the database of a site, beside a service that runs or does not."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import SiteFile
from pipeline.cli.output import print_line, set_up
from pipeline.config.site import load_site
from pipeline.config.values import resolve_url

app = typer.Typer(no_args_is_help=True, help="The database of a site.")


@app.command(epilog="Example: resadapt store migrate -c site.yaml")
def migrate(config: SiteFile) -> None:
    """Bring the store to the schema of this version, in one transaction; an older program then refuses it. A service
    does so by itself when it opens its store: this is for a job before that."""
    set_up("info")
    from pipeline.delivery.database import Database
    from pipeline.delivery.tables import SCHEMA_VERSION

    database = Database(resolve_url(load_site(config).store, whole_path=True))
    database.close()
    print_line(f"{database.name}: schema {SCHEMA_VERSION}")


@app.command(epilog="Example: resadapt store backup -c site.yaml resadapt-2026-11-29.db")
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not be there yet.")],
    config: SiteFile,
) -> None:
    """Copy a SQLite store into a file, as it is at one moment, while a service may run. Of PostgreSQL use pg_dump.
    Evidence lies beside the store, and is copied by itself."""
    set_up("error")
    from pipeline.delivery.backup import back_up

    back_up(resolve_url(load_site(config).store, whole_path=True), file)
    print_line(f"{file}: {file.stat().st_size} bytes")
