"""A transaction that several units of work share.

The units run in step: the statements that they ask for next are collected, equal ones are sent as one, and each unit
goes on with its own rows. If a unit fails after it has written, or a statement fails, the transaction is rolled back and
each unit has to run in a transaction of its own, so that the failure of one unit does not affect the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import asyncpg

from ecomcharge.storage.database import Params, Row, Unit
from ecomcharge.storage.postgres.batching import Pending
from ecomcharge.storage.postgres.connecting import Connection
from ecomcharge.storage.postgres.errors import RETRYABLE, UNAVAILABLE
from ecomcharge.storage.postgres.pool import BROKEN
from ecomcharge.storage.postgres.recovery import CommitInDoubt, InsertedRow
from ecomcharge.storage.postgres.statements import Executor, numbered
from ecomcharge.storage.statements import Insert, PointRead, TermIndex

MIN_ROWS_TO_COPY: Final = 100
_CHANGES: Final = ("insert", "insert_many", "run", "run_many", "run_returning")


class Request(NamedTuple):
    """The statement that a unit asks for next. ``argument`` is a row, a key, parameters, or a list of rows or keys."""

    method: str  # of Transaction
    statement: Any  # Insert, PointRead or SQL
    argument: Any

    def __await__(self) -> Generator[Request, Any, Any]:
        return (yield self)


class PostgresTransaction:
    """Passes each call of a unit on to the transaction that the unit shares."""

    async def find(self, read: PointRead, key: Row) -> Row | None:
        return await Request("find", read, key)

    async def insert(self, insert: Insert, row: Row) -> bool:
        return await Request("insert", insert, row)

    async def find_many(self, read: PointRead, keys: Sequence[Row]) -> Sequence[Row | None]:
        return await Request("find_many", read, keys) if keys else []

    async def insert_many(self, insert: Insert, rows: Sequence[Row]) -> Sequence[bool]:
        return await Request("insert_many", insert, rows) if rows else []

    async def index_terms(self, index: TermIndex, records: Sequence[tuple[str, str]]) -> None:
        """The index is on the column of the terms."""

    async def remove_terms(self, index: TermIndex, records: Sequence[tuple[str, str]]) -> None:
        """The index is on the column of the terms."""

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        return await Request("rows", sql, params)

    async def run(self, sql: str, params: Params) -> int:
        return await Request("run", sql, params)

    async def run_many(self, sql: str, params: Sequence[Params]) -> None:
        if params:
            await Request("run_many", sql, params)

    async def run_returning(self, sql: str, params: Params) -> Sequence[Row]:
        return await Request("run_returning", sql, params)


_TRANSACTION: Final = PostgresTransaction()


class RetryIndividually(Exception):
    """These units cannot commit together; each has to run in a transaction of its own."""


@dataclass(eq=False, slots=True)
class PendingUnit(Pending):
    """A unit of work and its progress: the statement that it waits for, its result, or its error."""

    unit: Unit[Any]
    request: Request | None = field(init=False, default=None)
    result: Any = field(init=False, default=None)
    error: Exception | None = field(init=False, default=None)
    wrote: bool = field(init=False, default=False)
    _coroutine: Coroutine[Any, Any, Any] | None = field(init=False, default=None)

    def start(self) -> None:
        """Run the unit from its beginning to its first request."""
        self.result, self.error, self.wrote = None, None, False
        self._coroutine = self.unit(_TRANSACTION)  # type: ignore[assignment]
        self._run_until_request(None)

    def resume(self, answer: Any) -> None:
        """Give the unit the answer to its request, and run it to the next one."""
        if self.request is not None and self.request.method in _CHANGES:
            self.wrote = self.wrote or bool(answer)
        self._run_until_request(answer)

    def _run_until_request(self, answer: Any) -> None:
        assert self._coroutine is not None
        self.request = None
        try:
            awaited = self._coroutine.send(answer)
        except StopIteration as finished:
            self.result = finished.value
        except Exception as error:
            self.error = error
        except asyncio.CancelledError as error:  # nobody cancelled the task, which runs the other units as well
            self.error = RuntimeError("a unit of work raised CancelledError")
            self.error.__cause__ = error
        else:
            if isinstance(awaited, Request):
                self.request = awaited
            else:
                self._coroutine.close()
                self.error = RuntimeError("a unit of work must await nothing but its transaction")

    def stop(self) -> None:
        self.request = None
        if self._coroutine is not None:
            self._coroutine.close()


class BatchTransaction:
    """One transaction for several units.

    ``begin`` is the statement that begins it. ``has_transaction_status`` is true if the engine can report later whether a
    transaction was committed.
    """

    def __init__(
        self,
        connection: Connection,
        units: Sequence[PendingUnit],
        executor: Executor,
        *,
        begin: str,
        has_transaction_status: bool,
    ) -> None:
        self._begin = begin
        self._connection = connection
        self._units = units
        self._executor = executor
        self._has_transaction_status = has_transaction_status
        self._transaction_id: str | None = None
        self._inserted: InsertedRow | None = None

    async def run(self) -> None:
        """Run the units and commit. Their outcomes are left to the caller.

        Raises ``RetryIndividually``, ``CommitInDoubt``, or the error of the only unit.
        """
        await self._connection.execute(self._begin)
        try:
            await self._run_units()
            if self._has_transaction_status and self._transaction_id is None and any(unit.wrote for unit in self._units):
                self._transaction_id = await self._connection.fetchval("SELECT pg_current_xact_id()::text")
        except BaseException as error:
            for unit in self._units:
                unit.stop()
            if not isinstance(error, BROKEN):  # such a connection is terminated; a ROLLBACK would wait for one more timeout
                await self._roll_back()
            raise
        await self._commit()

    async def _run_units(self) -> None:
        for unit in self._units:
            unit.start()
        while groups := self._group_requests():
            for (method, statement), group in groups.items():
                arguments = [unit.request.argument for unit in group if unit.request is not None]
                try:
                    answers = await self._execute(method, statement, arguments)
                except Exception as error:  # of the server, or of asyncpg about a value that it cannot send
                    if len(self._units) == 1 or isinstance(error, UNAVAILABLE):
                        raise
                    raise RetryIndividually from error
                for unit, answer in zip(group, answers, strict=True):
                    unit.resume(answer)
        for unit in self._units:
            if unit.error is not None and unit.wrote:
                raise unit.error if len(self._units) == 1 else RetryIndividually

    def _group_requests(self) -> dict[tuple[str, Any], list[PendingUnit]]:
        groups: dict[tuple[str, Any], list[PendingUnit]] = {}
        for unit in self._units:
            if unit.request is not None:
                groups.setdefault(unit.request[:2], []).append(unit)
        return groups

    async def _execute(self, method: str, statement: Any, arguments: Sequence[Any]) -> Sequence[Any]:
        """The answer to each argument."""
        match method:
            case "find":
                return await self._executor.find(self._connection, statement, arguments)
            case "find_many":
                return [await self._executor.find(self._connection, statement, keys) for keys in arguments]
            case "insert":
                return await self._insert(statement, arguments)
            case "insert_many":
                return [await self._copy_or_insert(statement, rows) for rows in arguments]
        text, names = numbered(statement)
        if method == "run_many":
            for many in arguments:
                await self._connection.executemany(text, [[params[name] for name in names] for params in many])
            return [True] * len(arguments)
        values = [[params[name] for name in names] for params in arguments]
        if method == "run":
            statuses = [await self._connection.execute(text, *each) for each in values]  # such as "UPDATE 1"
            return [int(status.rpartition(" ")[2]) for status in statuses]
        return [await self._connection.fetch(text, *each) for each in values]

    async def _insert(self, insert: Insert, rows: Sequence[Row]) -> list[bool]:
        inserted, transaction_id = await self._executor.insert(
            self._connection, insert, rows, with_transaction_id=self._has_transaction_status
        )
        if True in inserted:
            self._keep_witness(insert, rows[inserted.index(True)])
            self._transaction_id = transaction_id
        return inserted

    async def _copy_or_insert(self, insert: Insert, rows: Sequence[Row]) -> list[bool]:
        """COPY takes two thirds of the time of an INSERT of 100 rows. It has no ON CONFLICT: if it fails, INSERT follows."""
        if len(rows) < MIN_ROWS_TO_COPY or not self._executor.copies:
            return await self._insert(insert, rows)
        await self._connection.execute("SAVEPOINT before_copy")
        try:
            await self._connection.copy_records_to_table(insert.table, columns=insert.columns, records=rows)
        except asyncpg.PostgresError as error:
            if isinstance(error, UNAVAILABLE):
                raise
            await self._connection.execute("ROLLBACK TO SAVEPOINT before_copy")
            return await self._insert(insert, rows)
        await self._connection.execute("RELEASE SAVEPOINT before_copy")
        self._keep_witness(insert, rows[0])
        return [True] * len(rows)

    def _keep_witness(self, insert: Insert, row: Row) -> None:
        """The first inserted row proves later that the transaction was committed."""
        if self._inserted is None:
            self._inserted = InsertedRow(insert, row)

    async def _commit(self) -> None:
        """An unknown error of PostgreSQL is in doubt too: Citus answers XX000 if one of its workers did not answer."""
        try:
            await self._connection.execute("COMMIT")
        except (asyncpg.PostgresError, *UNAVAILABLE) as error:
            if isinstance(error, RETRYABLE):
                raise
            self._connection.terminate()
            if any(unit.wrote for unit in self._units):
                raise CommitInDoubt(self._transaction_id, self._inserted) from error

    async def _roll_back(self) -> None:
        try:
            await self._connection.execute("ROLLBACK")
        except (asyncpg.PostgresError, *UNAVAILABLE):
            self._connection.terminate()
