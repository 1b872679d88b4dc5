"""PostgreSQL 14 or newer, and engines that speak its language, by asyncpg.

What arrives together travels together. Point reads of the same moment become one statement. Units of work of
the same moment become one transaction in which they advance in step: the driver collects what each unit asks
next, sends equal statements as one, and hands every unit its own rows. When a unit fails after it has
written, or a gathered statement fails, the transaction is rolled back and each unit runs again alone, so the
failure of one stays its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import types
from collections import deque
from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import asyncpg

from ecomcharge.base.errors import ConfigurationError, EcomchargeError, OutcomeUnknown, Unavailable
from ecomcharge.storage.database import Batcher, Load, Migration, Params, Row, Unit, numbered

T = TypeVar("T")
Connection = Any  # what a pool lends; asyncpg comes without types

READ_LANES = 2
WRITE_LANES = 2
MOST_PER_LOAD = 256
WORTH_A_COPY = 100  # rows
CONNECT_TIMEOUT_SECONDS = 5.0
COMMAND_TIMEOUT_SECONDS = 30.0
LOCK_TIMEOUT_MILLISECONDS = 5_000
SETTLE_SECONDS = 20.0
ATTEMPTS = 5  # of a unit that goes alone and meets others that want the same rows
_AND_ITS_ID = ", pg_current_xact_id()::text"  # one trip to the server fewer than asking before COMMIT
MIGRATION_LOCK = 0x65636F6D  # "ecom": any number that nobody else in this database locks

# What is said of a transaction that was undone for the sake of another: the same may go well the next time.
_AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

# What says that the database is down, full, starting or read-only, rather than that a statement is wrong.
_UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection says between its server's last word and its end
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.PostgresSystemError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
    asyncpg.exceptions.LockNotAvailableError,
)


class Statement(NamedTuple):
    text: str
    names: tuple[str, ...]

    def values(self, params: Params) -> list[object]:
        return [params[name] for name in self.names]


@lru_cache(maxsize=1024)
def translated(sql: str) -> Statement:
    """The statement with ``$1``, ``$2``, ... for names."""
    return Statement(*numbered(sql, "$"))


@lru_cache(maxsize=1024)
def gathered_find(sql: str, types_: tuple[str, ...]) -> str:
    """A point read for many keys at once: each row comes back behind the position of its key."""
    statement = translated(sql)
    inner = re.sub(r"\$(\d+)", r"asked.p\1", statement.text)
    columns = ", ".join(f"p{position}" for position in range(1, len(types_) + 1))
    arrays = ", ".join(f"${position}::{name}[]" for position, name in enumerate(types_, 1))
    return (
        f"SELECT asked.position, found.* FROM unnest({arrays}) WITH ORDINALITY AS asked({columns}, position)"
        f" CROSS JOIN LATERAL ({inner}) AS found"
    )


@lru_cache(maxsize=1024)
def gathered_insert(sql: str, types_: tuple[str, ...]) -> str:
    """``INSERT ... VALUES (...)`` for many rows at once."""
    statement = translated(sql)
    given = re.search(r"VALUES\s*\(([^)]*)\)", statement.text)
    if given is None:
        raise ValueError(f"not an insert of one row: {sql}")
    columns = ", ".join(f"p{position}" for position in range(1, len(types_) + 1))
    arrays = ", ".join(f"${position}::{name}[]" for position, name in enumerate(types_, 1))
    chosen = re.sub(r"\$(\d+)", r"given.p\1", given[1])
    rows = f"SELECT {chosen} FROM unnest({arrays}) AS given({columns})"
    return statement.text[: given.start()] + rows + statement.text[given.end() :]


class CopyTarget(NamedTuple):
    table: str
    columns: tuple[str, ...]


@lru_cache(maxsize=1024)
def copy_target(sql: str) -> CopyTarget | None:
    """Where the values of an insert of one row go, if they go there as they are."""
    plain = re.match(r"\s*INSERT INTO (\w+) \(([^)]*)\) VALUES \(([^)]*)\)", sql)
    if plain is None:
        return None
    table, columns, values = plain.groups()
    if [value.strip() for value in values.split(",")] != [f":{name}" for name in translated(sql).names]:
        return None
    return CopyTarget(table, tuple(column.strip() for column in columns.split(",")))


@lru_cache(maxsize=1024)
def returned_names(sql: str) -> tuple[str, ...]:
    _, _, names = sql.partition("RETURNING")
    return tuple(name.strip() for name in names.split(","))


class Ask(NamedTuple):
    """What a unit of work wants next."""

    verb: str  # find, insert, rows or run, or many of the first two
    sql: str
    params: Any  # or a sequence of them


class Witness(NamedTuple):
    """A row that a transaction inserted."""

    sql: str
    params: Params


@types.coroutine
def _ask(ask: Ask) -> Generator[Ask, Any, Any]:
    return (yield ask)


class PostgresTransaction:
    """A unit's seat in a shared transaction: every question goes up to the driver."""

    async def find(self, sql: str, params: Params) -> Row | None:
        return await _ask(Ask("find", sql, params))

    async def insert(self, sql: str, params: Params) -> bool:
        return await _ask(Ask("insert", sql, params))

    async def find_many(self, sql: str, many: Sequence[Params]) -> Sequence[Row | None]:
        return await _ask(Ask("find many", sql, many)) if many else []

    async def insert_many(self, sql: str, many: Sequence[Row]) -> Sequence[bool]:
        return await _ask(Ask("insert many", sql, many)) if many else []

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        return await _ask(Ask("rows", sql, params))

    async def run(self, sql: str, params: Params) -> int:
        return await _ask(Ask("run", sql, params))


_SEAT = PostgresTransaction()


@dataclass(eq=False)
class _Rider:
    """One unit of work on its way through a transaction."""

    unit: Unit[Any]
    outcome: asyncio.Future[Any]
    coroutine: Any = None
    asks: Ask | None = None
    result: Any = None
    refusal: BaseException | None = None
    wrote: bool = field(default=False)
    witness: Witness | None = None  # an insert that was done

    def board(self) -> None:
        self.coroutine, self.result, self.refusal, self.wrote = self.unit(_SEAT), None, None, False
        self.witness = None
        self.resume(None)

    def resume(self, answer: object) -> None:
        """Run the unit to its next question, its result or its refusal."""
        if self.asks is not None:
            self._note_writing(self.asks, answer)
        self.asks = None
        try:
            asked = self.coroutine.send(answer)
        except StopIteration as finished:
            self.result = finished.value
        except Exception as refusal:
            self.refusal = refusal
        else:
            if isinstance(asked, Ask):
                self.asks = asked
            else:
                self.coroutine.close()
                self.refusal = RuntimeError("a unit of work must await nothing but its transaction")

    def _note_writing(self, asked: Ask, answer: Any) -> None:
        match asked:
            case Ask("run", _, _):
                self.wrote = self.wrote or answer > 0
            case Ask("rows", sql, _) if "RETURNING" in sql:
                self.wrote = self.wrote or bool(answer)
            case Ask("insert", sql, params) if answer:
                self.wrote, self.witness = True, Witness(sql, params)
            case Ask("insert many", sql, many) if any(answer):
                row = many[answer.index(True)]
                self.wrote, self.witness = True, Witness(sql, dict(zip(translated(sql).names, row, strict=True)))

    def leave(self) -> None:
        if self.asks is not None:
            self.asks = None
            self.coroutine.close()


class _InDoubt(Exception):
    """The connection broke during COMMIT of this transaction."""

    def __init__(self, transaction_id: str | None) -> None:
        super().__init__(transaction_id)
        self.transaction_id = transaction_id


class _Apart(Exception):
    """This company cannot commit together; each must travel alone."""


class _Connections:
    """Lends the pool's connections, first come first served, without giving them back in between.

    The pool runs two tasks for every loan, one to wait with a timeout and one to shield the return, which
    together cost more than a short statement does.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._asked_of_pool = 0

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Connection]:
        """Raises one of ``_UNAVAILABLE`` when there is none to be had in time."""
        connection = await self._take()
        try:
            yield connection
        except asyncpg.PostgresError:
            await self._release_lease(connection)
            raise
        except BaseException:
            await self._release(connection)  # it may be in the middle of something
            raise
        else:
            await self._release_lease(connection)

    async def close(self) -> None:
        while self._idle:
            await self._pool.release(self._idle.pop())
        await self._pool.close()

    async def _take(self) -> Connection:
        while True:
            if self._idle:
                connection = self._idle.pop()
                if _is_open(connection):
                    return connection
                await self._release(connection)
            elif self._pool.get_idle_size() or self._pool.get_size() + self._asked_of_pool < self._pool.get_max_size():
                return await self._ask_pool()
            elif (connection := await self._wait()) is not None:
                return connection

    async def _ask_pool(self) -> Connection:
        self._asked_of_pool += 1
        try:
            return await self._pool.acquire(timeout=CONNECT_TIMEOUT_SECONDS)
        finally:
            self._asked_of_pool -= 1

    async def _wait(self) -> Connection | None:
        """The next connection that is put back, or ``None`` when it may be time to ask the pool again."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                return await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # it came, and too late
                await self._release_lease(turn.result())
            raise

    async def _release_lease(self, connection: Connection | None) -> None:
        if connection is not None and not _is_open(connection):
            await self._release(connection)
        elif not self._hand_over(connection) and connection is not None:
            self._idle.append(connection)

    async def _release(self, connection: Connection) -> None:
        """To the pool, which makes room for another."""
        try:
            await self._pool.release(connection)
        finally:
            self._hand_over(None)

    def _hand_over(self, connection: Connection | None) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False


def _is_open(connection: Connection) -> bool:
    """A connection that broke was taken back by the pool and answers no questions."""
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False


@dataclass(eq=False)
class _Journey:
    """A transaction under way, and its id once an insert has told it."""

    connection: Connection
    transaction_id: str | None = None


class PostgresDatabase:
    engine = "postgresql"

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, tells_outcome: bool) -> None:
        self._loop = asyncio.get_running_loop()  # kept, because to ask for it is a call to the system
        self._connections = _Connections(pool)
        self._tells_outcome = tells_outcome
        self._types: dict[str, tuple[str, ...]] = {}
        self.load = Load()
        self._finds: Batcher[tuple[str, Params, asyncio.Future[Row | None]]]
        self._finds = Batcher(self._carry_finds, READ_LANES, MOST_PER_LOAD)
        self._in_doubt: set[asyncio.Task[None]] = set()
        self._writes: Batcher[_Rider] = Batcher(self._carry_units, WRITE_LANES, MOST_PER_LOAD)

    @classmethod
    async def open(cls, url: str, *, connections: int) -> PostgresDatabase:
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=max(connections, READ_LANES + WRITE_LANES + 1),
                timeout=CONNECT_TIMEOUT_SECONDS,
                command_timeout=COMMAND_TIMEOUT_SECONDS,
                max_queries=2**31,
                init=_prepare_connection,
                reset=_keep_as_is,
            )
            async with pool.acquire() as connection:
                version = connection.get_server_version()
                product = await connection.fetchval("SELECT version()")
        except ValueError as error:  # its text may quote a part of the password
            raise ConfigurationError(
                "cannot understand the PostgreSQL URL; special characters in it must be percent-encoded"
            ) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise ConfigurationError(f"cannot use the PostgreSQL database: {error or type(error).__name__}") from error
        if version.major < 14:
            await pool.close()
            raise ConfigurationError(f"PostgreSQL {version.major} is too old; 14 or newer is needed")
        return cls(pool, tells_outcome=str(product).startswith("PostgreSQL"))

    # Reads

    async def find(self, sql: str, params: Params) -> Row | None:
        outcome: asyncio.Future[Row | None] = self._loop.create_future()
        self._finds.add((sql, params, outcome))
        return await outcome

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        statement = translated(sql)
        try:
            async with self._connections.lend() as connection:
                return await connection.fetch(statement.text, *statement.values(params))
        except _UNAVAILABLE as error:
            raise Unavailable from error

    async def _carry_finds(self, asked: list[tuple[str, Params, asyncio.Future[Row | None]]]) -> None:
        groups: dict[str, list[tuple[Params, asyncio.Future[Row | None]]]] = {}
        for sql, params, outcome in asked:
            groups.setdefault(sql, []).append((params, outcome))
        try:
            async with self._connections.lend() as connection:
                for sql, group in groups.items():
                    self.load.finds += len(group)
                    self.load.find_statements += 1
                    found = await self._find_many(connection, sql, [params for params, _ in group])
                    for (_, outcome), row in zip(group, found, strict=True):
                        if not outcome.done():
                            outcome.set_result(row)
        except BaseException as error:
            for _, _, outcome in asked:
                if not outcome.done():
                    outcome.set_exception(_said(error))
            if not isinstance(error, Exception):
                raise

    async def _find_many(self, connection: Connection, sql: str, asked: Sequence[Params]) -> list[Row | None]:
        statement = translated(sql)
        if len(asked) == 1:
            return [await connection.fetchrow(statement.text, *statement.values(asked[0]))]
        types_ = await self._types_of(connection, statement)
        columns = [[params[name] for params in asked] for name in statement.names]
        found: list[Row | None] = [None] * len(asked)
        for record in await connection.fetch(gathered_find(sql, types_), *columns):
            found[record[0] - 1] = tuple(record)[1:]
        return found

    # Writes

    async def write(self, unit: Unit[T]) -> T:
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._writes.add(_Rider(unit, outcome))
        return await outcome

    async def _carry_units(self, riders: list[_Rider]) -> None:
        try:
            try:
                await self._commit_together(riders)
            except (_Apart, *_AGAIN):
                for rider in riders:
                    await self._commit_alone(rider)
        except BaseException as error:
            for rider in riders:
                if not rider.outcome.done():
                    rider.outcome.set_exception(_said(error))
            if not isinstance(error, Exception):
                raise

    async def _commit_alone(self, rider: _Rider) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._commit_together([rider])
                return
            except Exception as error:
                if isinstance(error, _AGAIN) and attempt < ATTEMPTS:
                    continue
                if not rider.outcome.done():
                    rider.outcome.set_exception(_said(error))
                return

    async def _commit_together(self, riders: list[_Rider]) -> None:
        """One transaction for all. Raises ``_Apart`` when they must go alone; the outcomes are set after COMMIT."""
        try:
            async with self._connections.lend() as connection:
                await connection.execute("BEGIN")
                journey = _Journey(connection)
                try:
                    await self._advance_in_step(journey, riders)
                    transaction_id = await self._transaction_id(journey, riders)
                except BaseException:
                    for rider in riders:
                        rider.leave()
                    await self._roll_back(connection)
                    raise
                await self._commit(connection, transaction_id)
        except _InDoubt as doubt:
            learning = asyncio.get_running_loop().create_task(self._learn(riders, doubt))
            self._in_doubt.add(learning)
            learning.add_done_callback(self._in_doubt.discard)
            return
        self._tell(riders)

    async def _learn(self, riders: list[_Rider], doubt: _InDoubt) -> None:
        """Tell the riders what became of their COMMIT, while the lane that they came by carries others."""
        try:
            await self._settle(riders, doubt)
        except BaseException as error:
            for rider in riders:
                if not rider.outcome.done():
                    rider.outcome.set_exception(_said(error))
            if not isinstance(error, Exception):
                raise
        else:
            self._tell(riders)

    def _tell(self, riders: list[_Rider]) -> None:
        self.load.commits += 1
        self.load.units += len(riders)
        for rider in riders:
            if rider.outcome.done():
                continue
            if rider.refusal is not None:
                rider.outcome.set_exception(rider.refusal)
            else:
                rider.outcome.set_result(rider.result)

    async def _advance_in_step(self, journey: _Journey, riders: list[_Rider]) -> None:
        for rider in riders:
            rider.board()
        while asking := [rider for rider in riders if rider.asks is not None]:
            groups: dict[tuple[str, str], list[_Rider]] = {}
            for rider in asking:
                assert rider.asks is not None
                groups.setdefault(rider.asks[:2], []).append(rider)
            for (verb, sql), group in groups.items():
                try:
                    answers = await self._answer(journey, verb, sql, [rider.asks.params for rider in group if rider.asks])
                except asyncpg.PostgresError as error:
                    if len(riders) == 1 or isinstance(error, _UNAVAILABLE):
                        raise
                    raise _Apart from error
                for rider, answer in zip(group, answers, strict=True):
                    rider.resume(answer)
        for rider in riders:
            if rider.refusal is not None and rider.wrote:
                raise rider.refusal if len(riders) == 1 else _Apart

    async def _answer(self, journey: _Journey, verb: str, sql: str, asked: list[Any]) -> Sequence[object]:
        connection = journey.connection
        if verb == "find":
            return await self._find_many(connection, sql, asked)
        if verb == "insert":
            statement = translated(sql)
            return await self._insert_many(journey, sql, [statement.values(params) for params in asked])
        if verb == "find many":
            return [await self._find_many(connection, sql, many) for many in asked]
        if verb == "insert many":
            return [await self._copy_or_insert(journey, sql, many) for many in asked]
        statement = translated(sql)
        answers: list[object] = []
        for params in asked:
            values = statement.values(params)
            if verb == "rows":
                answers.append(await connection.fetch(statement.text, *values))
            else:
                status = await connection.execute(statement.text, *values)
                answers.append(int(status.rpartition(" ")[2]))
        return answers

    async def _copy_or_insert(self, journey: _Journey, sql: str, rows: Sequence[Row]) -> list[bool]:
        """Many rows go in sooner by COPY, which knows no ON CONFLICT: if it fails, they are inserted."""
        if len(rows) >= WORTH_A_COPY and (target := copy_target(sql)) is not None:
            await journey.connection.execute("SAVEPOINT before_copy")
            try:
                await journey.connection.copy_records_to_table(target.table, columns=target.columns, records=rows)
            except asyncpg.PostgresError as error:
                if isinstance(error, _UNAVAILABLE):
                    raise
                await journey.connection.execute("ROLLBACK TO SAVEPOINT before_copy")
            else:
                await journey.connection.execute("RELEASE SAVEPOINT before_copy")
                return [True] * len(rows)
        return await self._insert_many(journey, sql, rows)

    async def _insert_many(self, journey: _Journey, sql: str, asked: Sequence[Row]) -> list[bool]:
        statement = translated(sql)
        values: Sequence[object]
        if len(asked) == 1:
            text, values = statement.text, asked[0]
        else:
            text = gathered_insert(sql, await self._types_of(journey.connection, statement))
            values = list(zip(*asked, strict=True))
        if not self._tells_outcome:
            rows = await journey.connection.fetch(text, *values)
        elif rows := await journey.connection.fetch(text + _AND_ITS_ID, *values):
            journey.transaction_id = rows[0][-1]
        names = returned_names(sql)
        inserted = {tuple(row)[: len(names)] for row in rows}
        places = [statement.names.index(name) for name in names]
        answers = []
        for row in asked:
            key = tuple(row[place] for place in places)
            answers.append(key in inserted)
            inserted.discard(key)  # of two that are alike in every way, one was inserted
        return answers

    async def _types_of(self, connection: Connection, statement: Statement) -> tuple[str, ...]:
        """The types of a statement's parameters, as the server inferred them. Asked once per statement."""
        known = self._types.get(statement.text)
        if known is None:
            prepared = await connection.prepare(statement.text)
            known = self._types[statement.text] = tuple(parameter.name for parameter in prepared.get_parameters())
        return known

    # The end of a transaction

    async def _transaction_id(self, journey: _Journey, riders: Sequence[_Rider]) -> str | None:
        """Of a transaction that wrote something, where its outcome can be asked later."""
        if not self._tells_outcome or not any(rider.wrote for rider in riders):
            return None
        return journey.transaction_id or await journey.connection.fetchval("SELECT pg_current_xact_id()::text")

    async def _commit(self, connection: Connection, transaction_id: str | None) -> None:
        """COMMIT; if the connection breaks meanwhile, learn what became of it.

        A transaction without an id wrote nothing, so there is nothing to learn.
        """
        try:
            await connection.execute("COMMIT")
        except _UNAVAILABLE as error:
            _throw_away(connection)
            if transaction_id is not None or not self._tells_outcome:
                raise _InDoubt(transaction_id) from error

    async def _settle(self, riders: list[_Rider], doubt: _InDoubt) -> None:
        """Return if the transaction was committed; raise ``Unavailable`` if not, ``OutcomeUnknown`` if nobody says."""
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        witness = next((rider.witness for rider in riders if rider.witness is not None), None)
        while doubt.transaction_id is not None and asyncio.get_running_loop().time() < deadline:
            try:
                async with self._connections.lend() as connection:
                    status = await connection.fetchval("SELECT pg_xact_status($1::text::xid8)", doubt.transaction_id)
                    if status == "committed" and witness is not None and not await _is_there(connection, witness):
                        status = "aborted"
            except asyncpg.InvalidParameterValueError:
                status = "aborted"  # "in the future": a crash forgot the transaction, number and all
            except (asyncpg.PostgresError, *_UNAVAILABLE):
                status = "in progress"
            if status == "committed":
                return
            if status == "aborted":
                raise Unavailable from doubt
            await asyncio.sleep(0.1)
        raise OutcomeUnknown from doubt

    async def _roll_back(self, connection: Connection) -> None:
        try:
            await connection.execute("ROLLBACK")
        except (asyncpg.PostgresError, *_UNAVAILABLE):
            _throw_away(connection)

    # The rest

    async def migrate(self, migrations: Sequence[Migration]) -> list[Migration]:
        applied = []
        async with self._connections.lend() as connection:
            await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK, timeout=600)
            try:
                await connection.execute(
                    "CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL)"
                )
                known = {row[0] for row in await connection.fetch("SELECT version FROM schema_migrations")}
                for migration in migrations:
                    if migration.version not in known:
                        async with connection.transaction():
                            await connection.execute(migration.sql, timeout=None)
                            await connection.execute(
                                "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)",
                                migration.version,
                                migration.name,
                            )
                        applied.append(migration)
            finally:
                await connection.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)
        return applied

    async def ping(self) -> None:
        await self.rows("SELECT version FROM schema_migrations LIMIT 1", {})

    async def close(self) -> None:
        await self._writes.drain()
        if self._in_doubt:
            await asyncio.wait(self._in_doubt)
        await self._finds.drain()
        await self._connections.close()


def _throw_away(connection: Connection) -> None:
    """A connection that broke has gone back to the pool by itself and refuses even this."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _is_there(connection: Connection, witness: Witness) -> bool:
    """Whether the row that a transaction inserted is there.

    A crash may forget a transaction whose WAL was not flushed, and its number is then given to another one:
    that the number is committed does not say that the transaction is.
    """
    table = re.search(r"INSERT INTO (\w+)", witness.sql)
    assert table is not None
    names = returned_names(witness.sql)
    matching = " AND ".join(f"{name} = :{name}" for name in names)
    statement = translated(f"SELECT 1 FROM {table[1]} WHERE {matching}")
    return await connection.fetchval(statement.text, *statement.values(witness.params)) is not None


async def _prepare_connection(connection: Connection) -> None:
    """A lock that somebody outside holds delays the units that want it, not everybody behind them for ever."""
    await connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MILLISECONDS}")


async def _keep_as_is(connection: Connection) -> None:
    """Nothing here changes a session, and every transaction is ended or its connection thrown away."""


def _said(error: BaseException) -> BaseException:
    if isinstance(error, (*_UNAVAILABLE, *_AGAIN)) and not isinstance(error, EcomchargeError):
        unavailable = Unavailable()
        unavailable.__cause__ = error
        return unavailable
    return error
