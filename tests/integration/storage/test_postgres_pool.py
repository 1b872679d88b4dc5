"""The pool of connections to PostgreSQL: how many it opens, and which it closes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import asyncpg
import pytest

from ecomcharge.storage.postgres import pool
from ecomcharge.storage.postgres.connecting import Connector
from ecomcharge.storage.postgres.database import PostgresDatabase
from ecomcharge.storage.postgres.pool import ConnectionPool
from ecomcharge.storage.postgres.url import read_url
from support.forwarder import Forwarder
from support.postgres import PostgresServer

COUNT = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def small_postgres() -> Iterator[PostgresServer]:
    """A server with few connections."""
    with PostgresServer("max_connections=8", "superuser_reserved_connections=0", "max_wal_senders=0") as server:
        yield server


def with_pool(url: str, size: int, work: Callable[[ConnectionPool], Awaitable[None]]) -> None:
    async def run() -> None:
        connections = ConnectionPool(Connector(read_url(url)), size)
        try:
            await work(connections)
        finally:
            await connections.close()

    asyncio.run(run())


async def sleep_in_database(connections: ConnectionPool, seconds: float = 0.05) -> None:
    async with connections.lend() as connection:
        await connection.execute(f"SELECT pg_sleep({seconds})")


@pytest.mark.parametrize("size", [1, 3])
def test_no_more_connections_than_configured(postgres: PostgresServer, size: int) -> None:
    url = postgres.create_database(f"limited_{size}")

    async def work() -> None:
        database = await PostgresDatabase.open(url, connections=size)
        reads = [database.rows("SELECT pg_sleep(0.1)", {}) for _ in range(10)]
        writes = [database.write(lambda tx: tx.rows("SELECT pg_sleep(0.1)", {})) for _ in range(10)]
        waiting = asyncio.gather(*reads, *writes)
        observer = await asyncpg.connect(url)
        counted = []
        while not waiting.done():
            counted.append(await observer.fetchval(COUNT))
            await asyncio.sleep(0.02)
        await waiting
        await observer.close()
        await database.close()
        assert max(counted) == size

    asyncio.run(work())


def test_where_postgresql_refuses_more_connections_those_that_are_open_are_waited_for(small_postgres: PostgresServer) -> None:
    url = small_postgres.create_database("full")

    async def work(connections: ConnectionPool) -> None:
        others = [await asyncpg.connect(url) for _ in range(6)]
        try:
            async with asyncio.timeout(10):
                await asyncio.gather(*(sleep_in_database(connections) for _ in range(40)))
        finally:
            await asyncio.gather(*(other.close() for other in others))

    with_pool(url, 20, work)


def test_the_first_connection_waits_until_postgresql_accepts_one(small_postgres: PostgresServer) -> None:
    url = small_postgres.create_database("full_at_first")

    async def work(connections: ConnectionPool) -> None:
        others = [await asyncpg.connect(url) for _ in range(8)]
        asyncio.get_running_loop().call_later(1, others[0].terminate)
        async with asyncio.timeout(5):
            await sleep_in_database(connections)
        await asyncio.gather(*(other.close() for other in others[1:]))

    with_pool(url, 4, work)


def test_a_canceled_wait_passes_the_connection_on(postgres: PostgresServer) -> None:
    async def work(connections: ConnectionPool) -> None:
        async with connections.lend() as connection:
            waiting = [asyncio.create_task(sleep_in_database(connections)) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await connection.execute("SELECT 1")
        waiting[0].cancel()  # it has been given the connection, and has not run since
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError, type(None), type(None)]

    with_pool(postgres.create_database("canceled"), 1, work)


@pytest.mark.parametrize("sqlstate", ["25006", "57P01", "57P02", "57P03"])
def test_after_such_an_error_all_older_connections_are_closed(
    postgres: PostgresServer, sqlstate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "READ_ONLY_SECONDS", 0.1)

    async def work(connections: ConnectionPool) -> None:
        opened = set()

        async def use(sql: str) -> None:
            async with connections.lend() as connection:
                opened.add(connection)
                await connection.execute(sql)

        await asyncio.gather(*(use("SELECT pg_sleep(0.2)") for _ in range(3)))
        with pytest.raises(asyncpg.PostgresError):
            await use(f"DO $$ BEGIN RAISE 'moved' USING ERRCODE = '{sqlstate}'; END $$")
        assert len(opened) == 3
        assert all(connection.is_closed() for connection in opened)
        await use("SELECT 1")
        assert len(opened) == 4

    with_pool(postgres.create_database(f"moved_{sqlstate.lower()}"), 3, work)


def test_a_connection_that_became_read_only_is_not_used_again(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a process that only reads would go on reading from a former primary."""
    monkeypatch.setattr(pool, "READ_ONLY_SECONDS", 0.1)

    async def work(connections: ConnectionPool) -> None:
        async with connections.lend() as first:
            await first.execute("SET default_transaction_read_only = on")
        await asyncio.sleep(0.2)
        async with connections.lend() as second:
            assert second is not first
        assert first.is_closed()

    with_pool(postgres.create_database("turned"), 2, work)


def test_connections_that_rested_are_checked_together(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "REST_SECONDS", 0.2)
    monkeypatch.setattr(pool, "READ_ONLY_SECONDS", 0.1)
    monkeypatch.setattr(pool, "CHECK_TIMEOUT_SECONDS", 0.3)
    postgres.create_database("rested")
    with Forwarder(postgres.port) as forwarder:

        async def work(connections: ConnectionPool) -> None:
            await asyncio.gather(*(sleep_in_database(connections) for _ in range(4)))
            forwarder.silence()
            await asyncio.sleep(0.5)
            async with asyncio.timeout(1):  # one check fails, not four
                await sleep_in_database(connections)
            assert forwarder.accepted == 5 + 1  # asyncpg asks the server to cancel what it does not answer

        with_pool(f"postgresql://postgres@127.0.0.1:{forwarder.port}/rested", 4, work)


@contextlib.asynccontextmanager
async def frozen_server() -> AsyncIterator[int]:
    """A server that accepts connections and does not respond. Yields its port."""
    accepted: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: accepted.append(writer), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for writer in accepted:
        writer.close()
    await asyncio.sleep(0)  # the transports close their sockets


def test_the_next_host_is_tried_after_a_short_time_and_the_last_one_that_worked_first(postgres: PostgresServer) -> None:
    postgres.create_database("hosts")

    async def work() -> None:
        async with frozen_server() as port:
            settings = read_url(f"postgresql://postgres@127.0.0.1:{port},127.0.0.1:{postgres.port}/hosts?connect_timeout=1")
            connector = Connector(settings)
            for limit in (2, 0.9):
                async with asyncio.timeout(limit):
                    connection = await connector.connect()
                    await connection.close()

    asyncio.run(work())


def test_a_host_that_does_not_respond_is_tried_after_the_others(postgres: PostgresServer) -> None:
    """During a failover no host accepts writes. The new primary must not wait for the frozen one in each attempt."""
    postgres.create_database("failover")
    new_primary = Forwarder(postgres.port)

    async def work() -> None:
        async with frozen_server() as port:
            settings = read_url(f"postgresql://postgres@127.0.0.1:{port},127.0.0.1:{new_primary.port}/failover?connect_timeout=1")
            connector = Connector(settings)
            with pytest.raises(ConnectionRefusedError):
                await connector.connect()
            with new_primary:
                async with asyncio.timeout(0.9):
                    connection = await connector.connect()
                    await connection.close()

    asyncio.run(work())
