"""The database under the store: how it is opened and brought to its schema, and what its errors mean."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from pipeline.delivery.lockfile import LockFile
from pipeline.delivery.migrations import migrate
from pipeline.delivery.tables import HEAD, META, MIGRATION, SCHEMA_VERSION, tables
from pipeline.errors import ConfigError, StoreUnavailable
from pipeline.redact import scrub

log = structlog.get_logger()

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process's lock before the store counts as unavailable."""

_PAGE_BYTES = 4096
_CREATION_LOCK = 7_275_116
_EXCLUSIVE_LOCK = 7_275_117
_FOREIGN = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
_REFUSED = (*_FOREIGN, "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH", "SQLITE_ERROR")


class StoreFull(StoreUnavailable):
    """No room is left in the database, or on the disk under it."""


class Database:
    """SQLite (`sqlite:///FILE` or a bare file name) or PostgreSQL (`postgresql://...`), with its tables in place.

    Raises ConfigError for a URL of neither, a path that cannot be written, a file that is no store, a newer schema, and
    with `exclusive` for a store that another process has opened so; StoreUnavailable when it does not answer.
    """

    def __init__(self, url: str, max_bytes: int | None = None, exclusive: bool = False) -> None:
        parsed = _parse(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.name = str(parsed.database) if self.is_sqlite else scrub(parsed.render_as_string())
        self.insert = sqlite.insert if self.is_sqlite else postgresql.insert
        if max_bytes is not None and not self.is_sqlite:
            raise ConfigError(f"max_bytes bounds a SQLite file; {self.name} is not one")
        self._writing = threading.Lock()
        self._lock = _claim(Path(self.name), exclusive) if self.is_sqlite else None
        self._engine = _sqlite_engine(parsed, max_bytes) if self.is_sqlite else _postgresql_engine(parsed)
        self._writer = self._engine.execution_options(writes=True)
        self._claimed: sa.Connection | None = None
        try:
            self._prepare()
            if exclusive and not self.is_sqlite:
                self._claimed = _claim_server(self._engine, self.name)
        except (ConfigError, StoreUnavailable):
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection whose statements see one state of the database."""
        with _named(self.name), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction, committed at the end. One at a time: threads queue here rather than poll SQLite's lock."""
        with self._writing, _named(self.name), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections, then let another process in."""
        if self._claimed:
            self._claimed.close()
        self._engine.dispose()
        if self._lock:
            self._lock.release()

    def _prepare(self) -> None:
        try:
            with self.writing() as connection:
                _create_tables(connection, self.name)
        except StoreUnavailable as error:
            if _code(error.__cause__).startswith(_REFUSED):
                raise ConfigError(f"{error}; expected a file that can be created or written here") from error
            raise


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url if "://" in url else f"sqlite:///{url}")
    except (ArgumentError, ValueError) as error:
        raise ConfigError(f"{scrub(url)!r} is no database URL; expected sqlite:///FILE or postgresql://...") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite" and (not parsed.database or parsed.database == ":memory:"):
        raise ConfigError("the store would be in memory and lost with the process; expected sqlite:///FILE")
    if backend not in ("sqlite", "postgresql"):
        raise ConfigError(f"the store's database is {backend!r}; expected sqlite or postgresql")
    # SQLAlchemy 2.0 would take psycopg2 for the bare name.
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def _claim(path: Path, exclusive: bool) -> LockFile | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder of the store {path} cannot be made: {error.strerror}") from error
    return LockFile(path.with_name(f"{path.name}.lock")) if exclusive else None


def _sqlite_engine(url: sa.URL, max_bytes: int | None) -> sa.Engine:
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S})

    def configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would come too late: see begin
        pragmas = ["page_size = 4096", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"]
        if max_bytes is not None:
            pragmas.append(f"max_page_count = {max(max_bytes // _PAGE_BYTES, 1)}")
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin(connection: sa.Connection) -> None:
        # A transaction that reads first and writes later cannot wait for the lock; one that says so at once can.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    sa.event.listen(engine, "connect", configure)
    sa.event.listen(engine, "begin", begin)
    return engine


def _postgresql_engine(url: sa.URL) -> sa.Engine:
    # A server that vanished without a word is noticed after ten seconds, not after the kernel's fifteen minutes.
    patience = {"connect_timeout": 5, "keepalives_idle": 10, "tcp_user_timeout": 10_000}
    try:
        return sa.create_engine(url, hide_parameters=True, pool_pre_ping=True, pool_timeout=5, connect_args=patience)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigError(f"no driver for {url.drivername}; pip install 'resadapt-stream[postgresql]'") from error


def _claim_server(engine: sa.Engine, name: str) -> sa.Connection:
    """A connection that holds the database's advisory lock for as long as it is open."""
    with _named(name):
        connection = engine.connect()
        if connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_EXCLUSIVE_LOCK))):
            connection.commit()  # the lock is the session's; no transaction stays open
            return connection
        connection.close()
    raise ConfigError(f"the store {name} is held by another process; stop that one, or give this one its own")


def _create_tables(connection: sa.Connection, name: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
    inspector = sa.inspect(connection)
    present = set(inspector.get_table_names())
    ours = "meta" in present and {column["name"] for column in inspector.get_columns("meta")} == {"key", "value"}
    # A PostgreSQL database may hold tables of others beside ours; a SQLite file belongs to one program.
    if not ours and (present if connection.dialect.name == "sqlite" else present & set(tables.tables)):
        raise ConfigError(f"the store {name} is the database of another program; give this one a database of its own")
    version = connection.scalar(sa.select(META.c.value).where(META.c.key == "schema")) if ours else None
    if version is None:
        tables.create_all(connection)
        connection.execute(sa.insert(META).values(key="schema", value=str(SCHEMA_VERSION)))
        connection.execute(sa.insert(MIGRATION).values(version_num=HEAD))
    elif int(version) > SCHEMA_VERSION:
        raise ConfigError(
            f"the store {name} has schema {version}; this program knows {SCHEMA_VERSION}: it was written by a newer one"
        )
    elif int(version) < SCHEMA_VERSION:
        log.info("store_migrated", store=name, schema=int(version), to=SCHEMA_VERSION)
        migrate(connection)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """The driver's errors by what they mean. Errors of our own making (a wrong statement) pass."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable(f"the store {name} has no free connection") from error
    except DBAPIError as error:
        code, reason = _code(error), scrub(str(error.orig)).strip()
        if code.startswith(_FOREIGN):
            raise ConfigError(f"the store {name} is damaged or no database: {reason}") from error
        if code.startswith("SQLITE_FULL"):
            raise StoreFull(f"the store {name} is full: {reason}") from error
        if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
            raise StoreUnavailable(f"the store {name} does not take it: {reason}") from error
        raise


def _code(error: BaseException | None) -> str:
    """SQLite's name of an error, or nothing."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorname", "")
    return ""
