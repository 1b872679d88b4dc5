"""PgBouncer between the server and PostgreSQL, in session mode and in transaction mode."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import asyncpg
import pytest

from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_database
from support.commands import ecomcharge
from support.faults import check_everything, load_on
from support.pgbouncer import PgBouncer
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop, with_database

pytestmark = pytest.mark.skipif(PgBouncer.program() is None, reason="no pgbouncer; `make pgbouncer` installs it")


@pytest.mark.parametrize(("mode", "option"), [("session", "auto"), ("session", "session"), ("transaction", "auto")])
def test_a_server_and_a_worker_behind_a_pooler(
    own_postgres: PostgresServer, postgres_url: str, master_key: MasterKey, server_folder: Path, mode: str, option: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    with PgBouncer(own_postgres, mode, server_connections=4 if mode == "transaction" else 30) as pooler:
        url = pooler.url_of(name)
        shop = add_shop(url, master_key)
        options = ("--workers", "2", "--worker", "--postgres-pooler", option)
        with ServerProcess(url, server_folder, *options, environment=ENVIRONMENT) as process:
            with load_on(process, shop) as load:
                time.sleep(3)
            assert len(load.ledger.acknowledged) > 100, process.log()[-2000:]
            assert load.ledger.refused == []
            check_everything(process, shop, load.ledger)
            file = server_folder / "customers.csv"
            file.write_text("email,ip\n" + "".join(f"import-{number}@shop.test,127.0.0.1\n" for number in range(500)))
            done = ecomcharge(url, "customers", "import", str(file), "--shop-id", str(shop.shop_id), environment=ENVIRONMENT)
            assert done.returncode == 0, done.stderr
            assert process.stop() == 0
            assert '"level":"error"' not in process.log()
            assert "refuses work" not in process.log()
    assert own_postgres.sql(name, "SELECT count(*) FROM customers").strip() == str(len(load.ledger.acknowledged) + 500)


def test_nothing_is_left_in_the_sessions_of_a_pooler_in_transaction_mode(own_postgres: PostgresServer, postgres_url: str) -> None:
    """Another client would get the setting, or find that the name of its prepared statement is taken."""
    name = postgres_url.rpartition("/")[2]

    async def work(database: Database) -> None:
        await migrate(database)
        await database.ping()
        assert (await database.write(_lock_timeout)) == "5s"

    async def look() -> tuple[str, int]:
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            lock_timeout = await connection.fetchval("SELECT current_setting('lock_timeout')")
            return lock_timeout, await connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
        finally:
            await connection.close()

    with PgBouncer(own_postgres, "transaction", server_connections=1) as pooler:
        url = pooler.url_of(name)
        with_database(url, work)
        assert asyncio.run(look()) == ("0", 0)


async def _lock_timeout(tx: Transaction) -> str:
    [[value]] = await tx.rows("SELECT current_setting('lock_timeout')", {})
    return str(value)


def test_where_a_pooler_accepts_no_more_clients_those_that_are_connected_are_waited_for(
    own_postgres: PostgresServer, postgres_url: str
) -> None:
    async def work() -> None:
        database = await open_database(pooler.url_of(postgres_url.rpartition("/")[2]), postgres_connections=20)
        async with asyncio.timeout(10):
            await asyncio.gather(*(database.rows("SELECT pg_sleep(0.05)", {}) for _ in range(40)))
        await database.close()

    with PgBouncer(own_postgres, "session", client_connections=3) as pooler:
        asyncio.run(work())
