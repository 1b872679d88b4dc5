"""The SQL of PostgreSQL for the statements of stores, and how many of a kind are executed as one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from string import Template
from typing import Any, Final, NamedTuple

from ecomcharge.storage.database import Params, Row
from ecomcharge.storage.postgres.connecting import Connection
from ecomcharge.storage.statements import Insert, PointRead

Types = tuple[str, ...]

# With an insert, the id of the transaction costs no further statement before COMMIT: 11 % more creates a second (64 clients).
_TRANSACTION_ID: Final = "pg_current_xact_id()::text"


class NumberedStatement(NamedTuple):
    """A statement with ``$1``, ``$2``, ... and the names of its parameters in that order."""

    text: str
    names: tuple[str, ...]

    def values(self, params: Params) -> list[object]:
        return [params[name] for name in self.names]


class _NamedParameters(Template):
    """``:name`` becomes ``$1``.

    ``string.Template`` with another delimiter, because the standard library then does all the work: it replaces the
    placeholders and does not parse SQL. A colon that begins no placeholder raises ``ValueError`` when the statement
    is first used, so a literal with a colon or a cast by ``::`` cannot pass unnoticed; no statement needs either. SQLite
    binds names itself.
    """

    delimiter = ":"


@lru_cache(maxsize=1024)
def numbered(sql: str) -> NumberedStatement:
    template = _NamedParameters(sql)
    if "::" in sql:  # to Template this is an escaped delimiter
        raise ValueError(f"a statement must not contain '::': {sql}")
    names = template.get_identifiers()
    return NumberedStatement(template.substitute({name: f"${n}" for n, name in enumerate(names, 1)}), tuple(names))


@lru_cache(maxsize=1024)
def select_one(read: PointRead) -> str:
    return read.sql([f"${n}" for n in range(1, len(read.key) + 1)])


@lru_cache(maxsize=1024)
def select_many(read: PointRead, types: Types) -> str:
    """One parameter per column of the key, an array. Each row is preceded by the position, from 1, of its key.

    ``OFFSET 0`` has each key searched by an index. Otherwise PostgreSQL may read the whole table for a join.
    """
    names = [f"k{n}" for n in range(1, len(read.key) + 1)]
    inner = read.sql([f"asked.{name}" for name in names])
    return (
        f"SELECT asked.position, found.* FROM {_unnest(types)} WITH ORDINALITY AS asked({', '.join(names)}, position)"
        f" CROSS JOIN LATERAL ({inner} OFFSET 0) AS found"
    )


@lru_cache(maxsize=1024)
def insert_one(insert: Insert, *, with_transaction_id: bool) -> str:
    values = ", ".join(f"${n}" for n in range(1, len(insert.columns) + 1))
    return insert.sql(f"VALUES ({values})") + returning(insert, with_transaction_id=with_transaction_id)


@lru_cache(maxsize=1024)
def insert_many(insert: Insert, types: Types, *, with_transaction_id: bool) -> str:
    """One parameter per column, an array."""
    return insert.sql(f"SELECT * FROM {_unnest(types)}") + returning(insert, with_transaction_id=with_transaction_id)


def _unnest(types: Types) -> str:
    return f"unnest({', '.join(f'${n}::{type_}[]' for n, type_ in enumerate(types, 1))})"


def returning(insert: Insert, *, with_transaction_id: bool) -> str:
    return " RETURNING " + ", ".join([*insert.key, *([_TRANSACTION_ID] if with_transaction_id else [])])


def which_inserted(insert: Insert, rows: Sequence[Row], keys: set[tuple[object, ...]]) -> list[bool]:
    """For each row whether it was inserted. ``keys`` are those of the inserted rows; it is emptied."""
    each = []
    for row in rows:
        key = insert.key_of(row)
        each.append(key in keys)
        keys.discard(key)  # of two rows with equal keys, one was inserted
    return each


class Inserted(NamedTuple):
    """For each row whether it was inserted; the id of the transaction if one was and the engine has such ids."""

    each: list[bool]
    transaction_id: str | None


class Executor:
    """Executes many statements of a kind as one.

    ``copies``: whether many rows may be sent by COPY.
    """

    copies = True

    def __init__(self) -> None:
        self._types: dict[str, Types] = {}

    async def find(self, connection: Connection, read: PointRead, keys: Sequence[Row]) -> list[Row | None]:
        text = select_one(read)
        if len(keys) == 1:
            return [await connection.fetchrow(text, *keys[0])]
        many = select_many(read, await self._types_of(connection, text))
        found: list[Row | None] = [None] * len(keys)
        for record in await connection.fetch(many, *zip(*keys, strict=True)):
            found[record[0] - 1] = tuple(record)[1:]
        return found

    async def insert(self, connection: Connection, insert: Insert, rows: Sequence[Row], *, with_transaction_id: bool) -> Inserted:
        text = insert_one(insert, with_transaction_id=with_transaction_id)
        values: Sequence[Any] = rows[0]
        if len(rows) > 1:
            types = await self._types_of(connection, text)
            text, values = insert_many(insert, types, with_transaction_id=with_transaction_id), list(zip(*rows, strict=True))
        records = await connection.fetch(text, *values)
        keys = {tuple(record)[: len(insert.key)] for record in records}
        return Inserted(which_inserted(insert, rows, keys), records[0][-1] if records and with_transaction_id else None)

    async def _types_of(self, connection: Connection, text: str) -> Types:
        """The types of the parameters, as the server infers them. It is asked once for each statement."""
        types = self._types.get(text)
        if types is None:
            prepared = await connection.prepare(text)
            types = self._types[text] = tuple(parameter.name for parameter in prepared.get_parameters())
        return types
