"""Records the statements that stores execute, and measures how much work an engine does for each of them."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw
import asyncpg

import ecomcharge
from ecomcharge.storage.database import Database, Params, Row, Transaction, Unit
from ecomcharge.storage.opening import sqlite_path
from ecomcharge.storage.postgres.by_shop import select_of_shop, shop_key_of
from ecomcharge.storage.postgres.statements import numbered, select_many, select_one
from ecomcharge.storage.sqlite.connection import connect
from ecomcharge.storage.sqlite.transaction import select_sql
from ecomcharge.storage.statements import Insert, PointRead, TermIndex

_SQL: Final = re.compile(r"\s*(SELECT|UPDATE|DELETE\s+FROM|INSERT\s+INTO|WITH)\s", re.ASCII)
_PLACE: Final = re.compile(r"\{\w*\}")

Statement = str | PointRead


@dataclass(frozen=True)
class Executed:
    """A statement with its parameters: named ones, or the values of a key."""

    statement: Statement
    params: Params | Row


@dataclass(frozen=True)
class Work:
    """``touched``: what the engine did, in units of its own. ``returned``: rows returned, changed, counted or skipped."""

    touched: int
    returned: int
    plan: str


# The statements of the program


def statements_of_program() -> dict[str, dict[str, str] | Statement]:
    """All statements that are constants of modules, by module and name. A dictionary has one for each engine.

    Parts of statements have names that begin with an underscore.
    """
    found: dict[str, dict[str, str] | Statement] = {}
    seen: set[int] = set()
    for module in pkgutil.walk_packages(ecomcharge.__path__, "ecomcharge."):
        if module.name.endswith("__main__") or module.name.startswith("ecomcharge.storage."):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if _is_statement(value) and not name.startswith("_") and id(value) not in seen:
                seen.add(id(value))
                found[f"{module.name.removeprefix('ecomcharge.')}.{name}"] = value
    return found


def _is_statement(value: object) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(_is_statement(each) for each in value.values())
    return isinstance(value, PointRead) or (isinstance(value, str) and _SQL.match(value) is not None)


def statements_in_functions() -> list[str]:
    """Where a function contains the text of a statement, so that ``statements_of_program`` does not find it."""
    root = Path(ecomcharge.__file__).parent
    return [
        f"{path.relative_to(root)}:{text.lineno}"
        for path in sorted(root.rglob("*.py"))
        if path.parts[len(root.parts)] != "storage"
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for text in ast.walk(function)
        if isinstance(text, ast.Constant) and isinstance(text.value, str) and _SQL.match(text.value)
    ]


def is_executed(statement: dict[str, str] | Statement, executed: Sequence[Executed], engine: str) -> bool:
    if isinstance(statement, dict):
        statement = statement[engine]
    if isinstance(statement, PointRead):
        return any(each.statement is statement for each in executed)
    pattern = re.compile(".*".join(map(re.escape, _PLACE.split(statement))), re.DOTALL)
    return any(isinstance(each.statement, str) and pattern.fullmatch(each.statement) for each in executed)


# Recording


@dataclass
class RecordingDatabase:
    """Passes every call on, and keeps the statements. Inserts are not kept: they search nothing."""

    inner: Database
    executed: list[Executed] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def find(self, read: PointRead, key: Row) -> Row | None:
        self.executed.append(Executed(read, key))
        return await self.inner.find(read, key)

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        self.executed.append(Executed(sql, params))
        return await self.inner.rows(sql, params)

    async def rows_in_background(self, sql: str, params: Params) -> Sequence[Row]:
        self.executed.append(Executed(sql, params))
        return await self.inner.rows_in_background(sql, params)

    async def write(self, unit: Unit[Any]) -> Any:
        return await self.inner.write(lambda tx: unit(RecordingTransaction(tx, self.executed)))


@dataclass
class RecordingTransaction:
    inner: Transaction
    executed: list[Executed]

    async def find(self, read: PointRead, key: Row) -> Row | None:
        self.executed.append(Executed(read, key))
        return await self.inner.find(read, key)

    async def find_many(self, read: PointRead, keys: Sequence[Row]) -> Sequence[Row | None]:
        self.executed += [Executed(read, key) for key in keys]
        return await self.inner.find_many(read, keys)

    async def insert(self, insert: Insert, row: Row) -> bool:
        return await self.inner.insert(insert, row)

    async def insert_many(self, insert: Insert, rows: Sequence[Row]) -> Sequence[bool]:
        return await self.inner.insert_many(insert, rows)

    async def index_terms(self, index: TermIndex, records: Sequence[tuple[str, str]]) -> None:
        await self.inner.index_terms(index, records)

    async def remove_terms(self, index: TermIndex, records: Sequence[tuple[str, str]]) -> None:
        await self.inner.remove_terms(index, records)

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        self.executed.append(Executed(sql, params))
        return await self.inner.rows(sql, params)

    async def run(self, sql: str, params: Params) -> int:
        self.executed.append(Executed(sql, params))
        return await self.inner.run(sql, params)

    async def run_many(self, sql: str, params: Sequence[Params]) -> None:
        self.executed += [Executed(sql, each) for each in params]
        await self.inner.run_many(sql, params)

    async def run_returning(self, sql: str, params: Params) -> Sequence[Row]:
        self.executed.append(Executed(sql, params))
        return await self.inner.run_returning(sql, params)


# Measuring


def measure_on_sqlite(url: str, executed: Sequence[Executed]) -> Iterator[tuple[str, Executed, Work]]:
    """Execute each statement and roll it back. ``touched`` counts the steps of SQLite's virtual machine.

    The connection is one of the program, with the same settings.
    """
    path = sqlite_path(url)
    assert path is not None
    connection = connect(path)
    profiles: list[dict[str, Any]] = []
    connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, profiles.append)
    try:
        for each in executed:
            sql = each.statement if isinstance(each.statement, str) else select_sql(each.statement)
            plan = " | ".join(str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", each.params))
            connection.execute("BEGIN")
            profiles.clear()
            rows = connection.execute(sql, each.params).fetchall()
            [steps] = [profile["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"] for profile in profiles if profile["sql"] == sql]
            returned = len(rows) if rows or sql.lstrip().startswith("SELECT") else connection.changes()
            connection.execute("ROLLBACK")
            yield sql, each, Work(steps, _all_rows(each, sql, rows, returned), plan)
    finally:
        connection.close()


def _all_rows(executed: Executed, sql: str, rows: Sequence[Row], returned: int) -> int:
    """The rows that a statement is allowed to read: also those that it counts or skips, up to a limit of its own."""
    params = executed.params if isinstance(executed.params, dict) else {}
    counted = rows[0][0] if rows and re.search(r"\bSELECT COUNT\(\*\)", sql) else 0
    return returned + counted + sum(int(params.get(name, 0)) for name in ("offset", "kept", "most", "window"))


async def measure_on_postgres(url: str, executed: Sequence[Executed], plans: str) -> list[tuple[str, Executed, Work]]:
    """Execute each statement with EXPLAIN ANALYZE and roll it back. ``touched`` counts rows and pages.

    ``plans`` is a value of ``plan_cache_mode``: plans for the parameters, or plans for any parameters.
    """
    found = []
    connection = await asyncpg.connect(url)
    await connection.execute(f"SET plan_cache_mode = {plans}")
    try:
        for each in executed:
            for text, values in await _texts_of(connection, each):
                async with _rolled_back(connection):
                    rows = await connection.fetch(text, *values)
                async with _rolled_back(connection):
                    literals = ", ".join(map(_literal, values))
                    await connection.execute(f"PREPARE measured AS {text}")
                    call = f"EXECUTE measured({literals})" if values else "EXECUTE measured"
                    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {call}")
                    await connection.execute("DEALLOCATE measured")
                plan = json.loads(explained)[0]["Plan"]
                pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
                touched = pages + sum(_rows_of(node) for node in _nodes(plan))
                changes = plan["Node Type"] == "ModifyTable" and not rows
                returned = int(plan["Plans"][0]["Actual Rows"]) if changes else len(rows)
                text_of_plan = " | ".join(_description(node) for node in _nodes(plan))
                found.append((text, each, Work(touched, _all_rows(each, text, rows, returned), text_of_plan)))
    finally:
        await connection.close()
    return found


class _rolled_back:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def __aenter__(self) -> None:
        await self._connection.execute("BEGIN")

    async def __aexit__(self, *exception: object) -> None:
        await self._connection.execute("ROLLBACK")


async def _texts_of(connection: Any, executed: Executed) -> list[tuple[str, list[object]]]:
    """The forms of a statement: a point read is executed alone, and for several keys at once, with and without Citus."""
    if isinstance(executed.statement, str):
        statement = numbered(executed.statement)
        assert isinstance(executed.params, dict)
        return [(statement.text, statement.values(executed.params))]
    one, key = select_one(executed.statement), list(executed.params)
    prepared = await connection.prepare(one)
    types = tuple(parameter.name for parameter in prepared.get_parameters())
    forms = [(one, key), (select_many(executed.statement, types), [[value] for value in key])]
    if (shop_key := shop_key_of(executed.statement)) is not None:
        text = select_of_shop(executed.statement, shop_key, types[shop_key.other])
        forms.append((text, [key[shop_key.shop], [key[shop_key.other]]]))
    return forms


def _literal(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case int():
            return str(value)
        case list():
            return f"ARRAY[{', '.join(map(_literal, value))}]"
    text = str(value).replace("'", "''")
    return f"'{text}'"


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _rows_of(node: dict[str, Any]) -> int:
    removed = sum(node.get(key, 0) for key in ("Rows Removed by Filter", "Rows Removed by Join Filter"))
    return int((node["Actual Rows"] + removed) * node["Actual Loops"])


def _description(node: dict[str, Any]) -> str:
    names = [node["Node Type"], *(str(node[key]) for key in ("Index Name", "Relation Name") if key in node)]
    conditions = [f"{key}: {node[key]}" for key in ("Index Cond", "Filter", "Join Filter", "Hash Cond") if key in node]
    return f"{' '.join(names)} ({_rows_of(node)} rows) {' '.join(conditions)}".rstrip()
