"""Databases of earlier releases: one SQLite dump for each released schema, used for both engines."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import asyncpg

from ecomcharge.storage.migrate import migrations_for
from ecomcharge.storage.opening import open_database, sqlite_path

DUMPS = {path.stem[-4:]: path for path in (Path(__file__).parents[1] / "data").glob("database_of_schema_*.sql")}  # by schema


def restore(dump: Path, url: str) -> None:
    """Create the database of a release: on SQLite from the dump, on PostgreSQL from its rows in the schema of that release."""
    path = sqlite_path(url)
    with closing(sqlite3.connect(path or ":memory:")) as dumped:
        dumped.executescript(dump.read_text())
        dumped.commit()
        if path is None:
            asyncio.run(copy_to_postgresql(dumped, url))


async def copy_to_postgresql(dumped: sqlite3.Connection, url: str) -> None:
    applied = {version for (version,) in dumped.execute("SELECT version FROM schema_migrations")}
    database = await open_database(url)
    await database.migrate([each for each in migrations_for("postgresql") if each.version in applied])
    await database.close()
    tables = [name for (name,) in dumped.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    connection = await asyncpg.connect(url)
    try:
        # Disable foreign key checks, because the order of the tables is arbitrary.
        await connection.execute("SET session_replication_role = replica")
        for table in set(tables) - {"schema_migrations"}:
            cursor = dumped.execute(f"SELECT * FROM {table}")
            columns = [column[0] for column in cursor.description]
            await connection.copy_records_to_table(table, records=cursor.fetchall(), columns=columns)
    finally:
        await connection.close()
