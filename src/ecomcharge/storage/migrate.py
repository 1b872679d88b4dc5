"""Migrations: letters to someone else's production.

Numbered files, forward only, one text for both engines. Where the engines must differ, a fragment stands in
a marked comment that only one of them reads: ``/*sqlite: WITHOUT ROWID */``, ``/*postgresql: COLLATE "C" */``.
The old release keeps running on the new schema, so nothing is renamed or dropped before the release after.
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
    """Every migration of this program in order, in the engine's words."""
    entries = resources.files("ecomcharge.storage").joinpath("migrations").iterdir()
    found = [
        Migration(int(match[1]), match[2], _with_fragments_of(engine, entry.read_text("utf-8")))
        for entry in entries
        if (match := _FILE_NAME.match(entry.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


def _with_fragments_of(engine: str, text: str) -> str:
    """The text with the fragments that are marked for this engine taken out of their comments."""
    head, *marked = text.split(f"/*{engine}:")
    return head + "".join(each.replace("*/", "", 1) for each in marked)


async def migrate(database: Database) -> list[Migration]:
    """Bring the database to this program's schema; what was applied, in order."""
    return await database.migrate(migrations_for(database.engine))


async def pending_migrations(database: Database) -> list[Migration]:
    """What ``migrate`` would apply. It only reads."""
    there = await database.rows(_TABLES[database.engine], {})
    known = {row[0] for row in await database.rows("SELECT version FROM schema_migrations", {})} if there else set()
    return [migration for migration in migrations_for(database.engine) if migration.version not in known]
