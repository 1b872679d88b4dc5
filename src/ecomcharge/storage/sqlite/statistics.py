"""Fixed statistics for SQLite's query planner.

Without statistics SQLite assumes that a shop has ten records of a kind. It then reads a whole shop by the primary key, where an
index would find a few records. Statistics that ``ANALYZE`` collects are no better in a database that is still small, and plans
would change when it is called again. The statistics here describe a large database, so that the plans suit large shops; a small
one is fast with any plan. https://www.sqlite.org/lang_analyze.html#fixed_results_of_analyze
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import apsw

ROWS: Final = 1_000_000  # of a table
ROWS_OF_PARTIAL_INDEX: Final = 10_000
ROWS_OF_SHOP: Final = 100_000
VALUES_OF_GROUP: Final = 10  # of a column that divides the records into few groups
ROWS_OF_VALUE: Final = 5  # of a column with many values
GROUPS: Final = frozenset(("plan_id", "state", "status", "type"))

_INDEXES: Final = """
SELECT indexes.name, tables.name, indexes.partial, indexes."unique"
FROM pragma_table_list AS tables JOIN pragma_index_list(tables.name) AS indexes
WHERE tables.schema = 'main' AND tables.type = 'table' AND tables.name NOT LIKE 'sqlite_%'
"""


def fix_statistics(connection: apsw.Connection) -> None:
    """Replace the statistics if they are not the fixed ones. Call it in a transaction that may write."""
    connection.execute("ANALYZE sqlite_schema")  # creates the tables of statistics
    fixed = sorted(_statistics(connection))
    if sorted(connection.execute("SELECT tbl, idx, stat FROM sqlite_stat1").fetchall()) != fixed:
        if connection.table_exists("main", "sqlite_stat4"):  # samples of values
            connection.execute("DELETE FROM sqlite_stat4")
        connection.execute("DELETE FROM sqlite_stat1")
        connection.executemany("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)", fixed)


def _statistics(connection: apsw.Connection) -> Iterator[tuple[str, str, str]]:
    """The table, the name and the statistics of each index. A primary key has the name of its table."""
    for name, table, is_partial, is_unique in connection.execute(_INDEXES).fetchall():
        columns = [str(row[0]) for row in connection.execute("SELECT name FROM pragma_index_info(?)", (name,))]
        rows = ROWS_OF_PARTIAL_INDEX if is_partial else ROWS
        of_key = table if str(name).startswith("sqlite_autoindex_") else name
        yield str(table), str(of_key), " ".join(map(str, [rows, *_rows_for_each_key(columns, rows, bool(is_unique))]))


def _rows_for_each_key(columns: Sequence[str], rows: int, is_unique: bool) -> Iterator[int]:
    """For each number of columns how many rows have the same values in these."""
    for position, column in enumerate(columns, 1):
        if column == "id" or (is_unique and position == len(columns)):
            rows = 1
        elif column == "shop_id":
            rows = min(rows, ROWS_OF_SHOP)
        elif column in GROUPS:
            rows = max(1, rows // VALUES_OF_GROUP)
        else:
            rows = min(rows, ROWS_OF_VALUE)
        yield rows
