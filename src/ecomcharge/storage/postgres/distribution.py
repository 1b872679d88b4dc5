"""Distributes the tables by shop over the nodes of a cluster with Citus.

Citus distributes a table only while no foreign key connects it with a table that is elsewhere. So the foreign keys are dropped,
the tables are distributed, and the keys are added again. Each statement is a transaction of its own, and what is left to do is
read from the catalog: a run that stopped is continued by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import asyncpg

from ecomcharge.base.errors import ConfigurationError, Unavailable
from ecomcharge.storage.postgres.connecting import Connection
from ecomcharge.storage.postgres.errors import explain
from ecomcharge.storage.postgres.migrations import LOCK

DISTRIBUTION_COLUMN: Final = "shop_id"

# The first one begins the group that the others are placed with. As a reference table, shops would have a copy on each node,
# and a statement that changes a table with a foreign key to it could not change several shards at the same time.
DISTRIBUTED: Final = (
    *("shops", "shop_keys", "gateway_accounts", "idempotency_keys", "external_id_locks", "customer_imports"),
    *("customers", "erased_customers", "plans", "subscriptions", "payments", "cards", "sandbox_charges", "events", "webhooks"),
)

# They have a few rows without a shop, and no statement joins them. They stay on the coordinator, because each change of a
# reference table would have to be written to all nodes.
LOCAL: Final = ("schema_migrations", "sandbox_clock", "clock_moves")

EXECUTION_SECONDS: Final = 24 * 60 * 60.0  # a large table is copied to the nodes


class ForeignKey(NamedTuple):
    table: str
    columns: tuple[str, ...]
    referenced: str
    referenced_columns: tuple[str, ...]

    @property
    def name(self) -> str:
        """As PostgreSQL names it in the migrations."""
        return "_".join((self.table, *self.columns, "fkey"))


FOREIGN_KEYS: Final = (
    *(ForeignKey(table, ("shop_id",), "shops", ("shop_id",)) for table in DISTRIBUTED[1:]),
    ForeignKey("subscriptions", ("shop_id", "plan_id"), "plans", ("shop_id", "id")),
    ForeignKey("subscriptions", ("shop_id", "customer_id"), "customers", ("shop_id", "id")),
    ForeignKey("payments", ("shop_id", "subscription_id"), "subscriptions", ("shop_id", "id")),
)

_DISTRIBUTED_TABLES: Final = """
SELECT relname FROM pg_dist_partition JOIN pg_class ON pg_class.oid = logicalrelid
WHERE partmethod = 'h' AND relnamespace = current_schema()::regnamespace
"""

# Rows that were in a table before it was distributed stay on the coordinator, where no statement finds them.
_TABLES_WITH_LOCAL_DATA: Final = """
SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace AND pg_relation_size(oid) > 0
"""

_FOREIGN_KEYS: Final = "SELECT conname FROM pg_constraint WHERE contype = 'f' AND connamespace = current_schema()::regnamespace"


async def distribute(connection: Connection, report: Callable[[str], None], *, dry_run: bool) -> None:
    """Distribute what is not distributed yet.

    ``report`` gets each statement after its execution; with ``dry_run`` none is executed. Raises ``Unavailable`` if another
    process migrates the database, and ``ConfigurationError`` if a statement fails.
    """
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
        raise Unavailable("another process is migrating the database")
    try:
        for statement in await _remaining_statements(connection):
            if not dry_run:
                await _execute(connection, statement)
            report(statement)
    finally:
        if not connection.is_closed():
            await connection.execute(f"SELECT pg_advisory_unlock({LOCK})")


async def _execute(connection: Connection, statement: str) -> None:
    try:
        await connection.execute(statement, timeout=EXECUTION_SECONDS)
    except asyncpg.PostgresError as error:
        raise ConfigurationError(f"{statement}: {explain(error)}; the next run continues here") from error


async def _remaining_statements(connection: Connection) -> list[str]:
    distributed = {row[0] for row in await connection.fetch(_DISTRIBUTED_TABLES)}
    local_data = {row[0] for row in await connection.fetch(_TABLES_WITH_LOCAL_DATA)}
    keys = {row[0] for row in await connection.fetch(_FOREIGN_KEYS)}
    return list(remaining_statements(distributed, local_data, keys))


def remaining_statements(distributed: set[str], with_local_data: set[str], foreign_keys: set[str]) -> Iterator[str]:
    """What is left to do.

    The arguments are names of the tables that are distributed, of those that have rows on the coordinator, and of the foreign
    keys that exist.
    """
    missing = [table for table in DISTRIBUTED if table not in distributed]
    changed = {table for table in DISTRIBUTED if table in missing or table in with_local_data}
    dropped = set()
    for key in FOREIGN_KEYS:
        if key.name in foreign_keys and not changed.isdisjoint((key.table, key.referenced)):
            dropped.add(key.name)
            yield f"ALTER TABLE {key.table} DROP CONSTRAINT {key.name}"
    for table in missing:
        group = "none" if table == DISTRIBUTED[0] else DISTRIBUTED[0]
        yield f"SELECT create_distributed_table('{table}', '{DISTRIBUTION_COLUMN}', colocate_with => '{group}')"
    for table in DISTRIBUTED:
        if table in with_local_data:
            yield f"SELECT truncate_local_data_after_distributing_table('{table}')"
    for key in FOREIGN_KEYS:
        if key.name not in foreign_keys - dropped:
            columns, referenced = ", ".join(key.columns), ", ".join(key.referenced_columns)
            yield (
                f"ALTER TABLE {key.table} ADD CONSTRAINT {key.name}"
                f" FOREIGN KEY ({columns}) REFERENCES {key.referenced} ({referenced})"
            )
