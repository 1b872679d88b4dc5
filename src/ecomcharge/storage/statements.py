"""Statements that an engine may combine with others like them, described as data.

Every statement is a constant of a store. Two are the same statement only if they are the same object, so an engine finds
the SQL that it built for one by the object's identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TermIndex:
    """An index of the terms of records, for searches by prefix (``storage.term_search``).

    The column ``search_terms`` of the table ``records`` has the terms. ``table`` is the full-text table of SQLite; its row
    numbers are the numbers of the ids, which begin with ``prefix``. PostgreSQL has an index on the column, so a change of the
    row changes the index.
    """

    table: str
    records: str
    prefix: str


@dataclass(frozen=True, eq=False)
class Insert:
    """Insert one row, unless a unique constraint refuses it.

    ``key`` names the columns that distinguish the row from every other row that may be inserted at the same moment.
    A primary key alone is not enough where two processes may choose the same one.

    ``index`` is the index of the terms of the rows, which are their last column. The key of such a row has a generated id, so
    the row is hardly ever refused: an engine may insert it a moment later, together with other rows.
    """

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    index: TermIndex | None = None

    def sql(self, rows: str) -> str:
        """``rows`` is a ``VALUES`` or ``SELECT`` that yields the columns in their order."""
        return f"INSERT INTO {self.table} ({', '.join(self.columns)}) {rows} ON CONFLICT DO NOTHING"

    def key_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """The values of ``key`` in a row of ``columns``."""
        return tuple([row[self.columns.index(name)] for name in self.key])


@dataclass(frozen=True, eq=False)
class PointRead:
    """Read the row, at most one, whose ``key`` columns have the given values.

    ``table`` may be a join. ``suffix`` is SQL that follows the conditions on the key, such as ``AND closed_at IS NULL`` or
    ``GROUP BY token``; it has no parameters. If several rows may have the key, ``first_by`` is the column whose lowest value
    selects the row.
    """

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    suffix: str = ""
    first_by: str = ""

    def sql(self, values: Sequence[str]) -> str:
        """``values`` are expressions for the values of the key."""
        conditions = " AND ".join(f"{column} = {value}" for column, value in zip(self.key, values, strict=True))
        first = f"ORDER BY {self.first_by} LIMIT 1" if self.first_by else ""
        parts = ("SELECT", ", ".join(self.columns), "FROM", self.table, "WHERE", conditions, self.suffix, first)
        return " ".join(filter(None, parts))
