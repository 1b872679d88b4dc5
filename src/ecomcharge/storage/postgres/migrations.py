"""Applies migrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg

from ecomcharge.base.errors import ConfigurationError, Unavailable
from ecomcharge.storage.database import Migration
from ecomcharge.storage.postgres.connecting import Connection
from ecomcharge.storage.postgres.errors import explain

LOCK: Final = 0x65636F6D  # "ecom"; no other program locks this number in the same database
LOCK_TIMEOUT_SECONDS: Final = 600.0
MIGRATION_TIMEOUT_SECONDS: Final = 24 * 60 * 60.0  # an index of a large table takes hours; asyncpg takes None for its default

_CREATE: Final = "CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL)"
_RECORD: Final = "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)"


async def apply_migrations(connection: Connection, migrations: Sequence[Migration], *, begin: str) -> list[Migration]:
    """Apply those that are missing, each in its own transaction. Processes that try at the same moment take turns.

    A current schema is only read, so that a role without the right to create tables can serve, and a standby can be read.
    ``begin`` is the statement that begins a transaction. Raises ``ConfigurationError`` if the role may not create tables.
    """
    applied = []
    try:
        missing = await _missing(connection, migrations)
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(explain(error, await _role(connection))) from error
    for migration in missing:
        try:
            if await _apply_in_turn(connection, migration, begin):
                applied.append(migration)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError) as error:
            role = await _role(connection)
            raise ConfigurationError(
                f"migration {migration.version:04d} needs rights that the role {role} does not have ({error}): run"
                f" `ecomcharge migrate` as the owner of the tables, or as the owner of the database GRANT USAGE, CREATE"
                f" ON SCHEMA public TO {role}"
            ) from error
    return applied


async def _role(connection: Connection) -> str:
    return str(await connection.fetchval("SELECT quote_ident(current_user)"))


async def _missing(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    known: set[int] = set()
    if await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL"):
        known = {row[0] for row in await connection.fetch("SELECT version FROM schema_migrations")}
    return [migration for migration in migrations if migration.version not in known]


async def _apply_in_turn(connection: Connection, migration: Migration, begin: str) -> bool:
    """Apply a migration unless another process did so meanwhile.

    The lock belongs to the transaction, because a pooler may give the next transaction another session.
    """
    await connection.execute(begin)
    try:
        lock_timeout = await connection.fetchval("SELECT current_setting('lock_timeout')")
        await connection.execute("SET LOCAL lock_timeout = 0")  # a migration of another process may take longer
        try:
            await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})", timeout=LOCK_TIMEOUT_SECONDS)
        except TimeoutError as error:
            raise Unavailable(f"another process has been applying migrations for {LOCK_TIMEOUT_SECONDS:.0f} seconds") from error
        await connection.execute(f"SET LOCAL lock_timeout = '{lock_timeout}'")
        await connection.execute(_CREATE)
        is_missing = bool(await _missing(connection, [migration]))
        if is_missing:
            await connection.execute(migration.sql, timeout=MIGRATION_TIMEOUT_SECONDS)
            await connection.execute(_RECORD, migration.version, migration.name)
        await connection.execute("COMMIT")
    except BaseException:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    return is_missing
