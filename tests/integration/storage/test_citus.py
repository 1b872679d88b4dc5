"""The form of statements for Citus, on a PostgreSQL server. No test runs Citus itself (``support.fake_citus``)."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.customers import store as customers
from ecomcharge.events import store as events
from ecomcharge.gateways import sandbox
from ecomcharge.plans import store as plans
from ecomcharge.shops import store as shops
from ecomcharge.storage import migrate
from ecomcharge.storage.database import Database
from ecomcharge.storage.postgres import distribution
from ecomcharge.storage.postgres.by_shop import ExecutorByShop
from ecomcharge.storage.postgres.distribution import FOREIGN_KEYS, remaining_statements
from ecomcharge.storage.postgres.statements import Executor
from support import fake_citus
from support.commands import ecomcharge
from support.postgres import PostgresServer
from support.shops import ENVIRONMENT, with_database

RECORDS = """
INSERT INTO shops (shop_id, name, created_at) SELECT shop, 'Shop', 0 FROM generate_series(1, 3) AS shop;
INSERT INTO customers (shop_id, id, external_id)
SELECT shop, 'cst_' || n, 'x' || n % 2 FROM generate_series(1, 3) AS shop, generate_series(1, 4) AS n;
INSERT INTO events (shop_id, id, type, object_id, sequence, created_at, data)
SELECT shop, 'evt_' || n, 'type', 'sbs_' || n % 2, n / 2, 0, '{}' FROM generate_series(1, 3) AS shop, generate_series(0, 3) AS n
"""

TABLES = """
SELECT relname, (
    SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'shop_id'
) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""

KEYS = """
SELECT conname, conrelid::regclass::text, columns.names, confrelid::regclass::text, referenced.names FROM pg_constraint,
LATERAL (
    SELECT string_agg(attname, ', ' ORDER BY place) AS names FROM unnest(conkey) WITH ORDINALITY AS key(number, place)
    JOIN pg_attribute ON attrelid = conrelid AND attnum = number
) AS columns, LATERAL (
    SELECT string_agg(attname, ', ' ORDER BY place) AS names FROM unnest(confkey) WITH ORDINALITY AS key(number, place)
    JOIN pg_attribute ON attrelid = confrelid AND attnum = number
) AS referenced WHERE contype = 'f' ORDER BY 1
"""

UNIQUE_INDEXES = """
SELECT indrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE indisunique AND indrelid IN (
    SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace
)
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


def test_the_distribution_names_all_tables_and_foreign_keys_of_the_schema(postgres: PostgresServer) -> None:
    """Citus requires the distribution column in each unique index and foreign key, with the same type everywhere."""
    url = postgres.create_database("schema_of_citus")
    with_database(url, _nothing)

    async def read() -> tuple[Any, ...]:
        connection = await asyncpg.connect(url)
        try:
            return tuple([[tuple(row) for row in await connection.fetch(sql)] for sql in (TABLES, KEYS, UNIQUE_INDEXES)])
        finally:
            await connection.close()

    tables, keys, indexes = asyncio.run(read())
    assert {name for name, type in tables if type is None} == set(distribution.LOCAL)
    assert {name for name, type in tables if type == "bigint"} == set(distribution.DISTRIBUTED)
    assert len(tables) == len(distribution.LOCAL) + len(distribution.DISTRIBUTED)
    columns = {
        (key.name, key.table, *map(", ".join, (key.columns, (key.referenced,), key.referenced_columns))) for key in FOREIGN_KEYS
    }
    assert set(keys) == columns
    assert {columns for table, columns in indexes if table in distribution.DISTRIBUTED and "shop_id" not in columns} == set()
    assert all(key.columns[0] == key.referenced_columns[0] == "shop_id" for key in FOREIGN_KEYS)


def test_migrate_distribute_continues_a_run_that_stopped_and_does_nothing_afterwards(postgres: PostgresServer) -> None:
    """On functions with the names of those of Citus, which refuse what Citus refuses."""
    url = postgres.create_database("distribute")
    with_database(url, _nothing)
    fake_citus.install(url, functions=True)
    keys = postgres.sql("distribute", KEYS)
    printed = ecomcharge(url, "migrate", "--distribute", "--dry-run", environment=ENVIRONMENT).stdout
    assert printed.splitlines() == [
        f"{statement};" for statement in remaining_statements(set(), set(), {key.name for key in FOREIGN_KEYS})
    ]
    assert len(printed.splitlines()) == len(FOREIGN_KEYS) * 2 + len(distribution.DISTRIBUTED)
    assert "SELECT create_distributed_table('shops', 'shop_id', colocate_with => 'none');\n" in printed
    assert "SELECT create_distributed_table('events', 'shop_id', colocate_with => 'shops');\n" in printed
    assert postgres.sql("distribute", KEYS) == keys

    def run() -> list[str]:
        executed: list[str] = []

        async def work(database: Database) -> None:
            await migrate.distribute(database, executed.append, dry_run=False)

        with_database(url, work)
        return executed

    postgres.sql("distribute", "CREATE TABLE other (shop_id BIGINT, token TEXT, FOREIGN KEY (shop_id, token) REFERENCES cards)")
    with pytest.raises(ConfigurationError, match=r"'cards'.*relations are not colocated: cards; the next run continues here"):
        run()
    postgres.sql("distribute", "DROP TABLE other")
    continued = run()
    assert continued[0].startswith("SELECT create_distributed_table('cards'")
    assert postgres.sql("distribute", KEYS) == keys
    calls = postgres.sql("distribute", "SELECT call FROM fake_citus.calls ORDER BY number").split("\n")
    assert calls[:-1] == [f"distribute {table}" for table in distribution.DISTRIBUTED]
    assert postgres.sql("distribute", "SELECT DISTINCT colocationid FROM pg_dist_partition") == "1\n"
    assert run() == []


def test_rows_that_stay_on_the_coordinator_are_deleted_while_there_are_no_foreign_keys() -> None:
    """Of erased customers too. So a run that stopped before this step drops the keys again."""
    keys = {key.name for key in FOREIGN_KEYS}
    statements = list(remaining_statements(set(distribution.DISTRIBUTED), {"customers", "schema_migrations"}, keys))
    drop = "ALTER TABLE {} DROP CONSTRAINT {}"
    assert statements[:3] == [
        drop.format("customers", "customers_shop_id_fkey"),
        drop.format("subscriptions", "subscriptions_shop_id_customer_id_fkey"),
        "SELECT truncate_local_data_after_distributing_table('customers')",
    ]
    assert [statement.split(" FOREIGN")[0] for statement in statements[3:]] == [
        "ALTER TABLE customers ADD CONSTRAINT customers_shop_id_fkey",
        "ALTER TABLE subscriptions ADD CONSTRAINT subscriptions_shop_id_customer_id_fkey",
    ]


def test_only_postgresql_with_citus_is_distributed(database_url: str, engine: str) -> None:
    async def work(database: Database) -> None:
        await migrate.distribute(database, print, dry_run=True)

    sentence = {"sqlite": "SQLite has one file", "postgresql": "the database has no extension citus"}[engine]
    with pytest.raises(ConfigurationError, match=sentence):
        with_database(database_url, work)


async def _nothing(database: Database) -> None:
    """The database is migrated before."""


def _values(row: Any) -> tuple[object, ...] | None:
    return None if row is None else tuple(row)
