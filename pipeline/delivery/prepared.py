"""Statements that every commit runs: their SQL is made once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler

Value = str | float | int | None


@dataclass(frozen=True, slots=True)
class _Sql:
    """A statement's text, the values that are part of it, and the order of its parameters where they have no names."""

    text: str
    fixed: Mapping[str, Value]
    order: Sequence[str] | None

    def parameters(self, row: Mapping[str, Value]) -> dict[str, Value] | tuple[Value, ...]:
        named = {**self.fixed, **row}
        return named if self.order is None else tuple([named[name] for name in self.order])


class Prepared:
    """A statement that is sent as it stands, in the SQL made once for each kind of database. `columns` are those that
    an insert fills. Values go as they are given: it is for texts and numbers."""

    def __init__(self, statement: sa.ClauseElement, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = columns
        self._made: dict[str, _Sql] = {}

    def run(self, connection: sa.Connection, *rows: Mapping[str, Value]) -> sa.CursorResult[*tuple[Value, ...]]:
        """Send it once for each row of values, by their names; once where it has none."""
        sql = self._made.get(connection.dialect.name) or self._compile(connection.dialect)
        return connection.exec_driver_sql(sql.text, [sql.parameters(row) for row in rows or ({},)])

    def _compile(self, dialect: sa.Dialect) -> _Sql:
        compiled = self._statement.compile(dialect=dialect, column_keys=self._columns)
        assert isinstance(compiled, SQLCompiler)
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        made = self._made[dialect.name] = _Sql(compiled.string, fixed, compiled.positiontup)
        return made
