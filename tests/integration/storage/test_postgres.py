"""The PostgreSQL engine: units that fail in a batch, concurrent batches, migrations, the connection pool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import pytest

from ecomcharge.base.errors import Unavailable
from ecomcharge.storage.database import Database, Migration, Transaction, Unit
from ecomcharge.storage.migrate import migrations_for
from ecomcharge.storage.opening import open_database
from ecomcharge.storage.postgres import connecting, pool
from ecomcharge.storage.postgres import database as postgres_database
from ecomcharge.storage.postgres.batching import Batcher, Pending
from ecomcharge.storage.postgres.connecting import OF_BACKGROUND, OF_REQUESTS, Connector, TimeLimits
from ecomcharge.storage.postgres.database import MAX_BATCH, PostgresDatabase
from ecomcharge.storage.postgres.pool import ConnectionPool
from ecomcharge.storage.postgres.url import read_url
from ecomcharge.storage.statements import Insert
from support.postgres import PostgresServer
from support.shops import with_database

TABLE = Migration(9_001, "words", "CREATE TABLE words (id BIGINT PRIMARY KEY, word TEXT NOT NULL UNIQUE)")
INSERT = Insert("words", ("id", "word"), key=("id",))
LONE_SURROGATE = "\ud800"  # cannot be encoded in UTF-8


def insert(number: int) -> Unit[bool]:
    return lambda tx: tx.insert(INSERT, (number, str(number)))


async def raises_cancelled_error(tx: Transaction) -> None:
    raise asyncio.CancelledError


async def writes_and_raises_cancelled_error(tx: Transaction) -> None:
    await insert(1_000)(tx)
    raise asyncio.CancelledError


async def copies_text_that_cannot_be_sent(tx: Transaction) -> None:
    await tx.insert_many(INSERT, [*((number, f"row {number}") for number in range(1_000, 1_200)), (1_200, LONE_SURROGATE)])


def with_table(postgres: PostgresServer, name: str, work: Callable[[Database], Awaitable[None]]) -> None:
    async def with_words(database: Database) -> None:
        await database.migrate([*migrations_for("postgresql"), TABLE])
        await work(database)

    with_database(postgres.create_database(name), with_words)


@pytest.mark.parametrize(
    ("unit", "error"),
    [
        (raises_cancelled_error, RuntimeError),
        (writes_and_raises_cancelled_error, RuntimeError),
        (copies_text_that_cannot_be_sent, UnicodeEncodeError),
    ],
)
def test_a_unit_with_an_unusual_failure_fails_alone(postgres: PostgresServer, unit: Unit[None], error: type[Exception]) -> None:
    async def work(database: Database) -> None:
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(
                database.write(unit), *(database.write(insert(number)) for number in range(50)), return_exceptions=True
            )
        assert type(outcomes[0]) is error
        assert outcomes[1:] == [True] * 50
        assert [row[0] for row in await database.rows("SELECT id FROM words ORDER BY id", {})] == list(range(50))

    with_table(postgres, f"unusual_{unit.__name__}", work)


def test_items_of_a_batch_that_is_cancelled_fail_and_later_ones_are_flushed() -> None:
    async def work() -> None:
        stops = True

        async def flush(batch: list[Pending]) -> None:
            if stops:
                raise asyncio.CancelledError
            for item in batch:
                item.resolve(None)

        batcher: Batcher[Pending] = Batcher(flush, max_in_flight=1, max_batch=2, stalled_seconds=60)
        async with asyncio.timeout(5):
            first = [asyncio.create_task(batcher.submit(Pending())) for _ in range(4)]
            await asyncio.wait(first[:2])
            stops = False
            await batcher.submit(Pending())
            await asyncio.gather(*first, return_exceptions=True)
        assert [task.cancelled() for task in first] == [True, True, False, False]

    asyncio.run(work())


def test_a_second_batch_starts_although_items_wait_behind_the_first() -> None:
    async def work() -> None:
        first_may_end = asyncio.Event()
        batches: list[int] = []

        async def flush(batch: list[Pending]) -> None:
            batches.append(len(batch))
            if len(batches) == 1:
                await first_may_end.wait()
            for item in batch:
                item.resolve(None)

        batcher: Batcher[Pending] = Batcher(flush, max_in_flight=2, max_batch=3, stalled_seconds=60)
        waiting = [asyncio.create_task(batcher.submit(Pending())) for _ in range(4)]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(2):
            await batcher.submit(Pending())
        assert batches == [3, 2]
        first_may_end.set()
        await asyncio.gather(*waiting)

    asyncio.run(work())


def test_processes_wait_for_a_migration_longer_than_the_lock_and_statement_timeouts(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "LONGEST_LOCK_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(postgres_database, "OF_BACKGROUND", OF_BACKGROUND._replace(statement_seconds=0.5))
    url = postgres.create_database("long_migration")
    long = Migration(9_002, "long", "SELECT pg_sleep(1)")

    async def work() -> None:
        databases = [await open_database(url) for _ in range(3)]
        applied = await asyncio.gather(*(database.migrate([TABLE, long]) for database in databases))
        assert sum(map(len, applied)) == 2
        assert await databases[0].rows("SELECT current_setting('lock_timeout')", {}) == [("200ms",)]
        await asyncio.gather(*(database.close() for database in databases))

    asyncio.run(work())


def test_a_migration_that_cannot_get_a_lock_raises_unavailable(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "LONGEST_LOCK_TIMEOUT_SECONDS", 0.2)

    async def work(database: Database) -> None:
        async def holds_lock(tx: Transaction) -> None:
            await insert(1)(tx)
            with pytest.raises(Unavailable):
                executor.submit(asyncio.run, migrate_again()).result()

        async def migrate_again() -> None:
            other = await open_database(url)
            try:
                await other.migrate([TABLE, Migration(9_002, "words", "ALTER TABLE words ADD COLUMN other TEXT")])
            finally:
                await other.close()

        with ThreadPoolExecutor() as executor:
            await database.write(holds_lock)

    url = postgres.create_database("locked_migration")

    async def with_words(database: Database) -> None:
        await database.migrate([TABLE])
        await work(database)

    with_database(url, with_words)


def test_a_request_waits_for_a_long_read_as_long_as_for_another_list(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long list is read in the background, and a frozen server must not delay its response for longer."""
    monkeypatch.setattr(postgres_database, "OF_REQUESTS", OF_REQUESTS._replace(list_seconds=0.2))
    url = postgres.create_database("long_read")

    async def work() -> None:
        database = await postgres_database.PostgresDatabase.open(url, connections=1, for_requests=True)
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await database.rows_in_background("SELECT pg_sleep(20)", {})
        await database.close()

    asyncio.run(work())


def test_an_unanswered_statement_fails_after_one_timeout(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_database, "OF_BACKGROUND", OF_BACKGROUND._replace(statement_seconds=1.0))

    async def work(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            await insert(1)(tx)
            [[server_process]] = await tx.rows("SELECT pg_backend_pid()", {})
            os.kill(server_process, signal.SIGSTOP)
            stopped.append(server_process)
            await insert(2)(tx)

        stopped: list[int] = []
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await database.write(unit)
        assert time.monotonic() - started < 1.9
        os.kill(stopped[0], signal.SIGCONT)
        assert await database.write(insert(1))

    with_table(postgres, "stopped", work)


def test_a_pool_closes_its_connections_concurrently(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not respond delays the end of a process by one timeout, not by eight."""
    monkeypatch.setattr(pool, "CLOSE_TIMEOUT_SECONDS", 0.5)

    class NoAnswer:
        def is_closed(self) -> bool:
            return False

        async def close(self, *, timeout: float) -> None:
            await asyncio.sleep(timeout)
            raise TimeoutError

    async def connect(*_: object) -> NoAnswer:
        return NoAnswer()

    monkeypatch.setattr(Connector, "connect", connect)

    async def work() -> float:
        connections = ConnectionPool(Connector(read_url("postgresql:///")), 8)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(connections.lend())
        started = time.monotonic()
        await connections.close()
        return time.monotonic() - started

    assert asyncio.run(work()) < 1.5


def test_a_connection_whose_setup_fails_is_closed(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres.create_database("unprepared")
    opened = []

    async def connect(*arguments: Any, **options: Any) -> Any:
        opened.append(await real_connect(*arguments, **options))
        return opened[-1]

    real_connect = asyncpg.connect
    monkeypatch.setattr(asyncpg, "connect", connect)

    async def work() -> None:
        connector = Connector(read_url(url))
        connector._lock_timeout_milliseconds = -1
        with pytest.raises(asyncpg.PostgresError):
            async with ConnectionPool(connector, 1).lend():
                pass
        assert [connection.is_closed() for connection in opened] == [True]
        await asyncio.sleep(0)  # the transport closes its socket

    asyncio.run(work())


def test_a_server_that_does_not_answer_delays_requests_by_one_batch_only(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        postgres_database, "OF_REQUESTS", TimeLimits(statement_seconds=1.0, list_seconds=1.0, recovery_seconds=1.0)
    )
    url = postgres.create_database("without_answers")

    async def refused_after(database: PostgresDatabase) -> float:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await database.write(lambda tx: tx.rows("SELECT 1", {}))
        return time.monotonic() - started

    async def work() -> None:
        database = await PostgresDatabase.open(url, connections=5, for_requests=True)
        await asyncio.gather(*(database.write(lambda tx: tx.rows("SELECT 1", {})) for _ in range(2)))
        postgres.freeze()
        try:
            seconds = await asyncio.gather(*(refused_after(database) for _ in range(4 * MAX_BATCH)))
        finally:
            postgres.thaw()
        await database.close()
        assert max(seconds) < 3

    asyncio.run(work())
