"""Reads in the background: other requests are served meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

from ecomcharge.base.errors import Unavailable
from ecomcharge.customers import store
from ecomcharge.storage.database import Database
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_database
from ecomcharge.storage.sqlite.background import THREADS
from support.customers import add, customer, with_shop
from support.shops import with_database

COUNT = "SELECT COUNT(*) FROM customers WHERE shop_id = :shop_id"
ENDLESS = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number) SELECT COUNT(*) FROM number WHERE n > :n"


async def count(database: Database) -> int:
    [[found]] = await database.rows_in_background(COUNT, {"shop_id": 1})
    return int(found)


def test_a_read_in_the_background_sees_every_acknowledged_write(database_url: str) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        for number in range(20):
            await add(database, number)
            assert await count(database) == number + 1

    with_database(database_url, work)


def test_more_reads_than_threads_wait_for_each_other(database_url: str) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        assert await asyncio.gather(*(count(database) for _ in range(10 * THREADS))) == [0] * 10 * THREADS

    with_database(database_url, work)


def test_an_invalid_statement_in_the_background_does_not_affect_the_next_one(database_url: str) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        for _ in range(2 * THREADS):
            with pytest.raises((apsw.SQLError, Unavailable)):
                await database.rows_in_background("SELECT 1 FROM nowhere", {})
        assert await count(database) == 0

    with_database(database_url, work)


def test_other_reads_and_writes_do_not_wait_for_the_background(tmp_path: Path) -> None:
    """Closing the database interrupts what is left."""

    async def work() -> None:
        database = await open_database(f"sqlite:///{tmp_path}/test.db")
        await migrate(database)
        await with_shop(database)
        endless = [asyncio.ensure_future(database.rows_in_background(ENDLESS, {"n": 0})) for _ in range(THREADS + 1)]
        for number in range(50):
            await add(database, number)
            assert await store.find(database, 1, customer(number).id) == customer(number)
        assert not any(read.done() for read in endless)
        await database.close()
        assert [type(error) for error in await asyncio.gather(*endless, return_exceptions=True)] == [Unavailable] * len(endless)
        with pytest.raises(Unavailable):
            await database.rows_in_background(ENDLESS, {"n": 0})

    asyncio.run(work())


def test_a_cancelled_read_that_waits_is_not_executed(tmp_path: Path) -> None:
    async def work() -> None:
        database = await open_database(f"sqlite:///{tmp_path}/test.db")
        await migrate(database)
        reads = [asyncio.ensure_future(database.rows_in_background("SELECT 1", {})) for _ in range(100)]
        await asyncio.sleep(0)
        for read in reads:
            read.cancel()
        await with_shop(database)
        assert await count(database) == 0
        await database.close()

    asyncio.run(work())


def test_a_replaced_file_is_not_read_in_the_background(tmp_path: Path) -> None:
    async def work() -> None:
        database = await open_database(f"sqlite:///{tmp_path}/test.db")
        await migrate(database)
        for file in tmp_path.glob("test.db*"):
            file.rename(f"{file}.old")
        with pytest.raises(Unavailable):
            await count(database)
        (tmp_path / "test.db").touch()
        with pytest.raises(Unavailable):
            await count(database)
        await database.close()

    asyncio.run(work())
