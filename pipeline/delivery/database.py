"""The database under the store: how it is opened and brought to its schema, and what its errors mean."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from pipeline.delivery import ownership
from pipeline.delivery.database_faults import is_refused, named
from pipeline.delivery.lockfile import LockFile
from pipeline.delivery.migrations import migrate
from pipeline.delivery.tables import HEAD, META, MIGRATION, SCHEMA_VERSION, tables
from pipeline.errors import ConfigError, StoreDamaged, StoreUnavailable
from pipeline.redact import redact_url, remember
from pipeline.urls import parse_url

log = structlog.get_logger()

BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process's lock before the store counts as unavailable."""
STATEMENT_TIMEOUT_S = 10.0
"""How long a PostgreSQL server may work on one statement; and wait for the next within a transaction."""
SHARED_IDLE_S = 2.0
"""How long it waits for that where others share the store: a process that is frozen within a commit holds its streams
from those who take them over."""

_PAGE_BYTES = 4096
_CREATION_LOCK = 7_275_116
_EXCLUSIVE_LOCK = 7_275_117
_SLIP = re.compile(r"(sqlite|postgres(?:ql)?(?:\+\w+)?):", re.IGNORECASE)


class Database:
    """SQLite (`sqlite:///FILE` or a bare file name) or PostgreSQL (`postgresql://...`), with its tables in place.

    With `exclusive` it has one owner: a lock keeps others out, and a fencing token judges every transaction that writes
    (see ownership), which raises NotOwner once somebody else has taken the database. With `shared` it has several, who
    let each other in and keep an exclusive one out.

    Raises ConfigError for a URL of neither, a path that cannot be written, a file that is no store, a newer schema, and
    with `exclusive` or `shared` for a store that another process holds; StoreUnavailable when it does not answer.
    """

    def __init__(self, url: str, max_bytes: int | None = None, exclusive: bool = False, shared: bool = False) -> None:
        parsed = parse_store(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.name = str(parsed.database) if self.is_sqlite else redact_url(parsed.render_as_string())
        self.insert = sqlite.insert if self.is_sqlite else postgresql.insert
        if max_bytes is not None and not self.is_sqlite:
            raise ConfigError(f"max_bytes bounds a SQLite file; {self.name} is not one")
        self._writing = threading.Lock()
        self._lock = _claim(Path(self.name), exclusive) if self.is_sqlite else None
        idle_s = SHARED_IDLE_S if shared else STATEMENT_TIMEOUT_S
        self.engine = _sqlite_engine(parsed, max_bytes) if self.is_sqlite else _postgresql_engine(parsed, idle_s)
        # SQLite needs no other engine for either: `reading` begins its transaction itself.
        self._stable, self._single = (
            self.engine if self.is_sqlite else self.engine.execution_options(isolation_level=level)
            for level in ("REPEATABLE READ", "AUTOCOMMIT")
        )
        self.claimed: sa.Connection | None = None
        self._token: int | None = None
        self.shared = shared
        self._file: os.stat_result | None = None
        try:
            self._prepare(exclusive)
        except (ConfigError, StoreUnavailable):
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection whose statements see one state of the database. Raises StoreDamaged where its file is gone."""
        self._check_file()
        with named(self.name), self._stable.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            yield connection

    @contextmanager
    def reading_once(self) -> Iterator[sa.Connection]:
        """A connection for one statement, outside a transaction, which saves a server BEGIN and ROLLBACK. Raises
        StoreDamaged where its file is gone."""
        self._check_file()
        with named(self.name), self._single.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction, committed at the end. One at a time: threads queue here rather than poll SQLite's lock.

        Raises NotOwner where another process has taken the database, and StoreDamaged where its file is gone.
        """
        with self._writing, named(self.name), self._transaction() as connection:
            if self._token is not None:
                ownership.check(connection, self._token, self.name)
            yield connection

    @contextmanager
    def beside(self) -> Iterator[sa.Connection]:
        """A transaction beside those of `writing`, for signs of life: it waits for none of them. On SQLite, which has
        one writer, it is one of them."""
        if self.is_sqlite:
            with self.writing() as connection:
                yield connection
            return
        with named(self.name), self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections, then let another process in."""
        if self.claimed:
            self.claimed.close()
        self.engine.dispose()
        if self._lock:
            self._lock.release()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """On the connection that holds a server's lock, if there is one: if it breaks, the lock is known to be gone."""
        if self.is_sqlite or self._token is None:
            self._check_file()
            with self.engine.begin() as connection:
                if self.is_sqlite:
                    # A transaction that reads first and writes later cannot wait for the lock; one that says so can.
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
            return
        self.claimed = self.claimed or self._claim_again(self._token)
        try:
            with self.claimed.begin():
                yield self.claimed
        finally:
            if self.claimed.invalidated:
                self.claimed.close()
                self.claimed = None

    def _claim_again(self, token: int) -> sa.Connection:
        if connection := _claim_server(self.engine, self.shared):
            return connection
        with self.engine.begin() as connection:
            ownership.check(connection, token, self.name)
        raise StoreUnavailable(f"the lock of the store {self.name} is still held, perhaps by a connection that is lost")

    def _check_file(self) -> None:
        """SQLite writes on into a file that has lost its name, and nobody would find it again."""
        if self._file is None:
            return
        with suppress(FileNotFoundError):
            if os.path.samestat(self._file, os.stat(self.name)):
                return
        raise StoreDamaged(f"the file of the store {self.name} was removed or replaced while it was in use")

    def _prepare(self, exclusive: bool) -> None:
        try:
            with self.writing() as connection:
                _create_tables(connection, self.name)
        except StoreDamaged as error:
            raise ConfigError(str(error)) from error
        except StoreUnavailable as error:
            if is_refused(error.__cause__):
                raise ConfigError(f"{error}; expected a file that can be created or written here") from error
            raise
        if self.is_sqlite:
            self._file = os.stat(self.name)
        if exclusive or self.shared:
            self._take()

    def _take(self) -> None:
        with named(self.name):
            if not self.is_sqlite and not (connection := _claim_server(self.engine, self.shared)):
                raise ConfigError(
                    f"the store {self.name} is held by another process; stop that one, or give this one its own"
                )
            self.claimed = None if self.is_sqlite else connection
        with self.writing() as connection:
            token = ownership.join(connection) if self.shared else ownership.take(connection)
        self._token = token


def parse_store(url: str) -> sa.URL:
    """The database in a store's URL. Raises ConfigError, for a slip with what was meant."""
    scheme, mark, _ = url.partition("://")
    backend = _backend(scheme if mark else "sqlite")
    if not mark and (slip := _SLIP.match(url)):
        raise ConfigError(f"the store {redact_url(url)!r} lacks its slashes; expected {_expected(slip[1], url)}")
    if not mark:
        return _parse_file(f"sqlite:///{url}")
    if backend == "sqlite":
        return _parse_file(url)
    try:
        parts = parse_url(url)
        database, _, query = parts.rest.removeprefix("/").partition("?")
        bare = sa.make_url(f"{_driver(scheme)}://{parts.authority}/{database}{'?' if query else ''}{query}")
    except (ArgumentError, ConfigError, ValueError) as error:
        raise ConfigError(
            f"{redact_url(url)!r} is no database URL; expected postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    if not database:
        raise ConfigError(f"the store {redact_url(url)!r} names no database; expected postgresql://HOST/NAME")
    if parts.password:
        remember(parts.password)
    return bare.set(username=parts.user, password=parts.password)


def _parse_file(url: str) -> sa.URL:
    host, slash, path = url.partition("://")[2].partition("/")
    if host:
        meant = redact_url(f"sqlite:///{host}{slash}{path}")
        raise ConfigError(
            f"the store {redact_url(url)!r} has two slashes, behind which a host stands; expected {meant}"
        )
    if not path or path == ":memory:":
        raise ConfigError("the store would be in memory and lost with the process; expected sqlite:///FILE")
    return sa.make_url(f"sqlite:///{path}")


def _backend(scheme: str) -> str:
    backend = scheme.lower().partition("+")[0]
    backend = "postgresql" if backend == "postgres" else backend
    if backend not in ("sqlite", "postgresql"):
        raise ConfigError(f"the store's database is {backend!r}; expected sqlite or postgresql")
    return backend


def _driver(scheme: str) -> str:
    driver = scheme.lower().partition("+")[2]
    return f"postgresql+{driver or 'psycopg'}"  # SQLAlchemy 2.0 would take psycopg2 for the bare name


def _expected(scheme: str, url: str) -> str:
    """The URL that was probably meant where there are too few slashes."""
    behind = url[len(scheme) + 1 :].lstrip("/")
    if scheme.lower() == "sqlite":
        return f"sqlite:////{behind}" if url.startswith(f"{scheme}:/") else f"sqlite:///{behind}"
    return redact_url(f"{scheme.lower()}://{behind}")


def _claim(path: Path, exclusive: bool) -> LockFile | None:
    """Make a file that nobody else may read, and lock it. A lock beside one of its other names would not be seen."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder of the store {path} cannot be made: {error.strerror}") from error
    with suppress(OSError):  # what cannot be made here SQLite refuses in its own words
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    if not exclusive:
        return None
    if path.is_file() and path.stat().st_nlink > 1:
        raise ConfigError(
            f"the store {path} has another name as well (a hard link), under which another process could write to it;"
            " remove that, or give this one a file of its own"
        )
    path = path.resolve()
    return LockFile(path.with_name(f"{path.name}.lock"))


def _sqlite_engine(url: sa.URL, max_bytes: int | None) -> sa.Engine:
    # The file is there (see _claim). A new connection must not put an empty one in the place of one that was removed.
    only_existing = url.set(database=f"file:{quote(str(url.database))}", query={"mode": "rw", "uri": "true"})
    engine = sa.create_engine(only_existing, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S})

    def configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would come too late: see Database
        pragmas = ["page_size = 4096", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"]
        if max_bytes is not None:
            pragmas.append(f"max_page_count = {max(max_bytes // _PAGE_BYTES, 1)}")
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    sa.event.listen(engine, "connect", configure)
    return engine


def _postgresql_engine(url: sa.URL, idle_s: float) -> sa.Engine:
    # A server that vanished without a word is noticed after ten seconds, not after the kernel's fifteen minutes.
    patience = {"connect_timeout": 5, "keepalives_idle": 10, "tcp_user_timeout": 10_000}
    try:
        engine = sa.create_engine(url, hide_parameters=True, pool_pre_ping=True, pool_timeout=5, connect_args=patience)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigError(f"no driver for {url.drivername}; pip install 'resadapt-stream[postgresql]'") from error

    def configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        bounds = {
            "statement_timeout": STATEMENT_TIMEOUT_S,
            "lock_timeout": BUSY_TIMEOUT_S,
            "idle_in_transaction_session_timeout": idle_s,
        }
        cursor = connection.cursor()
        for name, seconds in bounds.items():
            cursor.execute(f"SET {name} = {round(seconds * 1000)}")
        cursor.close()
        connection.commit()  # a rollback would take them back

    sa.event.listen(engine, "connect", configure)
    return engine


def _claim_server(engine: sa.Engine, shared: bool) -> sa.Connection | None:
    """A connection that holds the database's advisory lock for as long as it is open, alone or with others who share
    it; None if another one keeps it out."""
    lock = sa.func.pg_try_advisory_lock_shared if shared else sa.func.pg_try_advisory_lock
    connection = engine.connect()
    try:
        if connection.scalar(sa.select(lock(_EXCLUSIVE_LOCK))):
            connection.commit()  # the lock is the session's; no transaction stays open
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


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
