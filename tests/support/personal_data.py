"""Search a database for values: in every column of every table, and in the raw files."""

from __future__ import annotations

from pathlib import Path

from ecomcharge.storage.database import Database
from ecomcharge.storage.opening import sqlite_path
from support.postgres import PostgresServer
from support.raw_files import contents, files_below
from support.shops import with_database

_TABLES = {
    "sqlite": "SELECT name FROM sqlite_schema WHERE type = 'table'",
    "postgresql": "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'",
}


def tables_of(url: str) -> list[str]:
    async def work(database: Database) -> list[str]:
        return sorted(row[0] for row in await database.rows(_TABLES[database.engine], {}))

    return with_database(url, work)


def columns_with(url: str, values: list[str]) -> set[str]:
    """``table.column`` of every column in which a row contains one of the values."""

    async def work(database: Database) -> set[str]:
        found = set()
        for table in [row[0] for row in await database.rows(_TABLES[database.engine], {})]:
            if table.startswith("customer_search"):  # the index has no content to select; its bytes are in the raw file
                continue
            names = await _columns(database, table)
            for row in await database.rows(f"SELECT {', '.join(names)} FROM {table}", {}):
                for name, cell in zip(names, row, strict=True):
                    if any(value.lower() in str(cell).lower() for value in values):
                        found.add(f"{table}.{name}")
        return found

    return with_database(url, work)


async def _columns(database: Database, table: str) -> list[str]:
    if database.engine == "sqlite":
        return [row[0] for row in await database.rows("SELECT name FROM pragma_table_info(:t)", {"t": table})]
    rows = await database.rows(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = :t", {"t": table}
    )
    return [row[0] for row in rows]


def values_in_files(url: str, values: list[str], postgres: PostgresServer | None = None) -> dict[str, list[str]]:
    """The values whose bytes are in files of the database, with the names of the files, without PostgreSQL's log."""
    path = sqlite_path(url)
    if path is not None:
        files = [file for file in Path(path).parent.glob(f"{Path(path).name}*") if file.is_file()]
    else:
        assert postgres is not None
        postgres.client("psql", url.rpartition("/")[2], "-c", "CHECKPOINT")  # writes changed pages to the files
        files = list(files_below(postgres.data / "base"))
    found: dict[str, list[str]] = {}
    for file, content in contents(files):
        folded = content.lower()
        for value in values:
            if value.lower().encode() in folded:
                found.setdefault(value, []).append(file.name)
    return found
