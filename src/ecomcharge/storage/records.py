"""The protocol of stored records, the iteration over all of them, and common units of work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from ecomcharge.storage.database import Database, Params, Row, Transaction, Unit

PER_CHUNK: Final = 200  # records


class Identified(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Identified)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IdRange:
    """The ids between two texts, neither of which belongs to the range."""

    after: str = ""
    before: str = "~"  # sorts after every id

    def narrowed_to(self, other: IdRange) -> IdRange:
        """The ids that are in both ranges."""
        return IdRange(max(self.after, other.after), min(self.before, other.before))


ALL_IDS: Final = IdRange()


class Records(Protocol[R]):
    """Records of one kind. The order of their ids is the order of their creation."""

    async def select(
        self,
        limit: int,
        ids: IdRange = ALL_IDS,
        *,
        newest_first: bool = False,
        offset: int = 0,
        in_background: bool = False,
    ) -> list[R]:
        """The first ``limit`` records of a range after the first ``offset`` ones, in ascending or descending order.

        Use ``in_background`` where the time matters less than that of other requests (``Database.rows_in_background``).
        """
        ...

    async def count(self, ids: IdRange = ALL_IDS) -> int:
        """The number of records in a range."""
        ...


def direction(newest_first: bool) -> str:
    """The direction of ``ORDER BY id``."""
    return "DESC" if newest_first else "ASC"


async def chunks_of(records: Records[R]) -> AsyncIterator[list[R]]:
    """All records, in chunks; memory holds one chunk at a time."""
    ids = ALL_IDS
    while True:
        chunk = await records.select(PER_CHUNK, ids)
        if chunk:
            await asyncio.sleep(0)  # lets other tasks run, even if the consumer never waits
            yield chunk
        if len(chunk) < PER_CHUNK:
            return
        ids = IdRange(after=chunk[-1].id)


class IdCollision(Exception):
    """Another process generated the same id in the same millisecond."""


class StaleVersion(Exception):
    """Another unit of work changed the record since it was read: read it again."""


async def retry_on_conflict(database: Database, unit: Unit[T]) -> T:
    """Run a unit of work that changes a record; repeat it while it raises ``StaleVersion`` or ``IdCollision``."""
    while True:
        try:
            return await database.write(unit)
        except (StaleVersion, IdCollision):
            continue


async def retry_on_id_collision(database: Database, unit: Unit[T]) -> T:
    """Run a unit of work that generates ids; repeat it while it raises ``IdCollision``."""
    while True:
        try:
            return await database.write(unit)
        except IdCollision:
            continue


async def execute(database: Database, sql: str, params: Params) -> int:
    """Run one statement in its own unit of work. Returns the number of changed rows."""
    return await database.write(lambda tx: tx.run(sql, params))


async def delete_each(database: Database, find: str, params: Params, delete: str, params_of: Callable[[Row], Params]) -> int:
    """Find rows and delete each by its key, in one unit of work. Returns the number of rows found.

    A DELETE with a subquery for the keys would be one statement. PostgreSQL reads the whole table for it if it does not know
    how many keys there will be.
    """

    async def unit(tx: Transaction) -> int:
        rows = await tx.rows(find, params)
        await tx.run_many(delete, [params_of(row) for row in rows])
        return len(rows)

    return await database.write(unit)
