"""Migrations: numbered SQL files, applied in order and never undone.

Each file is for both engines. A fragment for one engine is in a comment with its name: ``/*sqlite: WITHOUT ROWID */``,
``/*postgresql: COLLATE "C" */``. The previous release must run on the new schema, so a migration renames or drops nothing that
the previous release uses.
"""

from __future__ import annotations

import re
from importlib import resources

from ecomcharge.storage.database import Database, Migration

_TABLES = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'",
    "postgresql": "SELECT 1 WHERE to_regclass('schema_migrations') IS NOT NULL",
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


async def pending_migrations(database: Database) -> list[Migration]:
    """The migrations that ``migrate`` would apply. Only reads."""
    exists = await database.rows(_TABLES[database.engine], {})
    known = {row[0] for row in await database.rows("SELECT version FROM schema_migrations", {})} if exists else set()
    return [migration for migration in migrations_for(database.engine) if migration.version not in known]
