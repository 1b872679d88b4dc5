"""Migrations: numbered SQL files, applied in order and never undone.

Each file is for both engines. A fragment for one engine is in a comment with its name: ``/*sqlite: WITHOUT ROWID */``,
``/*postgresql: COLLATE "C" */``. The previous release must run on the new schema, so a migration renames or drops nothing that
the previous release uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, cast

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.storage.database import Database, Migration

if TYPE_CHECKING:
    from ecomcharge.storage.postgres import PostgresDatabase

_TABLES = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'",
    "postgresql": "SELECT 1 WHERE to_regclass('schema_migrations') IS NOT NULL",
}
_NO_CITUS = {
    "sqlite": "SQLite has one file and cannot be distributed; move to PostgreSQL with the extension citus first",
    "postgresql": "the database has no extension citus; install it on each node, and run CREATE EXTENSION citus in this database",
}
_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql\Z")


def migrations_for(engine: str) -> list[Migration]:
    """All migrations of this program in order, with the SQL for this engine."""
    entries = resources.files("ecomcharge.storage").joinpath("migrations").iterdir()
    found = [
        Migration(int(match[1]), match[2], _with_fragments_of(engine, entry.read_text("utf-8")))
        for entry in entries
        if (match := _FILE_NAME.match(entry.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


def _with_fragments_of(engine: str, text: str) -> str:
    """The text, in which the fragments for this engine are no comments any more."""
    head, *marked = text.split(f"/*{engine}:")
    return head + "".join(each.replace("*/", "", 1) for each in marked)


async def migrate(database: Database) -> list[Migration]:
    """Apply the pending migrations, and return them in order."""
    return await database.migrate(migrations_for(database.engine))


def check_citus(database: Database) -> None:
    """Raises ``ConfigurationError`` if the database cannot be distributed."""
    if not database.is_distributed:
        raise ConfigurationError(_NO_CITUS[database.engine])


async def distribute(database: Database, report: Callable[[str], None], *, dry_run: bool) -> None:
    """Distribute the tables by shop over a cluster with Citus, as far as that is not done.

    ``report`` gets each statement after its execution; with ``dry_run`` none is executed. Raises ``ConfigurationError`` if the
    database cannot be distributed or a statement fails.
    """
    check_citus(database)
    if pending := await pending_migrations(database):
        raise ConfigurationError(f"{len(pending)} migrations are not applied; run `ecomcharge migrate` first")
    await cast("PostgresDatabase", database).distribute(report, dry_run=dry_run)


async def pending_migrations(database: Database) -> list[Migration]:
    """The migrations that ``migrate`` would apply. Only reads."""
    exists = await database.rows(_TABLES[database.engine], {})
    known = {row[0] for row in await database.rows("SELECT version FROM schema_migrations", {})} if exists else set()
    return [migration for migration in migrations_for(database.engine) if migration.version not in known]
