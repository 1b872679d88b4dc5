"""The form of statements for Citus, on a PostgreSQL server. No test runs Citus itself (``support.fake_citus``)."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from ecomcharge.customers import store as customers
from ecomcharge.events import store as events
from ecomcharge.gateways import sandbox
from ecomcharge.plans import store as plans
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database
from ecomcharge.storage.postgres.by_shop import ExecutorByShop
from ecomcharge.storage.postgres.statements import Executor
from support.postgres import PostgresServer
from support.shops import with_database

RECORDS = """
INSERT INTO shops (shop_id, name, created_at) SELECT shop, 'Shop', 0 FROM generate_series(1, 3) AS shop;
INSERT INTO customers (shop_id, id, external_id)
SELECT shop, 'cst_' || n, 'x' || n % 2 FROM generate_series(1, 3) AS shop, generate_series(1, 4) AS n;
INSERT INTO events (shop_id, id, type, object_id, sequence, created_at, data)
SELECT shop, 'evt_' || n, 'type', 'sbs_' || n % 2, n / 2, 0, '{}' FROM generate_series(1, 3) AS shop, generate_series(0, 3) AS n
"""

SOME_EXTERNAL_IDS = [(3, "x1"), (1, "x0"), (2, "unknown"), (1, "x1"), (1, "x0"), (9, "x0"), (3, "x0")]

READS = (
    (customers.FIND, [(shop, f"cst_{n}") for n in range(6) for shop in range(5)]),
    (customers.FIND_OLDEST, SOME_EXTERNAL_IDS),
    (customers.FIND_BY_EXTERNAL_ID, SOME_EXTERNAL_IDS),
    (sandbox.COUNT_CHARGES, [(2, "t"), (1, "unknown"), (1, "t"), (9, "t")]),
    (shops.FIND_OPEN_SHOP, [(2,), (9,), (1,), (2,)]),
    (events.ID_OF, [(1, "sbs_0", 0), (1, "sbs_1", 1), (1, "sbs_0", 2), (2, "sbs_1", 0)]),
    (plans.FIND_WITH_SHOP, [("pln_1",), ("pln_2",)]),
)


def test_statements_by_shop_have_the_results_of_gathered_ones(postgres: PostgresServer) -> None:
    """For rows that exist once, several times or not, asked for once or twice, of several shops in any order."""
    url = postgres.create_database("by_shop")
    with_database(url, _nothing)

    async def work() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(RECORDS)

        async def inserted(executor: Executor, rows: list[tuple[object, ...]]) -> list[bool]:
            return (await executor.insert(connection, sandbox.INSERT_CHARGE, rows, with_transaction_id=False)).each

        gathered, by_shop = Executor(), ExecutorByShop()
        rows: list[tuple[object, ...]] = [
            (1 + n % 3, f"charge {n}", "t", 1, "EUR", "successful", "", n) for n in (*range(300), 299, 298)
        ]
        assert await inserted(by_shop, rows[:100]) == [True] * 100
        assert await inserted(by_shop, rows[50:]) == [False] * 50 + [True] * 200 + [False] * 2
        assert await inserted(gathered, rows) == [False] * 302
        for read, keys in READS:
            expected = [_values(row) for row in await gathered.find(connection, read, keys)]
            assert [_values(row) for row in await by_shop.find(connection, read, keys)] == expected, read
        await connection.close()

    asyncio.run(work())


async def _nothing(database: Database) -> None:
    """The database is migrated before."""


def _values(row: Any) -> tuple[object, ...] | None:
    return None if row is None else tuple(row)
