"""Searches for records by their terms (``TermIndex``), with the full-text index of each engine.

An index collects all records with a frequent term or prefix before it returns the first one: a prefix that a million records
share takes more than a second on both engines. Therefore a search has two steps:

1. Compare the terms of the next records of the list. If a few hundred show that the terms are frequent, more records are
   compared, as many as are likely to fill the page.
2. Otherwise ask the index. It gets the groups of terms that are the rarest among the next records, and each other group that it
   intersects faster than the terms of the records found can be compared.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ecomcharge.base.ids import row_number_of
from ecomcharge.storage.database import Reader, Row
from ecomcharge.storage.records import ALL_IDS, IdRange, direction
from ecomcharge.storage.statements import TermIndex

SAMPLE: Final = 500  # records of the list whose terms are compared first
SAMPLE_OF_WHOLE_TERMS: Final = 50  # the index finds one in 0.1 ms, unless most records share it
MARGIN: Final = 1.5  # more records than the density in the last window requires
MARGIN_OF_SEVERAL_GROUPS: Final = 3.0  # than their densities require: of two words of a name, one is rarely the beginning of both
LONGER_WINDOWS: Final = 2  # after the sample: the first one that does not fill the page has a better estimate
FREQUENT: Final = 0.2  # of the records: comparing all of them is the fastest way to count


class Limits(NamedTuple):
    """Windows, in records: how many of the next ones are compared, and among how many the index is asked at first.

    A group that is more than ``rare_ratio`` times as frequent as the rarest one costs the index more than it saves.
    """

    compared: int
    compared_by_several_groups: int
    indexed: int
    rare_ratio: int


# To compare the terms of a thousand records takes 0.5 ms on SQLite and 0.8 ms on PostgreSQL. For a thousand matching records the
# index of SQLite takes 0.6 ms and returns them in their order. That of PostgreSQL takes 0.5 ms, and reads a page of the table for
# each: 1 ms, or 5 if the pages are not in its memory. So it is asked among the next records only, if they are likely to fill the
# page: 0.3 ms for a thousand of them. Otherwise it intersects groups that are not rare, too, so that fewer pages are read.
LIMITS: Final = {"sqlite": Limits(5_000, 20_000, 0, 3), "postgresql": Limits(5_000, 10_000, 60_000, 8)}

ID_DIGITS: Final = 16
LOWEST_ROW_NUMBER, HIGHEST_ROW_NUMBER = -(2**63), 2**63 - 1


class Term(NamedTuple):
    """A term of a record or, with ``is_prefix``, the beginning of one.

    ``any_letter_at``: the group has a term for each letter that can stand at this position, so one comparison serves them all.
    """

    text: str
    is_prefix: bool = True
    any_letter_at: int | None = None


Group = Sequence[Term]  # alternatives: a record matches if it has at least one of the terms

NEAREST: Final = """(
    SELECT * FROM {records} WHERE shop_id = :shop_id AND id > :after AND id < :before ORDER BY id {direction} LIMIT :window
) AS nearest"""

SELECT_NEAREST: Final = f"""
SELECT {{columns}} FROM {NEAREST} WHERE {{matching}} ORDER BY id {{direction}} LIMIT :limit OFFSET :offset
"""

COUNT_NEAREST: Final = f"SELECT {{counts}} FROM {NEAREST}"

# SQLite reads the row numbers in their order, and stops when the page is full. CROSS JOIN keeps the order of the tables.
# PostgreSQL materializes "hits". Otherwise the planner combines the index with a scan of the shop's part of the primary key, or
# reads the list in its order until the page is full. It takes array_to_tsvector for cheap and would read a table of up to 40,000
# rows as a whole; it takes to_tsvector for expensive, which is never executed here.
HITS: Final = {
    "sqlite": """
FROM {index} AS hits CROSS JOIN {records}
    ON shop_id = :shop_id
    AND id = printf('{prefix}%08x%08x', ((hits.rowid >> 32) + 2147483648) & 4294967295, hits.rowid & 4294967295)
WHERE {index} MATCH :match AND hits.rowid BETWEEN :first AND :last AND id > :after AND id < :before AND {matching}
""",
    "postgresql": """
WITH hits AS MATERIALIZED (
    SELECT shop_id, id FROM {records}
    WHERE array_to_tsvector(string_to_array(search_terms, ' ')) @@ (SELECT CAST(:match AS tsquery)) AND {matching}
    AND (search_terms IS NOT NULL OR to_tsvector('simple', search_terms) IS NOT NULL) {among}
)
""",
}

# Only the next records. PostgreSQL combines both indexes, and reads the pages of the records that are in both.
AMONG_NEAREST: Final = {
    "ASC": """AND shop_id = :shop_id AND id > :after AND id < COALESCE((
        SELECT id FROM {records} WHERE shop_id = :shop_id AND id > :after AND id < :before ORDER BY id LIMIT 1 OFFSET :window
    ), :before)""",
    "DESC": """AND shop_id = :shop_id AND id < :before AND id > COALESCE((
        SELECT id FROM {records} WHERE shop_id = :shop_id AND id > :after AND id < :before ORDER BY id DESC LIMIT 1 OFFSET :window
    ), :after)""",
}

SELECT_HITS: Final = {
    "sqlite": f"""
SELECT {{columns}} {HITS["sqlite"]} ORDER BY hits.rowid {{direction}} LIMIT :limit OFFSET :offset
""",
    "postgresql": f"""
{HITS["postgresql"]}, page AS MATERIALIZED (
    SELECT shop_id, id FROM hits WHERE shop_id = :shop_id AND id > :after AND id < :before
    ORDER BY id {{direction}} LIMIT :limit OFFSET :offset
)
SELECT {{columns}} FROM page JOIN {{records}} USING (shop_id, id) WHERE shop_id = :shop_id ORDER BY id {{direction}}
""",
}

COUNT_HITS: Final = {
    "sqlite": f"SELECT COUNT(*) {HITS['sqlite']}",
    "postgresql": f"""
{HITS["postgresql"]} SELECT COUNT(*) FROM hits WHERE shop_id = :shop_id AND id > :after AND id < :before
""",
}


class _Statement(NamedTuple):
    sql: str
    match: str  # a parameter; empty if the index is not asked


class _RareGroups(NamedTuple):
    """``match`` asks the index for the rarest groups; ``compared`` are the conditions of the others."""

    match: str
    compared: Sequence[str]


@dataclass(frozen=True, slots=True)
class TermSearch:
    """The records of a shop that match every group; there is at least one group. ``columns`` are those of the rows."""

    database: Reader
    index: TermIndex
    columns: str
    shop_id: int
    groups: Sequence[Group]

    async def select(
        self,
        limit: int,
        ids: IdRange = ALL_IDS,
        *,
        newest_first: bool = False,
        offset: int = 0,
        in_background: bool = False,
    ) -> Sequence[Row]:
        """As ``Records.select``. A search by prefix is always in the background."""
        if ids.after >= ids.before:
            return []
        has_prefix = any(term.is_prefix for group in self.groups for term in group)
        read = self.database.rows_in_background if in_background or has_prefix else self.database.rows
        order, wanted = direction(newest_first), limit + offset
        params = self._params(ids) | {"limit": limit, "offset": offset}
        window = SAMPLE if has_prefix else SAMPLE_OF_WHOLE_TERMS
        sql = self._comparison(order).sql
        rows = await read(sql, {**params, "window": window, "limit": wanted, "offset": 0})
        if len(rows) == wanted:
            return rows[offset:]
        window, counts = await self._estimate(window, wanted, len(rows), params, order)
        for _ in range(LONGER_WINDOWS if has_prefix else 0):
            statement = self._among_nearest(window, counts, order)
            if statement is None:
                break
            rows = await read(statement.sql, {**params, "window": window, "match": statement.match})
            if len(rows) == limit:
                return rows
            window = _next_window(window, wanted, offset + len(rows) if rows else 0)
        statement = self._hits(counts, self._limits().rare_ratio, order)
        return await read(statement.sql, {**params, "match": statement.match})

    async def count(self, ids: IdRange = ALL_IDS) -> int:
        if ids.after >= ids.before:
            return 0
        read, params, order = self.database.rows_in_background, self._params(ids), direction(newest_first=True)
        sql = self._sql_of_counts([_all(conditions_of(self.groups))], order)
        [[count]] = await read(sql, {**params, "window": SAMPLE})
        if count > SAMPLE * FREQUENT:
            [[count]] = await read(sql, {**params, "window": HIGHEST_ROW_NUMBER})
        else:
            counts = await self._counts(params, order) if len(self.groups) > 1 else [count]
            groups = self._rare_groups(counts, self._limits().rare_ratio)
            sql = self._sql(COUNT_HITS[self.database.engine], groups.compared, among="")
            [[count]] = await read(sql, {**params, "match": groups.match})
        return int(count)

    async def _estimate(
        self, window: int, wanted: int, found: int, params: dict[str, object], order: str
    ) -> tuple[int, Sequence[int]]:
        """The number of records that are likely to have the wanted matches, and how many of the sample match each group."""
        longer = _next_window(window, wanted, found)
        if len(self.groups) == 1:
            return longer, [found]
        counts = await self._counts(params, order)
        if longer <= self._limits().compared_by_several_groups:
            return longer, counts
        density = math.prod(count / SAMPLE for count in counts)  # too few match all groups to count them
        return int(MARGIN_OF_SEVERAL_GROUPS * wanted / density) if density else HIGHEST_ROW_NUMBER, counts

    async def _counts(self, params: dict[str, object], order: str) -> Sequence[int]:
        """How many of the next records match each group."""
        sql = self._sql_of_counts(conditions_of(self.groups), order)
        [counts] = await self.database.rows_in_background(sql, {**params, "window": SAMPLE})
        return list(counts)

    def _among_nearest(self, window: int, counts: Sequence[int], order: str) -> _Statement | None:
        """The statement for a window of this length, unless it is too long for all."""
        limits = self._limits()
        if window <= (limits.compared if len(self.groups) == 1 else limits.compared_by_several_groups):
            return self._comparison(order)
        if window <= limits.indexed:
            return self._hits(counts, 1, order, among=AMONG_NEAREST[order].format(records=self.index.records))
        return None

    def _comparison(self, order: str) -> _Statement:
        sql = self._sql(SELECT_NEAREST, conditions_of(self.groups), columns=self.columns, direction=order)
        return _Statement(sql, match="")

    def _hits(self, counts: Sequence[int], ratio: int, order: str, among: str = "") -> _Statement:
        groups = self._rare_groups(counts, ratio)
        template = SELECT_HITS[self.database.engine]
        sql = self._sql(template, groups.compared, columns=self.columns, direction=order, among=among)
        return _Statement(sql, groups.match)

    def _rare_groups(self, counts: Sequence[int], ratio: int) -> _RareGroups:
        are_rare = [count <= ratio * (min(counts) + 1) for count in counts]
        others = [each for each, is_rare in zip(conditions_of(self.groups), are_rare, strict=True) if not is_rare]
        return _RareGroups(self._match(list(itertools.compress(self.groups, are_rare))), others)

    def _sql_of_counts(self, conditions: Sequence[str], order: str) -> str:
        counts = ", ".join(f"COUNT(CASE WHEN {condition} THEN 1 END)" for condition in conditions)
        return self._sql(COUNT_NEAREST, (), counts=counts, direction=order)

    def _limits(self) -> Limits:
        return LIMITS[self.database.engine]

    def _sql(self, template: str, conditions: Sequence[str], **parts: str) -> str:
        index = {"index": self.index.table, "records": self.index.records, "prefix": self.index.prefix}
        return template.format(**index, **parts, matching=_all(conditions))

    def _params(self, ids: IdRange) -> dict[str, object]:
        return {
            "shop_id": self.shop_id,
            "after": ids.after,
            "before": ids.before,
            "first": self._row_number(ids.after, LOWEST_ROW_NUMBER),
            "last": self._row_number(ids.before, HIGHEST_ROW_NUMBER),
            **params_of(self.groups),
        }

    def _row_number(self, bound: str, otherwise: int) -> int:
        """The row number of a bound that is an id."""
        is_id = bound.startswith(self.index.prefix) and len(bound) == len(self.index.prefix) + ID_DIGITS
        return row_number_of(bound) if is_id else otherwise

    def _match(self, groups: Sequence[Group]) -> str:
        if self.database.engine == "sqlite":
            return " AND ".join(f"({' OR '.join(map(_fts5, group))})" for group in groups)
        return " & ".join(f"({' | '.join(map(_tsquery, group))})" for group in groups)


def _next_window(window: int, wanted: int, found: int) -> int:
    """The number of records that are likely to have the wanted matches, if so many were found in a shorter window."""
    return int(window * MARGIN * wanted / found) if found else HIGHEST_ROW_NUMBER


def _all(conditions: Sequence[str]) -> str:
    return " AND ".join(conditions) or "TRUE"


def conditions_of(groups: Sequence[Group]) -> list[str]:
    """For each group a condition on a record's terms, the same on both engines. The values of ``params_of`` belong to it.

    LIKE takes as long as ``instr`` of SQLite, and up to 1.6 times as long as ``strpos`` of PostgreSQL.
    """
    numbers = itertools.count()
    conditions = []
    for group in groups:
        alternatives = [f"' ' || search_terms || ' ' LIKE :term_{next(numbers)} ESCAPE '!'" for _ in _patterns_of(group)]
        conditions.append(f"({' OR '.join(alternatives)})")
    return conditions


def params_of(groups: Sequence[Group]) -> dict[str, str]:
    patterns = itertools.chain.from_iterable(map(_patterns_of, groups))
    return {f"term_{number}": pattern for number, pattern in enumerate(patterns)}


def _patterns_of(group: Group) -> list[str]:
    """The different LIKE patterns of a group. One for all kinds of a word takes a third of the time of one for each."""
    return list(dict.fromkeys(map(_pattern, group)))


def _pattern(term: Term) -> str:
    parts = [term.text]
    if term.any_letter_at is not None:
        parts = [term.text[: term.any_letter_at], term.text[term.any_letter_at + 1 :]]
    text = "_".join(part.replace("!", "!!").replace("%", "!%").replace("_", "!_") for part in parts)
    return f"% {text}%" if term.is_prefix else f"% {text} %"


def _fts5(term: Term) -> str:
    """https://www.sqlite.org/fts5.html#full_text_query_syntax"""
    text = term.text.replace('"', '""')
    return f'"{text}" *' if term.is_prefix else f'"{text}"'


def _tsquery(term: Term) -> str:
    """https://www.postgresql.org/docs/current/datatype-textsearch.html#DATATYPE-TSQUERY"""
    text = term.text.replace("\\", "\\\\").replace("'", "''")
    return f"'{text}':*" if term.is_prefix else f"'{text}'"
