"""The search index of SQLite: its segments are merged in short steps."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from ecomcharge.customers import store
from ecomcharge.customers.actions import merge_search_index
from ecomcharge.customers.bulk.blocks import RECORDS_PER_BLOCK
from ecomcharge.runtime import housekeeping
from ecomcharge.storage.database import Database
from ecomcharge.storage.sqlite.term_segments import Level, Step, levels_of, next_step, structure_sql
from support.bulk import SHOP, command, lines
from support.customers import add, customer, rows, with_shop
from support.shops import with_database

ALONE = 60  # commits of one customer
ERASED = (7, 1500, 2999)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "PAUSE_AFTER_MERGE_SECONDS", 0)


async def segments(database: Database) -> int:
    ((structure,),) = await database.rows(structure_sql(store.SEARCH), {})
    return sum(len(level.pages) for level in levels_of(structure))


async def found(database: Database) -> list[int]:
    """The row numbers of the customers that the index finds, by whole terms and by a prefix."""
    sql = "SELECT rowid FROM customer_search WHERE customer_search MATCH :words ORDER BY rowid"
    exact = [await database.rows(sql, {"words": f'"1e{number}@shop.test"'}) for number in range(1, 3 * ALONE)]
    return [row[0] for each in [*exact, await database.rows(sql, {"words": '"1e1" *'})] for row in each]


def data_version(path: Path) -> object:
    """Changes with each commit that writes."""
    return (path.stat().st_mtime_ns, path.with_name(path.name + "-wal").stat().st_size)


def test_housekeeping_merges_what_commits_added_and_then_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "test.db"

    async def work(database: Database) -> None:
        await with_shop(database)
        for number in range(1, ALONE):
            await add(database, number)
        before, expected = await segments(database), await found(database)
        assert before >= 7
        await housekeeping.merge_search_index(database)
        assert await segments(database) <= 2
        assert await found(database) == expected
        commits, version = database.stats.commits, data_version(path)
        await housekeeping.merge_search_index(database)
        assert (database.stats.commits, data_version(path)) == (commits, version)

    with_database(f"sqlite:///{path}", work)


def test_an_erasure_between_two_steps_removes_the_terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "test.db"
    monkeypatch.setattr("ecomcharge.storage.sqlite.term_segments.PAGES_PER_STEP", 1)

    async def work(database: Database) -> None:
        await with_shop(database)
        for first in (1, 1001, 2001):
            await database.write(lambda tx, first=first: store.insert_many(tx, rows(range(first, first + 1000))))  # type: ignore[misc]
        assert await database.merge_terms(store.SEARCH, all_segments=True)
        assert await segments(database) > 1
        for number in ERASED:
            await database.write(lambda tx, number=number: store.erase(tx, 1, customer(number).id, 2, 1))  # type: ignore[misc]
        await merge_search_index(database)
        assert await segments(database) == 1
        await database.overwrite_deleted()

    with_database(f"sqlite:///{path}", work)
    contents = b"".join(each.read_bytes() for each in tmp_path.glob("test.db*"))
    assert b"8@shop.test" in contents
    assert not [number for number in ERASED if b"e%d@shop.test" % number in contents]
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO customer_search (customer_search) VALUES ('integrity-check')")
    sql = "SELECT count(*) FROM customer_search WHERE customer_search MATCH ?"
    assert [connection.execute(sql, (f'"1e{number}@shop.test"',)).get for number in (7, 8)] == [0, 1]


def test_an_import_leaves_one_segment(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    with_database(url, lambda database: with_shop(database, SHOP))
    done = command(url, "import", "-", "--format", "jsonl", "--shop-id", str(SHOP), stdin=lines(3 * RECORDS_PER_BLOCK))
    assert (done.returncode, with_database(url, segments)) == (0, 1)


def test_a_merge_of_nothing_ends(database_url: str) -> None:
    async def work(database: Database) -> list[bool]:
        await with_shop(database)
        await add(database, 1)
        return [await database.merge_terms(store.SEARCH, all_segments=each) for each in (False, True)]

    assert with_database(database_url, work) == [False, False]


@pytest.mark.parametrize(
    ("levels", "all_segments", "expected"),
    [
        ([], True, None),
        ([Level(0, [1])], True, None),
        ([Level(0, [1, 1])], False, Step(16, 2)),
        ([Level(0, [1, 1]), Level(0, [900, 3])], False, None),  # FTS5 would rewrite 900 pages
        ([Level(0, [1, 1, 1]), Level(0, [900, 3])], False, None),  # the result is the third of level 1, still three
        ([Level(0, [1] * 4), Level(0, [900])], False, Step(16, 3)),
        ([Level(0, [1]), Level(2, [22, 13]), Level(0, [435])], False, Step(16, 2)),  # an unfinished merge
        ([Level(0, [1]), Level(0, [35, 36]), Level(2, [173, 120]), Level(0, [493, 101])], False, Step(16, 2)),
        ([Level(0, [200]), Level(0, [900])], True, None),
        ([Level(0, [300]), Level(0, [900])], True, Step(-16, 2)),
        ([Level(0, [300]), Level(0, [900])], False, None),
    ],
)
def test_a_merge_begins_only_if_it_is_cheap(levels: list[Level], all_segments: bool, expected: Step | None) -> None:
    assert next_step(levels, all_segments=all_segments) == expected
