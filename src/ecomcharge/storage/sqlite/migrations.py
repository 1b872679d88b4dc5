"""Applies migrations, on a connection of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from ecomcharge.storage.database import Migration
from ecomcharge.storage.sqlite.connection import BUSY_TIMEOUT_MILLISECONDS, connect
from ecomcharge.storage.sqlite.locks import WriteLock
from ecomcharge.storage.sqlite.open_files import OpenFiles
from ecomcharge.storage.sqlite.statistics import fix_statistics


def apply_migrations(path: str, files: OpenFiles, migrations: Sequence[Migration]) -> list[Migration]:
    """Apply those that the database does not have yet, all in one transaction, and return them. Blocks the thread.

    Also restores the fixed statistics, which an operator may have replaced with ``ANALYZE``.
    """
    with contextlib.closing(WriteLock(path)) as lock, contextlib.closing(connect(path)) as connection:
        lock.acquire(wait=True)
        connection.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
        connection.execute("BEGIN IMMEDIATE")  # closing the connection rolls back, closing the lock releases it
        files.check()
        connection.execute("CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL)")
        known = {version for (version,) in connection.execute("SELECT version FROM schema_migrations")}
        missing = [migration for migration in migrations if migration.version not in known]
        for migration in missing:
            connection.execute(migration.sql)
            connection.execute("INSERT INTO schema_migrations (version, name) VALUES (?, ?)", (migration.version, migration.name))
        fix_statistics(connection)
        connection.execute("COMMIT")
        return missing
