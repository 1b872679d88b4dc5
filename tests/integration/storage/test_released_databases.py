"""The current program opens the database of every release."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from ecomcharge.storage.database import Database
from support.released_databases import DUMPS, restore
from support.shops import with_database

TABLES = ("cards", "customers", "events", "payments", "plans", "shops", "subscriptions", "webhooks")


@pytest.mark.parametrize("schema", sorted(DUMPS))
def test_every_row_of_a_released_database_is_kept(schema: str, database_url: str) -> None:
    async def count(database: Database) -> list[int]:
        return [int((await database.rows(f"SELECT COUNT(*) FROM {table}", {}))[0][0]) for table in TABLES]

    restore(DUMPS[schema], database_url)
    with closing(sqlite3.connect(":memory:")) as dumped:
        dumped.executescript(DUMPS[schema].read_text())
        expected = [dumped.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in TABLES]
    assert with_database(database_url, count) == expected
