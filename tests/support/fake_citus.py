"""Stands in for Citus, which the machines of the tests cannot install.

It is a plain PostgreSQL database that names the extension and has functions with the names of Citus. They record their calls, and
refuse what Citus refuses when a table is distributed. Nothing is distributed: rows, plans and two-phase commits of a real cluster
are not tested here.
"""

from __future__ import annotations

import asyncio

import asyncpg

_EXTENSION = """
SET allow_system_table_mods = on;
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
VALUES (64000, 'citus', 10, 'pg_catalog'::regnamespace, false, 'fake')
"""

_FUNCTIONS = """
CREATE SCHEMA fake_citus;
CREATE TABLE fake_citus.calls (number BIGINT GENERATED ALWAYS AS IDENTITY, call TEXT);
CREATE TABLE pg_dist_partition (logicalrelid REGCLASS PRIMARY KEY, partmethod "char", colocationid INT);

CREATE FUNCTION fake_citus.is_distributed(REGCLASS) RETURNS BOOLEAN LANGUAGE sql AS
    'SELECT EXISTS (SELECT 1 FROM pg_dist_partition WHERE logicalrelid = $1)';

CREATE FUNCTION create_distributed_table(
    table_name REGCLASS, distribution_column TEXT, distribution_type TEXT DEFAULT 'hash', colocate_with TEXT DEFAULT 'default'
) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    number SMALLINT := (SELECT attnum FROM pg_attribute WHERE attrelid = table_name AND attname = distribution_column);
BEGIN
    IF fake_citus.is_distributed(table_name) THEN
        RAISE EXCEPTION 'table % is already distributed', table_name;
    END IF;
    IF EXISTS (SELECT 1 FROM pg_index WHERE indrelid = table_name AND indisunique AND number <> ALL (indkey::SMALLINT[])) THEN
        RAISE EXCEPTION 'cannot create constraint on %: distribution column is not in a unique index', table_name;
    END IF;
    IF EXISTS (SELECT 1 FROM pg_constraint WHERE contype = 'f' AND table_name IN (conrelid, confrelid)) THEN
        RAISE EXCEPTION 'cannot create foreign key constraint since relations are not colocated: %', table_name;
    END IF;
    IF colocate_with <> 'none' AND NOT fake_citus.is_distributed(colocate_with::REGCLASS) THEN
        RAISE EXCEPTION 'relation % is not distributed', colocate_with;
    END IF;
    INSERT INTO pg_dist_partition VALUES (
        table_name, 'h',
        CASE WHEN colocate_with = 'none' THEN 1 + (SELECT COUNT(*) FROM pg_dist_partition)
            ELSE (SELECT colocationid FROM pg_dist_partition WHERE logicalrelid = colocate_with::REGCLASS) END
    );
    INSERT INTO fake_citus.calls (call) VALUES ('distribute ' || table_name);
END $$;

CREATE FUNCTION truncate_local_data_after_distributing_table(table_name REGCLASS) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_constraint WHERE contype = 'f' AND confrelid = table_name) THEN
        RAISE EXCEPTION 'cannot truncate a table referenced in a foreign key constraint';
    END IF;
    INSERT INTO fake_citus.calls (call) VALUES ('truncate ' || table_name);
END $$;
"""


def install(url: str, *, functions: bool = False) -> None:
    """Make a PostgreSQL database look like one with Citus, with its functions if ``migrate --distribute`` is tested."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(_EXTENSION)
            if functions:
                await connection.execute(_FUNCTIONS)
        finally:
            await connection.close()

    asyncio.run(run())
