"""The rules of Citus for statements, checked on the parse tree of PostgreSQL's own parser.

The rules were learnt from statements that failed or asked all shards on a cluster of three nodes, and from the planner of Citus.
They are stricter than Citus: it accepts more of a statement that goes to one shard.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pglast.ast
from pglast.enums import A_Expr_Kind, BoolExprType, JoinType, SubLinkType
from pglast.visitors import Visitor

from ecomcharge.storage.postgres.distribution import DISTRIBUTED, DISTRIBUTION_COLUMN, LOCAL

ast: Any = pglast.ast  # its types say of each attribute of a node that it may be absent

AGGREGATES: Final = {"count", "min", "max", "sum", "avg"}

ASKS_ALL_SHARDS: Final = "shop_id is not compared with one value"


def broken_rules(sql: str) -> set[str]:
    """The rules that a statement with numbered parameters breaks."""
    [statement] = pglast.parse_sql(sql)
    rules = _Rules()
    rules.check(statement.stmt, outer=None)
    tables = {node.relname for node in _nodes(statement.stmt, ast.RangeVar)}
    if tables & set(DISTRIBUTED) and tables & set(LOCAL):
        rules.broken.add("it uses a distributed table and a local one")
    if ASKS_ALL_SHARDS in rules.broken and any(_nodes(statement.stmt, ast.LockingClause)):
        rules.broken.add("it locks rows of several shards")
    return rules.broken


@dataclass
class _Level:
    """The tables of one SELECT, UPDATE or DELETE by their names in it, and of those around it."""

    outer: _Level | None
    tables: dict[str, str] = field(default_factory=dict)
    derived: set[str] = field(default_factory=set)  # subqueries, common table expressions and functions
    scalar: set[str] = field(default_factory=set)  # tables whose distribution column is compared with one value
    equal: list[tuple[str, str]] = field(default_factory=list)

    def knows(self, name: str) -> bool:
        return name in self.tables or name in self.derived

    @property
    def distributed(self) -> list[str]:
        return [name for name, table in self.tables.items() if table in DISTRIBUTED]

    def spread(self) -> None:
        """What equals a column with one value has one value."""
        for _ in self.equal:
            for left, right in self.equal:
                if left in self.scalar or right in self.scalar:
                    self.scalar |= {left, right}

    def is_colocated(self) -> bool:
        """Whether each distributed table is joined by its distribution column, with another one or with an outer one."""
        joined = {name for pair in self.equal for name in pair}
        alone = len(self.distributed) == 1 and self.outer is None
        return alone or all(name in joined or name in self.scalar for name in self.distributed)


@dataclass
class _Rules:
    broken: set[str] = field(default_factory=set)

    def check(self, statement: Any, outer: _Level | None, *, is_lateral: bool = False) -> None:
        for expression in getattr(getattr(statement, "withClause", None), "ctes", None) or ():
            self.check(expression.ctequery, None)
        match statement:
            case ast.SelectStmt(larg=left, rarg=right) if left is not None:
                self.check(left, outer, is_lateral=is_lateral)
                self.check(right, outer, is_lateral=is_lateral)
            case ast.SelectStmt():
                self._check_select(statement, outer, is_lateral)
            case ast.InsertStmt():
                self._check_insert(statement)
            case ast.UpdateStmt() | ast.DeleteStmt():
                self._check_change(statement)
            case _:
                raise ValueError(f"no statement of a store: {statement}")

    def _check_select(self, select: Any, outer: _Level | None, is_lateral: bool) -> None:
        level = _Level(outer)
        conditions = [select.whereClause]
        for item in select.fromClause or ():
            self._add_from(item, level, conditions)
        self._check_level(level, conditions, [select.targetList, select.whereClause, select.havingClause])
        own = [node for part in (select.targetList, select.whereClause) for node in _nodes(part, ast.ColumnRef)]
        refers_out = is_lateral or any(_is_outer(column, level) for column in own)
        if refers_out and (select.limitCount is not None or select.limitOffset is not None):
            self.broken.add("LIMIT or OFFSET in a subquery that refers to a column outside")
        aggregates = any(call.funcname[-1].sval in AGGREGATES for call in _nodes(select.targetList, ast.FuncCall))
        if refers_out and aggregates and not select.groupClause:
            self.broken.add("an aggregate without GROUP BY in a subquery that refers to a column outside")

    def _check_insert(self, insert: Any) -> None:
        columns = [column.name for column in insert.cols]
        values = insert.selectStmt.valuesLists
        if not values:
            self.broken.add("an insert that selects its rows instead of listing VALUES")
        elif insert.relation.relname in DISTRIBUTED:
            shops = {repr(row[columns.index(DISTRIBUTION_COLUMN)]) for row in values} if DISTRIBUTION_COLUMN in columns else set()
            if len(shops) != 1 or "ParamRef" not in next(iter(shops)):
                self.broken.add(ASKS_ALL_SHARDS)
        conflict = insert.onConflictClause
        if conflict is not None and conflict.infer is not None and insert.relation.relname in DISTRIBUTED:
            named = {element.name for element in conflict.infer.indexElems or ()}
            if DISTRIBUTION_COLUMN not in named:
                self.broken.add("ON CONFLICT without the distribution column")
        self._check_returning(insert)

    def _check_change(self, change: Any) -> None:
        level = _Level(None)
        conditions = [change.whereClause]
        targets = change.targetList if isinstance(change, ast.UpdateStmt) else ()
        for item in (
            change.relation,
            *(getattr(change, "fromClause", None) or ()),
            *(getattr(change, "usingClause", None) or ()),
        ):
            self._add_from(item, level, conditions)
        self._check_level(level, conditions, [targets, change.whereClause])
        if any(target.name == DISTRIBUTION_COLUMN for target in targets):
            self.broken.add("an update of the distribution column")
        self._check_returning(change)

    def _check_returning(self, statement: Any) -> None:
        returned = getattr(statement, "returningList", None) or getattr(
            getattr(statement, "returningClause", None), "exprs", None
        )
        if any(_nodes(returned, ast.FuncCall)) or any(_nodes(returned, ast.SQLValueFunction)):
            self.broken.add("a function in RETURNING")

    def _add_from(self, item: Any, level: _Level, conditions: list[Any]) -> None:
        match item:
            case ast.RangeVar():
                name = item.alias.aliasname if item.alias else item.relname
                if item.relname in DISTRIBUTED or item.relname in LOCAL:
                    level.tables[name] = item.relname
                else:
                    level.derived.add(name)
            case ast.RangeSubselect():
                level.derived.add(item.alias.aliasname)
                self.check(item.subquery, level if item.lateral else None, is_lateral=bool(item.lateral))
            case ast.RangeFunction():
                level.derived.add(item.alias.aliasname if item.alias else "")
            case ast.JoinExpr():
                self._add_from(item.larg, level, conditions)
                self._add_from(item.rarg, level, conditions)
                if item.jointype not in (JoinType.JOIN_INNER, JoinType.JOIN_LEFT):
                    self.broken.add("an unusual join")
                conditions.append(item.quals)
                if item.usingClause and DISTRIBUTION_COLUMN in {name.sval for name in item.usingClause}:
                    names = [*level.tables, *level.derived]
                    level.equal += list(itertools.pairwise(names))
            case _:
                raise ValueError(f"unknown item in FROM: {item}")

    def _check_level(self, level: _Level, conditions: Sequence[Any], expressions: Sequence[Any]) -> None:
        for condition in _conjuncts(conditions):
            _note_equality(condition, level)
        level.spread()
        if not level.scalar.issuperset(level.distributed):
            self.broken.add(ASKS_ALL_SHARDS)
            if not level.is_colocated():
                self.broken.add("a join that is not on the distribution column")
        for link in _own_sublinks(expressions):
            inner_tables = {node.relname for node in _nodes(link.subselect, ast.RangeVar)} & set(DISTRIBUTED)
            is_correlated = (
                any(_is_outer_name(column, level) for column in _nodes(link.subselect, ast.ColumnRef))
                and link.subLinkType != SubLinkType.ARRAY_SUBLINK
            )
            if is_correlated and inner_tables and not level.distributed:
                self.broken.add("a subquery in WHERE that refers to a subquery in FROM")
            self.check(link.subselect, level if is_correlated else None)


def _nodes(tree: Any, kind: type[Any]) -> list[Any]:
    found: list[Any] = []

    class Collect(Visitor):
        def visit(self, ancestors: Any, node: Any) -> None:
            if isinstance(node, kind):
                found.append(node)

    for each in tree if isinstance(tree, tuple | list) else (tree,):
        if each is not None:
            Collect()(each)
    return found


def _conjuncts(conditions: Sequence[Any]) -> Iterator[Any]:
    for condition in conditions:
        if isinstance(condition, ast.BoolExpr) and condition.boolop == BoolExprType.AND_EXPR:
            yield from _conjuncts(condition.args)
        elif condition is not None:
            yield condition


def _own_sublinks(expressions: Sequence[Any]) -> list[Any]:
    """Subqueries of expressions, without those within them."""
    links = [link for expression in expressions for link in _nodes(expression, ast.SubLink)]
    inner = [each for link in links for each in _nodes(link.subselect, ast.SubLink)]
    return [link for link in links if not any(link is each for each in inner)]


def _note_equality(condition: Any, level: _Level) -> None:
    is_equality = isinstance(condition, ast.A_Expr) and condition.kind == A_Expr_Kind.AEXPR_OP and condition.name[-1].sval == "="
    if not is_equality:
        return
    sides = [condition.lexpr, condition.rexpr]
    names = [_name_of_distribution_column(side, level) for side in sides]
    match names:
        case [str(left), str(right)]:
            level.equal.append((left, right))
        case [str(name), None] if isinstance(sides[1], ast.ParamRef):
            level.scalar.add(name)
        case [None, str(name)] if isinstance(sides[0], ast.ParamRef):
            level.scalar.add(name)


def _name_of_distribution_column(node: Any, level: _Level) -> str | None:
    if not isinstance(node, ast.ColumnRef) or not isinstance(node.fields[-1], ast.String):
        return None
    if node.fields[-1].sval != DISTRIBUTION_COLUMN:
        return None
    if len(node.fields) == 2:
        return str(node.fields[0].sval)
    own = level.distributed or list(level.derived)
    return own[0] if len(own) == 1 else None


def _is_outer(column: Any, level: _Level) -> bool:
    """Whether a column of a subquery belongs to a level around it."""
    if len(column.fields) < 2:
        return False
    name, outer = column.fields[0].sval, level.outer
    if level.knows(name):
        return False
    while outer is not None:
        if outer.knows(name):
            return True
        outer = outer.outer
    return False


def _is_outer_name(column: Any, level: _Level) -> bool:
    return len(column.fields) > 1 and isinstance(column.fields[0], ast.String) and level.knows(column.fields[0].sval)
