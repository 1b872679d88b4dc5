"""The guarantees of both database engines: waiting writes are committed together and fail separately."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from ecomcharge.base.errors import Unavailable
from ecomcharge.base.ids import CUSTOMER_PREFIX, IdGenerator
from ecomcharge.customers import actions, store
from ecomcharge.customers.model import Customer, CustomerFields, StoredCustomer
from ecomcharge.customers.store import Filter
from ecomcharge.storage.database import Database, Transaction, Unit
from ecomcharge.storage.migrate import migrate, migrations_for
from ecomcharge.storage.opening import open_database
from ecomcharge.storage.records import chunks_of
from ecomcharge.web.idempotency import IdempotencyKey
from support.customers import NOW, add, customer, rows, with_shop
from support.postgres import PostgresServer
from support.shops import with_database


def test_units_that_wait_together_share_commits(database_url: str) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        before = database.stats.commits
        assert all(await asyncio.gather(*(add(database, number) for number in range(500))))
        assert database.stats.commits - before < 50
        found = [chunk async for chunk in chunks_of(store.Customers(database, 1))]
        assert list(itertools.chain(*found)) == [customer(number) for number in range(500)]

    with_database(database_url, work)


def test_a_failed_unit_does_not_affect_other_units(database_url: str) -> None:
    async def fails_after_writing(tx: Transaction) -> None:
        await store.insert(tx, 1, customer(1_000))
        raise LookupError("mine alone")

    async def breaks_a_constraint(tx: Transaction) -> None:
        await store.insert(tx, 1, customer(1_001))
        await store.insert(tx, 999, customer(1_002))  # no such shop

    async def runs_invalid_sql(tx: Transaction) -> None:
        await store.insert(tx, 1, customer(1_003))
        await tx.rows("SELECT nothing FROM nowhere", {})

    async def work(database: Database) -> None:
        await with_shop(database)
        good = [add(database, number) for number in range(20)]
        bad = [database.write(unit) for unit in (fails_after_writing, breaks_a_constraint, runs_invalid_sql)]
        mixed: list[Awaitable[Any]] = [*good[:10], *bad, *good[10:]]
        outcomes = await asyncio.gather(*mixed, return_exceptions=True)
        assert outcomes[:10] == outcomes[13:] == [True] * 10
        assert isinstance(outcomes[10], LookupError)
        assert all(isinstance(outcome, Exception) for outcome in outcomes[10:13])
        assert await store.Customers(database, 1).select(100) == [customer(number) for number in range(20)]

    with_database(database_url, work)


def test_a_unit_that_fails_before_it_writes_does_not_repeat_other_units(database_url: str) -> None:
    async def refuses(tx: Transaction) -> None:
        await tx.find(store.FIND, (1, "cst_0000000000000000"))
        raise LookupError

    async def work(database: Database) -> None:
        await with_shop(database)
        units: list[Awaitable[Any]] = [*(add(database, number) for number in range(5)), database.write(refuses)]
        before = database.stats.commits
        outcomes = await asyncio.gather(*units, return_exceptions=True)
        assert outcomes[:5] == [True] * 5
        assert isinstance(outcomes[5], LookupError)
        assert database.stats.commits - before <= 2

    with_database(database_url, work)


@pytest.mark.parametrize("wait", [lambda: asyncio.sleep(0), lambda: asyncio.get_running_loop().create_future()])
def test_a_unit_that_awaits_something_other_than_the_database_is_rolled_back(
    database_url: str, wait: Callable[[], Awaitable[None]]
) -> None:
    async def suspends(tx: Transaction) -> None:
        await store.insert(tx, 1, customer(1))
        await wait()

    async def work(database: Database) -> None:
        await with_shop(database)
        with pytest.raises(RuntimeError, match="must await nothing but its transaction"):
            await database.write(suspends)
        assert await store.find(database, 1, customer(1).id) is None
        assert await add(database, 1)

    with_database(database_url, work)


def test_one_of_several_concurrent_equal_inserts_succeeds(database_url: str) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        outcomes = await asyncio.gather(*(add(database, number % 3) for number in range(60)))
        assert sum(outcomes) == 3

    with_database(database_url, work)


def test_concurrent_point_reads_each_get_their_own_row(database_url: str) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        await asyncio.gather(*(add(database, number) for number in range(50)))
        asked = [number % 75 for number in range(300)]
        found = await asyncio.gather(*(store.find(database, 1, customer(number).id) for number in asked))
        assert found == [customer(number) if number < 50 else None for number in asked]
        if database.engine == "postgresql":
            assert database.stats.find_statements < database.stats.finds / 10

    with_database(database_url, work)


def test_a_read_sees_every_commit_that_another_process_has_acknowledged(database_url: str) -> None:
    """``other_process`` simulates the other process; it has separate connections."""

    async def readers(database: Database) -> None:
        while True:
            await database.find(store.FIND, (1, customer(0).id))
            await asyncio.sleep(0)

    async def work(database: Database) -> None:
        await with_shop(database)
        other_process = await open_database(database_url)
        reading = [asyncio.create_task(readers(other_process)) for _ in range(30)]
        try:
            for number in range(1, 300):
                assert await add(database, number)
                assert await store.find(other_process, 1, customer(number).id) == customer(number)
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            await other_process.close()

    with_database(database_url, work)


def test_a_unit_that_postgresql_rolls_back_because_of_a_deadlock_is_run_again(postgres: PostgresServer) -> None:
    url = postgres.create_database("deadlock")

    async def work(database: Database) -> None:
        await with_shop(database)
        await asyncio.gather(add(database, 1), add(database, 2))
        other = await asyncpg.connect(url)
        await other.execute("SET deadlock_timeout = '30s'")  # so that PostgreSQL rolls back our transaction
        runs = 0

        async def first_one_then_two(tx: Transaction) -> None:
            nonlocal runs
            runs += 1
            if runs > 1:
                time.sleep(0.2)  # so that the other transaction, which was just resumed, locks the first row
            for number in (1, 2):
                await store.update(tx, 1, StoredCustomer(msgspec.structs.replace(customer(number), city="ours"), 2, NOW))

        await other.execute("BEGIN")
        await other.execute("UPDATE customers SET city = 'theirs' WHERE id = $1", customer(2).id)
        ours = asyncio.create_task(database.write(first_one_then_two))
        async with asyncio.timeout(30):
            while not await other.fetchval("SELECT COUNT(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
        await other.execute("UPDATE customers SET city = 'theirs' WHERE id = $1", customer(1).id)
        await other.execute("COMMIT")
        await ours
        await other.close()
        assert runs == 2
        found = [await store.find(database, 1, customer(number).id) for number in (1, 2)]
        assert [each.city for each in found if each] == ["ours", "ours"]

    with_database(url, work)


@pytest.mark.parametrize("count", [1, 20, 300], ids=["one", "some", "worth a COPY"])
def test_many_inserts_report_which_rows_were_inserted(database_url: str, count: int) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        assert all(await database.write(lambda tx: store.insert_many(tx, rows(range(count)))))
        mixed = rows([count, *range(count), count + 1, count + 1])
        first, second = await asyncio.gather(
            database.write(lambda tx: store.insert_many(tx, mixed)),
            database.write(lambda tx: store.insert_many(tx, rows([1_000, 1_001]))),
        )
        assert list(first) == [True, *[False] * count, True, False]
        assert list(second) == [True, True]
        found = [chunk async for chunk in chunks_of(store.Customers(database, 1))]
        assert list(itertools.chain(*found)) == [customer(number) for number in [*range(count + 2), 1_000, 1_001]]

    with_database(database_url, work)


def test_failed_inserts_leave_no_rows_and_do_not_affect_other_units(database_url: str) -> None:
    many = range(300)

    async def work(database: Database) -> None:
        await with_shop(database)
        without_a_shop = database.write(lambda tx: store.insert_many(tx, rows(many, shop_id=999)))
        fine = database.write(lambda tx: store.insert_many(tx, rows(many)))
        refusal, made = await asyncio.gather(without_a_shop, fine, return_exceptions=True)
        assert isinstance(refusal, Exception)
        assert not isinstance(refusal, Unavailable)
        assert made == [True] * len(many)

    with_database(database_url, work)


def test_inserts_that_an_engine_combines_fail_separately_and_are_read_by_their_units(database_url: str) -> None:
    def create(number: int, shop_id: int = 1) -> Unit[bool]:
        return lambda tx: store.insert(tx, shop_id, customer(number))

    def create_and_read(number: int) -> Unit[tuple[bool, Customer | None]]:
        async def unit(tx: Transaction) -> tuple[bool, Customer | None]:
            return await store.insert(tx, 1, customer(number)), await store.find(tx, 1, customer(number).id)

        return unit

    async def create_and_fail(tx: Transaction) -> None:
        await store.insert(tx, 1, customer(8))
        raise KeyError

    async def work(database: Database) -> None:
        async def together(*units: Unit[Any]) -> list[Any]:
            return await asyncio.gather(*map(database.write, units), return_exceptions=True)

        await with_shop(database)
        assert sorted(await together(create(1), create(1), create(2))) == [False, True, True]
        assert await together(create(3), create_and_read(4)) == [True, (True, customer(4))]
        refusal, created = await together(create(5, shop_id=999), create(6))
        assert isinstance(refusal, Exception)
        assert not isinstance(refusal, Unavailable)
        assert created is True
        created, failure = await together(create(7), create_and_fail)
        assert created is True
        assert isinstance(failure, KeyError)
        expected = [customer(number) for number in (1, 2, 3, 4, 6, 7)]
        assert await store.Customers(database, 1).select(10) == expected
        for each in expected:
            assert await store.Customers(database, 1, Filter(email=each.email)).select(10) == [each]

    with_database(database_url, work)


def test_a_row_is_not_kept_if_its_index_cannot_be_written(tmp_path: Path) -> None:
    async def work(database: Database) -> None:
        await with_shop(database)
        await database.write(lambda tx: tx.run(f"DROP TABLE {store.SEARCH.table}", {}))
        with pytest.raises(Exception, match="no such table"):
            await database.write(lambda tx: store.insert(tx, 1, customer(1)))
        assert await database.rows("SELECT id FROM customers", {}) == []

    with_database(f"sqlite:///{tmp_path}/test.db", work)


def test_an_id_that_is_already_used_is_generated_again(database_url: str) -> None:
    class Stuck(IdGenerator):
        numbers = iter([1, 1, 2])

        def generate(self, now: int) -> str:
            return customer(next(self.numbers)).id

    async def work(database: Database) -> None:
        await with_shop(database)
        id_generator = Stuck(CUSTOMER_PREFIX)
        fields = CustomerFields(email="a@b.cc", ip="::1")
        answers = [
            await actions.create_customer(database, id_generator, NOW, 1, fields, IdempotencyKey(f"k{i}", "f")) for i in range(2)
        ]
        assert [answer.location for answer in answers] == [f"/customers/{customer(number).id}" for number in (1, 2)]

    with_database(database_url, work)


def test_concurrent_migrations_are_applied_once(database_url: str) -> None:
    async def work() -> list[int]:
        databases = [await open_database(database_url) for _ in range(4)]
        try:
            applied = await asyncio.gather(*(migrate(database) for database in databases))
            return [len(each) for each in applied]
        finally:
            for database in databases:
                await database.close()

    assert sum(asyncio.run(work())) == len(migrations_for("sqlite"))
