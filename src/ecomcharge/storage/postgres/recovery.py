"""Finds out if a transaction was committed although its COMMIT failed or was not answered."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, NamedTuple

import asyncpg

from ecomcharge.base.errors import OutcomeUnknown, Unavailable
from ecomcharge.storage.database import Row
from ecomcharge.storage.postgres.connecting import Connection
from ecomcharge.storage.postgres.errors import UNAVAILABLE
from ecomcharge.storage.postgres.pool import ConnectionPool
from ecomcharge.storage.postgres.statements import select_one
from ecomcharge.storage.statements import Insert, PointRead

_POLL_SECONDS: Final = 0.1


class InsertedRow(NamedTuple):
    insert: Insert
    row: Row


class CommitInDoubt(Exception):
    """The connection broke during COMMIT, or COMMIT failed and may have been executed nevertheless.

    ``transaction_id`` is ``None`` where the engine cannot be asked about it. ``inserted`` is a row of the transaction,
    if it inserted any.
    """

    def __init__(self, transaction_id: str | None, inserted: InsertedRow | None) -> None:
        super().__init__(transaction_id)
        self.transaction_id = transaction_id
        self.inserted = inserted


async def ensure_committed(pool: ConnectionPool, doubt: CommitInDoubt) -> None:
    """Return if the transaction was committed.

    Raises ``Unavailable`` if it was not, and ``OutcomeUnknown`` if the database does not say within the limit of the pool.
    """
    status = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pool.limits.recovery_seconds):
            status = await _final_status(pool, doubt)
    if status is None:
        raise OutcomeUnknown from doubt
    if status == "aborted":
        raise Unavailable from doubt


async def _final_status(pool: ConnectionPool, doubt: CommitInDoubt) -> str | None:
    """``committed`` or ``aborted``, however long it takes; ``None`` where there is nothing to ask for."""
    while doubt.transaction_id is not None or doubt.inserted is not None:
        with contextlib.suppress(asyncpg.PostgresError, *UNAVAILABLE):
            async with pool.lend() as connection:
                status = await _status(connection, doubt)
            if status in ("committed", "aborted"):
                return status
        await asyncio.sleep(_POLL_SECONDS)
    return None


async def _status(connection: Connection, doubt: CommitInDoubt) -> str | None:
    """``committed``, ``aborted``, ``in progress``, or ``None`` if it cannot be known (yet).

    Without an id the inserted row decides: if it is there, the transaction was committed. If it is not there, the transaction
    may still be committed later.

    A crash loses a transaction whose log was not flushed, and its id is given to another transaction later. So the id
    may be in the future, and a committed id does not prove that the inserted row is there.
    """
    if doubt.transaction_id is None:
        return "committed" if doubt.inserted is not None and await _exists(connection, doubt.inserted) else None
    try:
        status: str | None = await connection.fetchval("SELECT pg_xact_status($1::text::xid8)", doubt.transaction_id)
    except asyncpg.InvalidParameterValueError:  # it is in the future
        return "aborted"
    if status == "committed" and doubt.inserted is not None and not await _exists(connection, doubt.inserted):
        return "aborted"
    return status


async def _exists(connection: Connection, inserted: InsertedRow) -> bool:
    insert, row = inserted
    read = PointRead(insert.table, ("1",), insert.key)
    return await connection.fetchval(select_one(read), *insert.key_of(row)) is not None
