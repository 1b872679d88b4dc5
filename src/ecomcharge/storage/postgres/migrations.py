"""Applies migrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ecomcharge.storage.database import Migration
from ecomcharge.storage.postgres.pool import Connection

LOCK: Final = 0x65636F6D  # "ecom"; no other program locks this number in the same database
LOCK_TIMEOUT_SECONDS: Final = 600
MIGRATION_TIMEOUT_SECONDS: Final = 24 * 60 * 60.0  # an index of a large table takes hours; asyncpg takes None for its default


async def apply_migrations(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    """Apply those that are missing, each in its own transaction. Processes that try at the same moment take turns."""
    async with connection.transaction():  # of the setting; the lock belongs to the session
        await connection.execute("SET LOCAL lock_timeout = 0")  # a migration of another process may take longer
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK, timeout=LOCK_TIMEOUT_SECONDS)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL)")
        known = {row[0] for row in await connection.fetch("SELECT version FROM schema_migrations")}
        missing = [migration for migration in migrations if migration.version not in known]
        for migration in missing:
            async with connection.transaction():
                await connection.execute(migration.sql, timeout=MIGRATION_TIMEOUT_SECONDS)
                await connection.execute(
                    "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)", migration.version, migration.name
                )
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)
    return missing
