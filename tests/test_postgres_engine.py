"""The PostgreSQL engine: units that fail in a batch, batches side by side, migrations, the pool of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from conftest import with_database
from ecomcharge.storage.database import Database, Migration, Transaction, Unit
from ecomcharge.storage.migrate import migrations_for
from ecomcharge.storage.postgres.batching import Batcher, Pending
from ecomcharge.storage.statements import Insert
from support.postgres import PostgresServer

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
def test_a_unit_that_fails_in_an_unusual_way_fails_alone(
    postgres: PostgresServer, unit: Unit[None], error: type[Exception]
) -> None:
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

        batcher: Batcher[Pending] = Batcher(flush, max_in_flight=1, max_batch=2)
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

        batcher: Batcher[Pending] = Batcher(flush, max_in_flight=2, max_batch=3)
        waiting = [asyncio.create_task(batcher.submit(Pending())) for _ in range(4)]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(2):
            await batcher.submit(Pending())
        assert batches == [3, 2]
        first_may_end.set()
        await asyncio.gather(*waiting)

    asyncio.run(work())
