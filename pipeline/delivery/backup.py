"""A copy of a store that is in use."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from pipeline.delivery.database import parse_store
from pipeline.errors import ConfigError
from pipeline.redact import redact_url


def back_up(store: str, file: Path) -> None:
    """Copy the SQLite store at a URL, as it is at one moment, into a new file that only its owner may read. Others may
    write on meanwhile. The store is not brought to a newer schema.

    Raises ConfigError for a store on a server, which has its own means, for one that is not there or is none, and for a
    file that is there already or cannot be made.
    """
    url = parse_store(store)
    if url.get_backend_name() != "sqlite":
        raise ConfigError(f"the store {redact_url(store)} is on a server; copy it with pg_dump --format=custom")
    path = Path(str(url.database))
    if not path.is_file():
        raise ConfigError(f"there is no store {path}; expected what `resadapt serve` or `resadapt run --store` wrote")
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(f"the copy {file} cannot be made: {error.strerror}; expected a new file") from error
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as source,
            closing(sqlite3.connect(file)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        file.unlink()
        raise ConfigError(f"the store {path} cannot be copied to {file}: {error}") from error
