"""Every statement follows the rules of Citus; those that ask all shards are listed in the documents."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ecomcharge
from ecomcharge.storage import term_search
from ecomcharge.storage.postgres.by_shop import insert_rows, select_of_shop, shop_key_of
from ecomcharge.storage.postgres.statements import insert_many, insert_one, numbered, select_many, select_one
from ecomcharge.storage.statements import Insert, PointRead
from support.citus_rules import ASKS_ALL_SHARDS, broken_rules
from support.statement_work import statements_of_program

PAGE = Path(ecomcharge.__file__).parents[2] / "docs" / "growing-past-one-database.md"

OUTSIDE = "that refers to a column outside"
DUE = "SELECT 1 FROM webhooks AS waiting WHERE due_at < $1 AND EXISTS (SELECT 1 FROM webhooks AS other WHERE {} {})"
READ = PointRead("customers", ("id",), key=("shop_id", "external_id"), first_by="id")
COUNT = PointRead("sandbox_charges", ("COUNT(*)",), key=("shop_id", "token"))
INSERT = Insert("cards", ("shop_id", "token"), key=("shop_id", "token"))


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        (insert_one(INSERT, with_transaction_id=True), "a function in RETURNING"),
        (insert_many(INSERT, ("int8", "text"), with_transaction_id=False), "selects its rows"),
        (insert_rows(INSERT, 2).replace("($1, $3)", "($3, $3)"), ASKS_ALL_SHARDS),
        (insert_one(INSERT, with_transaction_id=False).replace("CONFLICT", "CONFLICT (token)"), "ON CONFLICT"),
        (select_many(READ, ("int8", "text")), f"LIMIT or OFFSET in a subquery {OUTSIDE}"),
        (select_many(COUNT, ("int8", "text")), f"an aggregate without GROUP BY in a subquery {OUTSIDE}"),
        ("SELECT id FROM customers WHERE id = $1", ASKS_ALL_SHARDS),
        ("SELECT id FROM customers WHERE shop_id = ANY($1) AND id = $2", ASKS_ALL_SHARDS),
        ("SELECT id FROM customers WHERE shop_id = $1 OR id = $2", ASKS_ALL_SHARDS),
        ("UPDATE customers SET city = '' WHERE id = $1 RETURNING now()", "a function in RETURNING"),
        ("UPDATE customers SET shop_id = $2 WHERE shop_id = $1", "an update of the distribution column"),
        ("SELECT 1 FROM plans JOIN subscriptions ON plans.id = plan_id WHERE plans.shop_id = $1", "a join"),
        ("SELECT 1 FROM shops WHERE closed_at IS NULL FOR SHARE", "it locks rows of several shards"),
        (DUE.format("other.id = waiting.id", ""), "a join that is not on the distribution column"),
        (DUE.format("other.shop_id = waiting.shop_id", "LIMIT 1"), f"LIMIT or OFFSET in a subquery {OUTSIDE}"),
        (
            DUE.replace("FROM webhooks AS waiting", "FROM (SELECT * FROM webhooks LIMIT 9) AS waiting").format(
                "other.shop_id = waiting.shop_id", ""
            ),
            "a subquery in WHERE that refers to a subquery in FROM",
        ),
        ("SELECT 1 FROM shops, sandbox_clock WHERE shop_id = $1", "a distributed table and a local one"),
    ],
)
def test_a_statement_that_citus_refuses_or_sends_to_all_shards_breaks_a_rule(sql: str, rule: str) -> None:
    assert any(rule in broken for broken in broken_rules(sql)), broken_rules(sql)


def statements() -> Iterator[tuple[str, str]]:
    """The name of each statement, and its forms where Citus is installed."""
    search = {"columns": "id", "records": "customers", "matching": "TRUE", "direction": "DESC", "counts": "COUNT(*)"}
    templates = {"SELECT_NEAREST": term_search.SELECT_NEAREST, "COUNT_NEAREST": term_search.COUNT_NEAREST}
    templates |= {"SELECT_HITS": term_search.SELECT_HITS["postgresql"], "COUNT_HITS": term_search.COUNT_HITS["postgresql"]}
    for name, template in templates.items():
        for among in ("", *term_search.AMONG_NEAREST.values()):
            sql = template.format(**search, among=among.format(**search))
            yield f"storage.term_search.{'AMONG_NEAREST' if among else name}", numbered(sql).text
    for name, statement in statements_of_program().items():
        match statement:
            case PointRead():
                yield name, select_one(statement)
                if (shop_key := shop_key_of(statement)) is not None:
                    yield name, select_of_shop(statement, shop_key, "text")
            case dict():
                yield name, numbered(statement["postgresql"]).text
            case str():
                yield name, numbered(re.sub(r"\{\w*\}", "", statement.replace("{direction}", "DESC"))).text
    for name, insert in inserts():
        yield name, insert_one(insert, with_transaction_id=False)
        yield name, insert_rows(insert, 3)
        yield name, select_one(PointRead(insert.table, ("1",), insert.key))  # for the outcome of a commit in doubt


def inserts() -> Iterator[tuple[str, Insert]]:
    for module in pkgutil.walk_packages(ecomcharge.__path__, "ecomcharge."):
        if module.name.endswith(".store") or module.name in ("ecomcharge.gateways.sandbox", "ecomcharge.web.idempotency"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, Insert):
                    yield f"{module.name}.{name}", value


def test_every_statement_follows_the_rules_and_the_documents_list_those_that_ask_all_shards() -> None:
    broken = {(name, rule, sql) for name, sql in statements() for rule in broken_rules(sql)}
    others = [each for each in broken if each[1] != ASKS_ALL_SHARDS]
    assert not others, "\n\n".join(f"{name}: {rule}\n{sql}" for name, rule, sql in others)
    listed = set(re.findall(r"^\| `([a-z_.]+\.[A-Z_]+)`", PAGE.read_text("utf-8"), re.MULTILINE))
    assert {name for name, _, _ in broken} == listed


def test_every_insert_is_checked() -> None:
    """A module with an ``Insert`` that the test above does not read."""
    root = Path(ecomcharge.__file__).parent
    found = sum(len(re.findall(r"^[A-Z_]+(?:: Final)? = Insert\(", path.read_text("utf-8"), re.M)) for path in root.rglob("*.py"))
    assert len(list(inserts())) == found
