"""Searches for records by their terms (``TermIndex``), with the full-text index of each engine.

An index collects all records with a frequent term or prefix before it returns the first one: a prefix that a million records
share takes more than a second on both engines. Therefore a search has two steps:

1. Compare the terms of the next records of the list. If a few hundred show that the terms are frequent, more records are
   compared, as many as are likely to fill the page.
2. Otherwise ask the index, but only for the groups of terms that are the rarest among the next records. The terms of the
   records that it finds decide about the other groups.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ecomcharge.base.ids import row_number_of
from ecomcharge.storage.database import Database, Row
from ecomcharge.storage.records import ALL_IDS, IdRange, direction
from ecomcharge.storage.statements import TermIndex

# Records of the list whose terms are compared. A thousand take 0.5 ms on SQLite and 1 ms on PostgreSQL. For 13,000 matching
# records in a million, the index takes 8 ms on SQLite and 18 ms on PostgreSQL.
SAMPLE: Final = 500
SAMPLE_OF_WHOLE_TERMS: Final = 50  # the index finds one in 0.1 ms, unless most records share it
MARGIN: Final = 1.5  # more records than the density in the sample requires
LONGEST_WINDOW: Final = 5_000
LONGEST_WINDOW_OF_SEVERAL_GROUPS: Final = 20_000  # the index finds the records of one group at least, and they are compared, too
RARE_RATIO: Final = 3  # a group that is so many times as frequent as the rarest one costs more than it saves
FREQUENT: Final = 0.2  # of the records: comparing all of them is the fastest way to count

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
    WHERE array_to_tsvector(string_to_array(search_terms, ' ')) @@ CAST(:match AS tsquery) AND {matching}
    AND (search_terms IS NOT NULL OR to_tsvector('simple', search_terms) IS NOT NULL)
)
""",
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
SELECT {{columns}} FROM page JOIN {{records}} USING (shop_id, id) ORDER BY id {{direction}}
""",
}

COUNT_HITS: Final = {
    "sqlite": f"SELECT COUNT(*) {HITS['sqlite']}",
    "postgresql": f"""
{HITS["postgresql"]} SELECT COUNT(*) FROM hits WHERE shop_id = :shop_id AND id > :after AND id < :before
""",
}


@dataclass(frozen=True, slots=True)
class TermSearch:
    """The records of a shop that match every group; there is at least one group. ``columns`` are those of the rows."""

    database: Database
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
        names = {"columns": self.columns, "direction": direction(newest_first)}
        params = self._params(ids) | {"limit": limit, "offset": offset}
        sql = self._sql(SELECT_NEAREST, **names)
        sample = SAMPLE if has_prefix else SAMPLE_OF_WHOLE_TERMS
        found = await read(sql, {**params, "window": sample, "limit": limit + offset, "offset": 0})
        if len(found) == limit + offset:
            return found[offset:]
        window = sample * MARGIN * (limit + offset) / len(found) if found else math.inf
        if has_prefix and window <= (LONGEST_WINDOW if len(self.groups) == 1 else LONGEST_WINDOW_OF_SEVERAL_GROUPS):
            rows = await read(sql, {**params, "window": int(window)})
            if len(rows) == limit:
                return rows
        params["match"] = self._match(await self._rare_groups(params, names["direction"]))
        return await read(self._sql(SELECT_HITS[self.database.engine], **names), params)

    async def count(self, ids: IdRange = ALL_IDS) -> int:
        if ids.after >= ids.before:
            return 0
        read, params, order = self.database.rows_in_background, self._params(ids), direction(newest_first=True)
        all_groups = " AND ".join(conditions_of(self.groups))
        sql = self._sql(COUNT_NEAREST, counts=f"COUNT(CASE WHEN {all_groups} THEN 1 END)", direction=order)
        [[count]] = await read(sql, {**params, "window": SAMPLE})
        if count > SAMPLE * FREQUENT:
            [[count]] = await read(sql, {**params, "window": HIGHEST_ROW_NUMBER})
        else:
            params["match"] = self._match(await self._rare_groups(params, order))
            [[count]] = await read(self._sql(COUNT_HITS[self.database.engine]), params)
        return int(count)

    async def _rare_groups(self, params: dict[str, object], order: str) -> Sequence[Group]:
        """The groups that fewest of the next records match, and those that are not much more frequent."""
        if len(self.groups) == 1:
            return self.groups
        counts = ", ".join(f"COUNT(CASE WHEN {condition} THEN 1 END)" for condition in conditions_of(self.groups))
        sql = self._sql(COUNT_NEAREST, counts=counts, direction=order)
        [found] = await self.database.rows_in_background(sql, {**params, "window": SAMPLE})
        most = RARE_RATIO * max(1, min(found))
        return [group for group, count in zip(self.groups, found, strict=True) if count <= most]

    def _sql(self, template: str, **parts: str) -> str:
        index = {"index": self.index.table, "records": self.index.records, "prefix": self.index.prefix}
        return template.format(**index, **parts, matching=" AND ".join(conditions_of(self.groups)))

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
