"""Many statements of a kind as one for each shop, for Citus.

Citus keeps each shop on one shard. It sends a statement to that shard if the statement compares ``shop_id`` with one value.
An array of shops, or rows that are selected instead of listed, would go to all shards or through the coordinator.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ecomcharge.storage.database import Row
from ecomcharge.storage.postgres.connecting import Connection
from ecomcharge.storage.postgres.distribution import DISTRIBUTION_COLUMN
from ecomcharge.storage.postgres.statements import Executor, Inserted, insert_one, returning, select_one, which_inserted
from ecomcharge.storage.statements import Insert, PointRead

MAX_ROWS: Final = 64  # of one insert: each number of rows is a prepared statement of its own


class ShopKey(NamedTuple):
    """A key of two columns: the id of the shop and another one. The fields are their positions."""

    shop: int
    other: int


@lru_cache(maxsize=1024)
def shop_key_of(read: PointRead) -> ShopKey | None:
    """``None`` for another key. Such reads are not gathered: without statistics PostgreSQL may read a whole table for arrays."""
    shop = _position(read.key)
    return None if shop is None or len(read.key) != 2 else ShopKey(shop, 1 - shop)


@lru_cache(maxsize=1024)
def select_of_shop(read: PointRead, key: ShopKey, type_: str) -> str:
    """The first parameter is the id of the shop, the second one an array of values of the other column, which has this type.

    Each row begins with its value of that column.
    """
    shop, other = read.key[key.shop], read.key[key.other]
    first = f"DISTINCT ON ({other}) " if read.first_by else ""
    columns = ", ".join((other, *read.columns))
    conditions = f"{shop} = $1 AND {other} = ANY($2::{type_}[])"
    order = f"ORDER BY {other}, {read.first_by}" if read.first_by else ""
    return " ".join(filter(None, (f"SELECT {first}{columns} FROM {read.table} WHERE {conditions}", read.suffix, order)))


@lru_cache(maxsize=1024)
def insert_rows(insert: Insert, count: int) -> str:
    """The rows of one shop. Its id is the first parameter; the others are the values of each row in turn."""
    shop = _position(insert.columns)
    numbers = itertools.count(1 if shop is None else 2)
    rows = [["$1" if n == shop else f"${next(numbers)}" for n in range(len(insert.columns))] for _ in range(count)]
    values = ", ".join(f"({', '.join(row)})" for row in rows)
    return insert.sql(f"VALUES {values}") + returning(insert, with_transaction_id=False)


def _position(columns: Sequence[str]) -> int | None:
    """The position of the distribution column."""
    names = [column.rpartition(".")[2] for column in columns]
    return names.index(DISTRIBUTION_COLUMN) if DISTRIBUTION_COLUMN in names else None


class ExecutorByShop(Executor):
    """Executes many statements of a kind as one for each shop."""

    copies = False

    async def find(self, connection: Connection, read: PointRead, keys: Sequence[Row]) -> list[Row | None]:
        one, shop_key = select_one(read), shop_key_of(read)
        if shop_key is None or len(keys) == 1:
            rows = {key: await connection.fetchrow(one, *key) for key in dict.fromkeys(map(tuple, keys))}
            return [rows[tuple(key)] for key in keys]
        types = await self._types_of(connection, one)
        many = select_of_shop(read, shop_key, types[shop_key.other])
        asked: dict[object, dict[object, None]] = {}  # by shop the values of the other column, each once
        for key in keys:
            asked.setdefault(key[shop_key.shop], {})[key[shop_key.other]] = None
        found: dict[tuple[object, object], Row] = {}
        for shop, others in asked.items():
            for record in await connection.fetch(many, shop, list(others)):
                found[shop, record[0]] = tuple(record)[1:]
        return [found.get((key[shop_key.shop], key[shop_key.other])) for key in keys]

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
