"""Meanings of the errors of a database's driver."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pipeline.errors import StoreDamaged, StoreUnavailable
from pipeline.redact import scrub

_DAMAGED = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
_REFUSED = (*_DAMAGED, "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH", "SQLITE_ERROR")


class StoreFull(StoreUnavailable):
    """No room is left in the database, or on the disk under it."""


@contextmanager
def named(name: str) -> Iterator[None]:
    """Raise the driver's errors by what they mean for the store `name`.

    Only what is wrong with the values of one statement passes as it is. All else is the database's, be it a missing
    right, a read-only server or a statement that took too long, and may be over in a minute: StoreUnavailable.
    """
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable(f"the store {name} has no free connection") from error
    except (DataError, IntegrityError):
        raise
    except DBAPIError as error:
        code, reason = _code(error), scrub(str(error.orig)).strip()
        if code.startswith(_DAMAGED):
            raise StoreDamaged(f"the store {name} is damaged or no database: {reason}") from error
        if code.startswith("SQLITE_FULL"):
            raise StoreFull(f"the store {name} is full: {reason}") from error
        raise StoreUnavailable(f"the store {name} does not take it: {reason}") from error


def is_refused(error: BaseException | None) -> bool:
    """True if SQLite refuses a file in a way that waiting does not change."""
    return _code(error).startswith(_REFUSED)


def _code(error: BaseException | None) -> str:
    """SQLite's name of an error, or nothing."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorname", "")
    return ""
