"""Ownership of a store: only the process that took it last may write to it.

The store holds a fencing token, a number that grows with each taking. Every commit of an owner checks it in its own
transaction, so that an owner that was overtaken while it was away commits nothing more, whatever locks it believes to
hold.
"""

from functools import cache

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pipeline.errors import NotOwner

_KEY = "owner"


def take(connection: sa.Connection, meta: sa.Table) -> int:
    """Become the owner, within a transaction that writes: the new token. Every older one is void once it commits."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(insert(meta).values(key=_KEY, value="0").on_conflict_do_nothing(index_elements=["key"]))
    token = int(str(connection.execute(_held(meta).with_for_update()).scalar_one())) + 1
    connection.execute(sa.update(meta).where(meta.c.key == _KEY).values(value=str(token)))
    return token


def check(connection: sa.Connection, meta: sa.Table, token: int, name: str) -> None:
    """Raise NotOwner if the token of store `name` is another one now. Whoever wants to take the store waits for the end
    of this transaction."""
    held = connection.execute(_shared(meta)).scalar_one_or_none()
    if str(held) != str(token):
        raise NotOwner(
            f"the store {name} belongs to another process now (owner {held or 'unknown'}, this one is {token}); nothing"
            " more is decided here"
        )


@cache
def _shared(meta: sa.Table) -> sa.Select[tuple[str]]:
    return _held(meta).with_for_update(read=True)


def _held(meta: sa.Table) -> sa.Select[tuple[str]]:
    return sa.select(meta.c.value).where(meta.c.key == _KEY)
