"""The fixed statistics of SQLite's query planner."""

from __future__ import annotations

from pathlib import Path

import apsw

from ecomcharge.storage.database import Database
from support.shops import with_database


async def _nothing(database: Database) -> None:
    """The database is migrated before."""


def statistics(path: Path) -> dict[str, str]:
    """The statistics of each index."""
    return dict(apsw.Connection(str(path)).execute("SELECT idx, stat FROM sqlite_stat1"))


def test_every_index_has_fixed_statistics(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    with_database(f"sqlite:///{path}", _nothing)
    indexes = apsw.Connection(str(path)).execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
    found = statistics(path)
    assert {str(name) for (name,) in indexes} <= found.keys()
    assert found["customers"] == "1000000 100000 1"
    assert found["subscriptions_by_plan_and_state"] == "1000000 100000 10000 1000 1"
    assert found["payments_once"] == "10000 10000 5 1"


def test_a_start_restores_the_statistics_after_analyze(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    with_database(f"sqlite:///{path}", _nothing)
    fixed = statistics(path)
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO shops (shop_id, name, created_at) VALUES (1, 'Shop', 0)")
    connection.execute("ANALYZE")
    connection.close()
    assert statistics(path) != fixed
    with_database(f"sqlite:///{path}", _nothing)
    assert statistics(path) == fixed
