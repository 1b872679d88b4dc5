"""The SQLite engine: reads during writes of other processes, slow readers, a full disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import pytest

from ecomcharge.base.errors import Unavailable
from ecomcharge.customers import store
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import PER_CHUNK, chunks_of
from ecomcharge.storage.sqlite import connection, reader
from support.customers import add, customer, rows, with_shop
from support.shops import with_database


def test_a_read_after_a_commit_of_another_process_sees_that_commit(tmp_path: Path) -> None:
    path = f"{tmp_path}/turns.db"

    async def work(database: Database) -> None:
        await with_shop(database)
        other_process = apsw.Connection(path)
        for number in range(20):
            reading = [asyncio.create_task(store.find(database, 1, customer(number).id)) for _ in range(3)]
            await asyncio.sleep(0)  # they have read in a shared transaction
            other_process.execute("INSERT INTO customers (shop_id, id, email) VALUES (1, ?, 'a@b.c')", (customer(number).id,))
            assert await asyncio.create_task(store.find(database, 1, customer(number).id)) is not None
            assert await asyncio.gather(*reading) == [None, None, None]
        other_process.close()

    with_database(f"sqlite:///{path}", work)


def test_reads_share_no_transaction_while_the_wal_is_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SQLite restarts and truncates its log only when no transaction reads from the older part."""
    monkeypatch.setattr(reader, "SHARING_LOG_LIMIT_BYTES", 2**20)
    monkeypatch.setattr(connection, "LOG_LIMIT_BYTES", 2**19)
    url, log = f"sqlite:///{tmp_path}/long.db", tmp_path / "long.db-wal"

    async def several_reads(database: Database) -> bool:
        """Returns whether the reads shared a transaction."""

        async def one() -> bool:
            await database.find(store.FIND, (1, customer(0).id))
            in_transaction: bool = database._reader.connection.in_transaction  # type: ignore[attr-defined]
            return in_transaction

        return any(await asyncio.gather(*(one() for _ in range(5))))

    async def all_at_once(tx: Transaction) -> None:
        assert all(await store.insert_many(tx, rows(range(1, 50_000))))

    async def work(database: Database) -> None:
        await with_shop(database)
        assert await several_reads(database)
        await database.write(all_at_once)
        assert log.stat().st_size > 2**20
        await several_reads(database)
        assert not await several_reads(database)
        for number in range(50_000, 50_003):
            await add(database, number)
        assert log.stat().st_size < 2**20
        await several_reads(database)
        assert await several_reads(database)

    with_database(url, work)


def test_a_slow_chunked_read_holds_no_transaction(tmp_path: Path) -> None:
    path = f"{tmp_path}/chunks.db"

    async def work(database: Database) -> None:
        await with_shop(database)
        await asyncio.gather(*(add(database, number) for number in range(2 * PER_CHUNK)))
        chunks = chunks_of(store.Customers(database, 1))
        assert len(await anext(chunks)) == len(await anext(chunks)) == PER_CHUNK
        await add(database, 2 * PER_CHUNK)
        [(busy, _, _)] = apsw.Connection(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert not busy
        assert [customer(2 * PER_CHUNK)] == await anext(chunks)

    with_database(f"sqlite:///{path}", work)


def test_a_disk_that_fills_up_during_inserts_rolls_back_the_whole_batch(tmp_path: Path) -> None:
    async def fills_it(tx: Transaction) -> None:
        await store.insert_many(tx, rows(range(20_000)))

    async def work(database: Database) -> None:
        await with_shop(database)
        writer: apsw.Connection = database._writer.connection  # type: ignore[attr-defined]
        pages: Any = writer.execute("PRAGMA page_count").get
        writer.execute(f"PRAGMA max_page_count = {pages + 100}")
        units = [add(database, 30_000), database.write(fills_it), add(database, 30_001)]
        assert [type(outcome) for outcome in await asyncio.gather(*units, return_exceptions=True)] == [Unavailable] * 3
        assert [chunk async for chunk in chunks_of(store.Customers(database, 1))] == []
        assert await add(database, 30_000)

    with_database(f"sqlite:///{tmp_path}/full.db", work)


def test_a_unit_that_writes_through_a_read_call_is_refused(tmp_path: Path) -> None:
    """An engine must know which units have written."""

    async def changes(tx: Transaction) -> None:
        await tx.rows("UPDATE shops SET name = 'x' RETURNING shop_id", {})

    async def work(database: Database) -> None:
        await with_shop(database)
        with pytest.raises(RuntimeError, match="changes rows"):
            await database.write(changes)
        assert await database.rows("SELECT name FROM shops", {}) == [("Test",)]

    with_database(f"sqlite:///{tmp_path}/reads.db", work)
