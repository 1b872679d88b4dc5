"""Many statements of a kind as one for each shop, for Citus.

Citus keeps each shop on one shard. It sends a statement to that shard if the statement compares ``shop_id`` with one value.
An array of shops, or rows that are selected instead of listed, would go to all shards or through the coordinator.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ecomcharge.storage.database import Row
from ecomcharge.storage.postgres.connecting import Connection
from ecomcharge.storage.postgres.statements import (
    Executor,
    Inserted,
    Types,
    insert_one,
    returning,
    select_one,
    which_inserted,
)
from ecomcharge.storage.statements import Insert, PointRead

DISTRIBUTION_COLUMN: Final = "shop_id"
MAX_ROWS: Final = 64  # of one insert: each number of rows is a prepared statement of its own


@lru_cache(maxsize=1024)
def select_of_shop(read: PointRead, types: Types) -> str:
    """The id of the shop is one parameter, and each other column of the key is an array.

    Each row begins with its values of these other columns. It may have a combination of values that was not asked for.
    """
    shop, others = _split_key(read.key)
    conditions = [
        f"{read.key[n]} = ${n + 1}" if n == shop else f"{read.key[n]} = ANY(${n + 1}::{types[n]}[])" for n in range(len(types))
    ]
    names = ", ".join(read.key[n] for n in others)
    first = f"DISTINCT ON ({names}) " if read.first_by else ""
    order = f" ORDER BY {names}, {read.first_by}" if read.first_by else ""
    columns = ", ".join((names, *read.columns))
    suffix = f" {read.suffix}" if read.suffix else ""
    return f"SELECT {first}{columns} FROM {read.table} WHERE {' AND '.join(conditions)}{suffix}{order}"


@lru_cache(maxsize=1024)
def insert_rows(insert: Insert, count: int) -> str:
    """The rows of one shop. Its id is the first parameter; the others are the values of each row in turn."""
    shop = _position(insert.columns)
    width = len(insert.columns) - (shop is not None)
    rows = []
    for number in range(count):
        values = [f"${n}" for n in range(number * width + 1 + (shop is not None), (number + 1) * width + 1 + (shop is not None))]
        if shop is not None:
            values.insert(shop, "$1")
        rows.append(f"({', '.join(values)})")
    return insert.sql(f"VALUES {', '.join(rows)}") + returning(insert, with_transaction_id=False)


def _position(columns: Sequence[str]) -> int | None:
    """The position of the distribution column."""
    names = [column.rpartition(".")[2] for column in columns]
    return names.index(DISTRIBUTION_COLUMN) if DISTRIBUTION_COLUMN in names else None


def _split_key(columns: Sequence[str]) -> tuple[int | None, list[int]]:
    """The position of the distribution column, and the positions of the others."""
    shop = _position(columns)
    return shop, [n for n in range(len(columns)) if n != shop]


class ExecutorByShop(Executor):
    """Executes many statements of a kind as one for each shop."""

    copies = False

    async def find(self, connection: Connection, read: PointRead, keys: Sequence[Row]) -> list[Row | None]:
        shop, others = _split_key(read.key)
        groups: dict[object, list[tuple[object, ...]]] = {}
        for key in dict.fromkeys(map(tuple, keys)):
            groups.setdefault(None if shop is None else key[shop], []).append(key)
        found: dict[Row, Row] = {}
        for group in groups.values():
            found.update(await self._find_of_shop(connection, read, group, shop, others))
        return [found.get(tuple(key)) for key in keys]

    async def _find_of_shop(
        self, connection: Connection, read: PointRead, keys: Sequence[tuple[object, ...]], shop: int | None, others: Sequence[int]
    ) -> dict[Row, Row]:
        """The rows by their keys, which are different."""
        text = select_one(read)
        if len(keys) == 1:
            row = await connection.fetchrow(text, *keys[0])
            return {} if row is None else {keys[0]: row}
        many = select_of_shop(read, await self._types_of(connection, text))
        values = [keys[0][n] if n == shop else [key[n] for key in keys] for n in range(len(read.key))]
        rows = {tuple(record)[: len(others)]: tuple(record)[len(others) :] for record in await connection.fetch(many, *values)}
        wanted = {key: tuple(key[n] for n in others) for key in keys}
        return {key: rows[part] for key, part in wanted.items() if part in rows}

    async def insert(self, connection: Connection, insert: Insert, rows: Sequence[Row], *, with_transaction_id: bool) -> Inserted:
        shop = _position(insert.columns)
        groups: dict[object, list[Row]] = {}
        for row in rows:
            groups.setdefault(None if shop is None else row[shop], []).append(row)
        keys: set[tuple[object, ...]] = set()
        for group in groups.values():
            for start in range(0, len(group), MAX_ROWS):
                keys |= await self._insert_of_shop(connection, insert, group[start : start + MAX_ROWS], shop)
        return Inserted(which_inserted(insert, rows, keys), None)

    async def _insert_of_shop(
        self, connection: Connection, insert: Insert, rows: Sequence[Row], shop: int | None
    ) -> set[tuple[object, ...]]:
        """The keys of the inserted rows."""
        if len(rows) == 1:
            text, values = insert_one(insert, with_transaction_id=False), list(rows[0])
        else:
            text, values = insert_rows(insert, len(rows)), [value for row in rows for n, value in enumerate(row) if n != shop]
            if shop is not None:
                values.insert(0, rows[0][shop])
        return {tuple(record) for record in await connection.fetch(text, *values)}
