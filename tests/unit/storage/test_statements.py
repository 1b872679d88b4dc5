"""Database URLs, and the statements for each engine."""

from __future__ import annotations

from typing import Any

import pytest

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.storage.opening import sqlite_path
from ecomcharge.storage.postgres import by_shop
from ecomcharge.storage.postgres import statements as postgres_statements
from ecomcharge.storage.sqlite.transaction import insert_sql, select_sql
from ecomcharge.storage.statements import Insert, PointRead


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:file.db", "sqlite:///folder/"])
def test_a_sqlite_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not a usable SQLite URL"):
        sqlite_path(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:///~/shop.db", "~ is not the home folder"),
        ("sqlite:////home/~jane/shop.db", "~ is not the home folder"),
        ("sqlite:///shop.db?mode=ro", "has no parameters"),
    ],
)
def test_a_sqlite_url_that_means_another_file_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        sqlite_path(url)
    assert sqlite_path("sqlite:////x/%7Ea%3Fb.db") == "/x/~a?b.db"


def test_sqlite_urls_with_three_slashes_are_relative_and_with_four_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sqlite_path("sqlite:///a/b.db") == f"{tmp_path}/a/b.db"
    assert sqlite_path("sqlite:////a/b%20c.db") == "/a/b c.db"
    assert sqlite_path("postgresql://localhost/x") is None


INSERT = Insert("t", ("k", "v"), key=("k",))
READ = PointRead("t", ("v", "w"), key=("k", "l"))
JOINED_READ = PointRead("t JOIN u ON u.k = t.k", ("u.v",), key=("t.k",), suffix="AND u.w IS NULL", first_by="u.v")


def test_sqlite_statements_have_question_marks() -> None:
    assert insert_sql(INSERT) == "INSERT INTO t (k, v) VALUES (?, ?) ON CONFLICT DO NOTHING"
    assert select_sql(READ) == "SELECT v, w FROM t WHERE k = ? AND l = ?"
    assert select_sql(JOINED_READ) == ("SELECT u.v FROM t JOIN u ON u.k = t.k WHERE t.k = ? AND u.w IS NULL ORDER BY u.v LIMIT 1")


def test_postgresql_statements_for_one_have_a_parameter_per_value() -> None:
    assert postgres_statements.select_one(READ) == "SELECT v, w FROM t WHERE k = $1 AND l = $2"
    assert postgres_statements.insert_one(INSERT, with_transaction_id=False) == (
        "INSERT INTO t (k, v) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING k"
    )
    assert postgres_statements.insert_one(INSERT, with_transaction_id=True) == (
        "INSERT INTO t (k, v) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING k, pg_current_xact_id()::text"
    )


def test_postgresql_statements_for_many_have_an_array_per_column() -> None:
    assert postgres_statements.select_many(JOINED_READ, ("int8",)) == (
        "SELECT asked.position, found.* FROM unnest($1::int8[]) WITH ORDINALITY AS asked(k1, position)"
        " CROSS JOIN LATERAL (SELECT u.v FROM t JOIN u ON u.k = t.k"
        " WHERE t.k = asked.k1 AND u.w IS NULL ORDER BY u.v LIMIT 1 OFFSET 0) AS found"
    )
    assert postgres_statements.insert_many(INSERT, ("int8", "text"), with_transaction_id=False) == (
        "INSERT INTO t (k, v) SELECT * FROM unnest($1::int8[], $2::text[]) ON CONFLICT DO NOTHING RETURNING k"
    )


def test_statements_for_citus_have_one_parameter_for_the_shop() -> None:
    read = PointRead("t", ("v",), key=("t.k", "t.shop_id"), suffix="AND w = 1")
    key = by_shop.shop_key_of(read)
    assert key == (1, 0)
    assert (
        by_shop.select_of_shop(read, key, "text")
        == "SELECT t.k, v FROM t WHERE t.shop_id = $1 AND t.k = ANY($2::text[]) AND w = 1"
    )
    oldest = PointRead("t", ("v",), key=("shop_id", "k"), first_by="id")
    assert by_shop.select_of_shop(oldest, by_shop.ShopKey(0, 1), "text") == (
        "SELECT DISTINCT ON (k) k, v FROM t WHERE shop_id = $1 AND k = ANY($2::text[]) ORDER BY k, id"
    )
    for other_key in (("shop_id",), ("k",), ("k", "l"), ("shop_id", "k", "l")):
        assert by_shop.shop_key_of(PointRead("t", ("v",), key=other_key)) is None
    insert = Insert("t", ("k", "shop_id", "v"), key=("shop_id", "k"))
    assert by_shop.insert_rows(insert, 2) == (
        "INSERT INTO t (k, shop_id, v) VALUES ($2, $1, $3), ($4, $1, $5) ON CONFLICT DO NOTHING RETURNING shop_id, k"
    )
    assert by_shop.insert_rows(INSERT, 2) == "INSERT INTO t (k, v) VALUES ($1, $2), ($3, $4) ON CONFLICT DO NOTHING RETURNING k"


def test_row_keys_have_the_column_order_of_the_key() -> None:
    assert Insert("t", ("a", "b", "c"), key=("c", "a")).key_of((1, 2, 3)) == (3, 1)


def test_postgresql_numbers_named_parameters_and_sqlite_binds_them() -> None:
    assert postgres_statements.numbered("SELECT :a, :b_c, :a") == ("SELECT $1, $2, $1", ("a", "b_c"))
    assert postgres_statements.numbered("SELECT :a, :b").values({"b": 2, "a": 1, "unused": 3}) == [1, 2]


@pytest.mark.parametrize("sql", ["SELECT x::text FROM t", "SELECT '12:30'", "SELECT ': '"])
def test_a_colon_outside_a_parameter_is_refused(sql: str) -> None:
    with pytest.raises(ValueError, match=":"):
        postgres_statements.numbered(sql)
